"""Release cycles as a server would show them, for tests of what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import att_client
from att_client import (
    CycleKind,
    CycleOutcome,
    CycleState,
    CycleStep,
    CycleStepState,
    RollbackGateStatus,
    RollbackPolicyStatus,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CYCLE = "01K0CYCLE0000000000000000A"
OLD, NEW, UNDONE = "a" * 40, "b" * 40, "c" * 40

FORWARD = [step for step in CycleStep if CycleStep.PREPARE <= step <= CycleStep.FINALIZE]
BACK = [CycleStep.ROLLBACK, CycleStep.REVERT]


def status(
    step: CycleStep, state: CycleStepState = CycleStepState.SUCCEEDED, **fields: Any
) -> att_client.CycleStepStatus:
    """A step that began two seconds ago, and took half a second if it is over."""
    if state is CycleStepState.PENDING:
        return att_client.CycleStepStatus(step=step, state=state)
    over = state in (CycleStepState.SUCCEEDED, CycleStepState.FAILED)
    start = None if state is CycleStepState.SKIPPED else NOW - timedelta(seconds=2)
    known: dict[str, Any] = {
        "attempt": 0 if start is None else 1,
        "start_time": start,
        "end_time": NOW - timedelta(seconds=1.5) if over else None,
    }
    return att_client.CycleStepStatus(step=step, state=state, **(known | fields))


def cycle(*steps: att_client.CycleStepStatus, **fields: Any) -> att_client.Cycle:
    """A cycle with these steps, and all others pending."""
    given = {step.step: step for step in steps}
    known: dict[str, Any] = {
        "cycle_id": CYCLE,
        "project_id": "web",
        "kind": CycleKind.CHANGE,
        "state": CycleState.RUNNING,
        "requested_by": "local:1000",
        "create_time": NOW - timedelta(seconds=5),
        "steps": [
            given.get(step, status(step, CycleStepState.PENDING)) for step in [*FORWARD, *BACK]
        ],
    }
    return att_client.Cycle(**(known | fields))


def ended(
    outcome: CycleOutcome, *steps: att_client.CycleStepStatus, **fields: Any
) -> att_client.Cycle:
    """A cycle that is over."""
    return cycle(*steps, state=CycleState.ENDED, outcome=outcome, end_time=NOW, **fields)


def verdict(*, denied: str = "") -> att_client.RollbackVerdict:
    """A verdict of three gates, of which the second one may deny."""
    status = RollbackPolicyStatus.DENIED if denied else RollbackPolicyStatus.ALLOWED
    second = RollbackGateStatus.DENIED if denied else RollbackGateStatus.PASSED
    return att_client.RollbackVerdict(
        status=status,
        reason=denied or "rollback_target_validated",
        target_release_id=OLD,
        target_source="registry",
        gates=[
            att_client.RollbackGate(
                gate="not_frozen",
                allowed=True,
                status=RollbackGateStatus.PASSED,
                facts={"mode": "normal"},
            ),
            att_client.RollbackGate(
                gate="attempts_left",
                allowed=not denied,
                status=second,
                reason=denied,
                facts={"attempts": "1", "deployed": NEW},
            ),
            att_client.RollbackGate(
                gate="external_target_named",
                allowed=True,
                status=RollbackGateStatus.NOT_APPLICABLE,
                reason="self_hosted",
            ),
        ],
    )


def good() -> att_client.Cycle:
    """All steps went well."""
    return ended(
        CycleOutcome.SUCCEEDED,
        *(status(step) for step in FORWARD),
        result=att_client.CycleResult(
            merged=True, merge_commit_sha=NEW, deployed_release_id=NEW, commit_sha=UNDONE
        ),
    )


def rolled_back() -> att_client.Cycle:
    """Not healthy, and rolled back."""
    return ended(
        CycleOutcome.ROLLED_BACK,
        *(status(step) for step in FORWARD if step < CycleStep.HEALTH),
        status(
            CycleStep.HEALTH,
            CycleStepState.FAILED,
            reason="status_503",
            evidence={"url": "http://127.0.0.1:1/health", "release": NEW},
            log_tail=b"".join(b"line %d\n" % n for n in range(30)),
        ),
        *(status(step) for step in BACK),
        outcome_reason="health_failure",
        result=att_client.CycleResult(
            merged=True,
            merge_commit_sha=NEW,
            deployed_release_id=NEW,
            rollback_performed=True,
            rollback_succeeded=True,
            rollback_target_release_id=OLD,
            rollback_policy_status=RollbackPolicyStatus.ALLOWED,
            rollback_verdict=verdict(),
            reverted=True,
            revert_commit_sha=UNDONE,
        ),
    )


def denied() -> att_client.Cycle:
    """Not healthy, and the policy does not let it be rolled back."""
    reason = "rollback_attempts_exhausted"
    return ended(
        CycleOutcome.FAILED,
        *(status(step) for step in FORWARD if step < CycleStep.HEALTH),
        status(CycleStep.HEALTH, CycleStepState.FAILED, reason="status_503"),
        status(CycleStep.ROLLBACK, CycleStepState.FAILED, reason=reason),
        outcome_reason="health_failure",
        result=att_client.CycleResult(
            merged=True,
            merge_commit_sha=NEW,
            deployed_release_id=NEW,
            rollback_policy_status=RollbackPolicyStatus.DENIED,
            rollback_policy_reason=reason,
            rollback_verdict=verdict(denied=reason),
        ),
    )


def failed_tests(tail: bytes = b"boom\n") -> att_client.Cycle:
    """The tests failed."""
    return ended(
        CycleOutcome.FAILED,
        *(status(step) for step in FORWARD if step < CycleStep.TEST),
        status(
            CycleStep.TEST,
            CycleStepState.FAILED,
            reason="exit_code",
            evidence={"exit_code": "1"},
            log_tail=tail,
        ),
        outcome_reason="test_failure",
    )


def awaiting() -> att_client.Cycle:
    """Waits for a person."""
    return cycle(
        *(status(step) for step in FORWARD if step < CycleStep.APPROVAL),
        status(CycleStep.APPROVAL, CycleStepState.WAITING, reason="touches_att_toml"),
        state=CycleState.AWAITING_APPROVAL,
        current_step=CycleStep.APPROVAL,
        approval=att_client.ApprovalRequest(
            commit_sha=NEW,
            plan_digest="digest",
            expire_time=NOW + timedelta(days=1),
            reason="touches_att_toml",
        ),
    )


def held(
    state: CycleStepState = CycleStepState.WAITING,
    *,
    reason: str = "remote_unreachable",
    attempt: int = 1,
) -> att_client.Cycle:
    """Waits for the remote, or tries again."""
    waits = state is CycleStepState.WAITING
    return cycle(
        *(status(step) for step in FORWARD if step < CycleStep.PUSH),
        status(CycleStep.PUSH, state, reason=reason, attempt=attempt),
        state=CycleState.HELD,
        current_step=CycleStep.PUSH,
        next_try_time=NOW + timedelta(seconds=4) if waits else None,
        deadline_time=NOW + timedelta(days=1),
    )

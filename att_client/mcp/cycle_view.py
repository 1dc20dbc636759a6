"""A release cycle as a model reads it: how it stands, why, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence

import att_client
from att_client import CycleOutcome, CycleState, CycleStepState, RollbackPolicyStatus
from att_client.mcp.call import Call
from att_client.mcp.steps import Step
from att_client.mcp.text import cut_front, decoded, one_line, stamp, word
from att_client.mcp.tool import Output

_LOG_TAIL = 3_000  # characters of the failed step's output


class Approval(Output):
    """What a person has to decide on."""

    reason: str
    commit_sha: str
    expires: str | None = None
    command: str


class CycleStatus(Output):
    """A cycle as it is now."""

    cycle: str
    project: str
    kind: str
    state: str
    outcome: str | None = None
    outcome_reason: str | None = None
    steps: list[str]
    commit_sha: str | None = None
    merge_commit_sha: str | None = None
    deployed_release_id: str | None = None
    pr_url: str | None = None
    rollback: str | None = None
    reverted: bool | None = None
    failed_output: str | None = None
    approval: Approval | None = None
    next: str | None = None


class CycleStarted(Output):
    """The handle of a cycle that was started."""

    cycle: str
    project: str
    state: str
    next: str


def cycle_status(call: Call, cycle: att_client.Cycle) -> CycleStatus:
    """The cycle as tools and resources show it."""
    result = cycle.result or att_client.CycleResult()
    step = next_step(cycle)
    return CycleStatus(
        cycle=cycle.cycle_id,
        project=cycle.project_id,
        kind=word(cycle.kind),
        state=word(cycle.state),
        outcome=word(cycle.outcome) if cycle.outcome else None,
        outcome_reason=cycle.outcome_reason or None,
        steps=step_lines(cycle.steps),
        commit_sha=result.commit_sha or None,
        merge_commit_sha=result.merge_commit_sha or None,
        deployed_release_id=result.deployed_release_id or None,
        pr_url=one_line(result.pr_url) or None,
        rollback=_rollback(result),
        reverted=result.reverted or None,
        failed_output=_failed_output(cycle),
        approval=_approval(cycle),
        next=None if step is None else call.told(step),
    )


def cycle_started(call: Call, cycle: att_client.Cycle) -> CycleStarted:
    """The handle, with how to wait for the end."""
    return CycleStarted(
        cycle=cycle.cycle_id,
        project=cycle.project_id,
        state=word(cycle.state),
        next=call.told(_wait(cycle)),
    )


def waits_for_person(cycle: att_client.Cycle) -> bool:
    """Whether a decision is what the cycle waits for."""
    return cycle.state is CycleState.AWAITING_APPROVAL or (
        cycle.state is CycleState.HELD and cycle.approval is not None
    )


def approve_command(cycle: att_client.Cycle) -> str:
    """What a person types who approves."""
    commit = "" if cycle.approval is None else f" --commit {cycle.approval.commit_sha}"
    return f"ATT_TOKEN_FILE=approver.token att cycle approve {cycle.cycle_id}{commit}"


def step_lines(steps: Sequence[att_client.CycleStepStatus]) -> list[str]:
    """A line for each step that was or is being done, failed, or left out for a reason."""
    lines = []
    for status in steps:
        if status.state is CycleStepState.PENDING:
            continue
        facts = [one_line(f"{k}={v}") for k, v in sorted(status.evidence.items()) if len(v) < 100]
        because = f": {one_line(status.reason)}" if status.reason else ""
        shown = f" ({', '.join(facts[:6])})" if facts and because else ""
        again = f", attempt {status.attempt}" if status.attempt > 1 else ""
        lines.append(f"{word(status.step)} {word(status.state)}{again}{because}{shown}")
    return lines


def verdict_text(verdict: att_client.RollbackVerdict) -> str:
    """The policy's verdict with the gates that deny."""
    denied = [gate.gate for gate in verdict.gates if not gate.allowed]
    target = f" to {verdict.target_release_id}" if verdict.target_release_id else ""
    gates = f", denied by {', '.join(denied)}" if denied else ""
    return f"{word(verdict.status)}{target}: {verdict.reason}{gates}"


def next_step(cycle: att_client.Cycle) -> Step | None:
    """What to do about a cycle that stands like this; None where nothing is to be done."""
    named = {"cycle": cycle.cycle_id}
    if waits_for_person(cycle):
        return Step(
            "att.bootstrap.approval",
            named,
            f"Or a person with a token of another principal runs `{approve_command(cycle)}`.",
        )
    if cycle.state is not CycleState.ENDED:
        return _wait(cycle)
    if cycle.outcome is CycleOutcome.SUCCEEDED:
        return None
    if cycle.outcome_reason in ("test_failure", "ci_failure"):
        return Step("att.test.results", {"project": cycle.project_id, **named})
    if cycle.outcome is CycleOutcome.ROLLBACK_FAILED:
        return Step(
            "att.project.status",
            {"project": cycle.project_id},
            "Tell the person: neither release is known to work.",
        )
    if cycle.outcome is CycleOutcome.ROLLED_BACK:
        return Step("att.runtime.logs", {"project": cycle.project_id})
    return None


def _wait(cycle: att_client.Cycle) -> Step:
    return Step("att.bootstrap.status", {"cycle": cycle.cycle_id, "wait_seconds": "45"})


def _approval(cycle: att_client.Cycle) -> Approval | None:
    if cycle.approval is None or not waits_for_person(cycle):
        return None
    return Approval(
        reason=one_line(cycle.approval.reason),
        commit_sha=cycle.approval.commit_sha,
        expires=stamp(cycle.approval.expire_time),
        command=approve_command(cycle),
    )


def _rollback(result: att_client.CycleResult) -> str | None:
    if result.rollback_performed:
        how = "succeeded" if result.rollback_succeeded else "failed"
        because = result.rollback_failure_class or "asked for"
        return f"to {result.rollback_target_release_id}, {how}: {because}"
    if result.rollback_policy_status is RollbackPolicyStatus.DENIED:
        return f"denied: {result.rollback_policy_reason}"
    return None


def _failed_output(cycle: att_client.Cycle) -> str | None:
    failed = [s for s in cycle.steps if s.state is CycleStepState.FAILED and s.log_tail]
    return cut_front(decoded(failed[-1].log_tail), _LOG_TAIL) if failed else None

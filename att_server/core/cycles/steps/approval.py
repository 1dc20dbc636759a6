"""APPROVAL: a person decides, where the change touches what judges it or policy asks."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.gates import ApprovalReason, approval_reasons
from att_server.core.cycles.model import (
    ApprovalRequest,
    CycleStep,
)
from att_server.core.cycles.step import (
    Done,
    Failed,
    Leaves,
    Skipped,
    Step,
    StepEnd,
    StepWork,
    Waiting,
)
from att_server.core.cycles.steps.on_base import is_on_base
from att_server.core.cycles.steps.under_test import under_test
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.repository import Repositories


class ApprovalStep(Step):
    """Waits for a decision on this very commit and plan, until it expires.

    What the change touches, and so whether it is needed, is known only when it runs.
    """

    step = CycleStep.APPROVAL
    failure_class = FailureClass.INTERNAL
    interruptible = True

    def __init__(self, *, repositories: Repositories) -> None:
        self._repositories = repositories

    async def run(self, work: StepWork) -> StepEnd:
        """Looks at the paths, then for the decision."""
        cycle, facts = work.cycle, work.cycle.facts
        reasons = await self._reasons(work)
        if not reasons:
            return Skipped(reason="not_required")
        first = str(reasons[0])
        leaves = Leaves(
            facts=replace(facts, approval_reason=first),
            evidence={"reasons": ", ".join(reasons), "commit": facts.commit},
        )
        asked = cycle.approval or ApprovalRequest(
            commit_sha=facts.commit,
            plan_digest=facts.plan_digest,
            expire_time=work.now + work.settings.approval.timeout,
            reason=first,
        )
        decision = cycle.decision
        if decision is not None and (decision.commit_sha, decision.plan_digest) == (
            facts.commit,
            facts.plan_digest,
        ):
            decided = {"decided_by": decision.principal, "decision_reason": decision.reason}
            leaves = replace(leaves, evidence={**leaves.evidence, **decided})
            if decision.approved:
                return Done(leaves=leaves)
            return Failed(
                failure_class=FailureClass.APPROVAL_REJECTED,
                reason="approval_rejected",
                leaves=leaves,
            )
        if work.now >= asked.expire_time:
            return Failed(
                failure_class=FailureClass.APPROVAL_EXPIRED,
                reason="approval_expired",
                leaves=leaves,
            )
        if cycle.approval is None:
            leaves = replace(leaves, events=(_requested(work, asked),))
        return Waiting(
            until=asked.expire_time,
            reason=first,
            deadline=asked.expire_time,
            approval=asked,
            leaves=leaves,
        )

    async def _reasons(self, work: StepWork) -> tuple[ApprovalReason, ...]:
        cycle, facts = work.cycle, work.cycle.facts
        changed: list[str] = []
        if not is_on_base(cycle):
            repository = await self._repositories.of(work.project)
            what = under_test(facts)
            paths = await repository.changed_paths(what.base, what.tree)
            changed = [each.path for each in paths]
        # As PREPARE found; a later look puts the first of all reasons in its place.
        other_base = facts.approval_reason == ApprovalReason.OTHER_BASE_BRANCH
        return approval_reasons(work.settings, cycle.request, changed, other_base=other_base)


def _requested(work: StepWork, asked: ApprovalRequest) -> Event:
    return Event(
        event_type="approval.requested",
        time=work.now,
        reason=asked.reason,
        attributes={
            "commit": asked.commit_sha,
            "plan_digest": asked.plan_digest,
            "expire_time": asked.expire_time.isoformat(),
        },
    )

"""HEALTH: the release has to answer its checks, and to go on doing so for its bake time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime

from att_server.core.cycles.health_trial import Health
from att_server.core.cycles.health_watch import HealthWatch, Watched
from att_server.core.cycles.model import (
    ApprovalRequest,
    Cycle,
    CycleStep,
    Decision,
    HealthStatus,
)
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import (
    Again,
    Asked,
    Done,
    Failed,
    Held,
    Leaves,
    Step,
    StepEnd,
    StepWork,
)
from att_server.core.cycles.steps.evidence import app_tail, check_evidence, exit_evidence
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.ports import Clock

INCONCLUSIVE = "health_inconclusive"
"""Why a person may decide: the check itself cannot be made."""
DISMISSED = "health_dismissed"
"""A person decided so, of a release whose health could not be told."""

_STATUSES = {
    Health.HEALTHY: HealthStatus.HEALTHY,
    Health.UNHEALTHY: HealthStatus.UNHEALTHY,
}


class HealthStep(Step):
    """Checks the run by `health_check`, else the app's readiness probe, else its process.

    The rules are those of `HealthTrial`. Inconclusive, the cycle is held and
    nothing is promoted; the check is tried again and again, and an approver may
    decide instead of it. A run that is lost with its supervisor has to stay up first.
    """

    step = CycleStep.HEALTH
    failure_class = FailureClass.HEALTH_FAILURE
    interruptible = True

    def __init__(self, *, deployments: Deployments, clock: Clock) -> None:
        self._deployments = deployments
        self._clock = clock
        self._health = HealthWatch(deployments=deployments, clock=clock)

    def skip_reason(self, asked: Asked) -> str:
        """An external context runs its apps where nobody here can check."""
        return asked.not_run_here

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        cycle, settings = work.cycle, work.settings
        decision = _decision(work)
        if decision is not None and not decision.approved:
            evidence = {"decided_by": decision.principal}
            return await self._ended(work, HealthStatus.UNHEALTHY, DISMISSED, evidence)
        status = self._deployments.runtime(cycle.project_id).status
        trial = self._health.trial(
            settings,
            begun=status.start_time if status is not None else None,
            bake_time=settings.bake_time,
            healthy_since=cycle.facts.healthy_since,
        )

        async def baking(since: datetime | None) -> None:
            if settings.bake_time:
                await work.note(Leaves(facts=replace(cycle.facts, healthy_since=since)))

        watched = await self._health.watch(
            cycle.project_id,
            trial,
            run_id=cycle.facts.deploy_run_id,
            release_id=cycle.facts.release_id,
            probe=settings.health_check,
            interval=settings.health_check_interval,
            baking=baking,
        )
        verdict = watched.verdict
        if verdict is None:
            return Again(
                step=CycleStep.WATCHDOG,
                reason=watched.run.reason,
                leaves=Leaves(facts=replace(cycle.facts, healthy_since=None)),
            )
        evidence = _evidence(watched)
        if verdict.health is Health.INCONCLUSIVE and decision is not None:
            # What the check could not say, a person has said.
            evidence["decided_by"] = decision.principal
            return await self._ended(work, HealthStatus.HEALTHY, verdict.reason, evidence)
        if verdict.health is not Health.INCONCLUSIVE:
            found = _STATUSES[verdict.health]
            return await self._ended(work, found, verdict.reason, evidence)
        return Held(
            reason=INCONCLUSIVE,
            decidable=self._asks(work),
            leaves=Leaves(
                result=replace(cycle.result, health_status=HealthStatus.INCONCLUSIVE),
                evidence={**evidence, "check_reason": verdict.reason},
            ),
        )

    def _asks(self, work: StepWork) -> ApprovalRequest:
        """What a person may decide: the release that was switched to, whatever came before."""
        expires = work.cycle.deadline_time or self._clock.now() + work.settings.hold_timeout
        return ApprovalRequest(
            commit_sha=_deployed_commit(work.cycle),
            plan_digest=_asked_digest(work.cycle),
            expire_time=expires,
            reason=INCONCLUSIVE,
        )

    async def _ended(
        self, work: StepWork, status: HealthStatus, reason: str, evidence: dict[str, str]
    ) -> StepEnd:
        cycle = work.cycle
        passed = status is HealthStatus.HEALTHY
        decided = f", as {evidence['decided_by']} decided" if "decided_by" in evidence else ""
        leaves = Leaves(
            result=replace(cycle.result, health_status=status),
            evidence=evidence,
            log_tail=b"" if passed else await app_tail(self._deployments, cycle.project_id),
            events=(
                Event(
                    event_type="health",
                    time=self._clock.now(),
                    run_id=cycle.facts.deploy_run_id,
                    reason=reason,
                    message=f"The release is {status}: {reason}{decided}.",
                    attributes={
                        "release_id": cycle.facts.release_id,
                        "health_status": status,
                        **evidence,
                    },
                ),
            ),
        )
        if passed:
            return Done(leaves=leaves)
        return Failed(failure_class=self.failure_class, reason=reason, leaves=leaves)


def _decision(work: StepWork) -> Decision | None:
    """The decision on what this step asked, if there is one; not that of APPROVAL."""
    decision, begun = work.cycle.decision, work.status.start_time
    if decision is None or begun is None or decision.time < begun:
        return None
    ours = decision.commit_sha == _deployed_commit(work.cycle)
    return decision if ours and decision.plan_digest == _asked_digest(work.cycle) else None


def _asked_digest(cycle: Cycle) -> str:
    """Another than what APPROVAL asks with: the decision on one is none on the other."""
    asked = f"{INCONCLUSIVE}\n{cycle.facts.release_id}\n{cycle.facts.plan_digest}"
    return hashlib.sha256(asked.encode()).hexdigest()


def _deployed_commit(cycle: Cycle) -> str:
    return cycle.facts.merged_commit or cycle.facts.commit or cycle.facts.release_id


def _evidence(watched: Watched) -> dict[str, str]:
    return {
        "checks": str(watched.checks),
        **check_evidence(watched.last),
        **exit_evidence(watched.run.exit),
    }

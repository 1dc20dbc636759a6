"""Returning: the app runs from an earlier release again, and whether that is healthy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from att_server.core.cycles.executors import (
    ExecutionFailed,
    ExternalRollback,
    RollbackExecutors,
)
from att_server.core.cycles.health_trial import Health
from att_server.core.cycles.health_watch import HealthWatch
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Leaves, StepWork
from att_server.core.cycles.steps.deploy import run_begun
from att_server.core.cycles.steps.evidence import app_tail, check_evidence, exit_evidence
from att_server.core.errors import AttError, Reason
from att_server.core.ports import Clock
from att_server.core.releases import DeploymentContext
from att_server.core.rollback_policy import Executor

_HOLDING = frozenset({Reason.STORAGE_FULL, Reason.SUPERVISOR_UNREACHABLE})
"""Outside of the release: the engine tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a return. reason: empty if it succeeded."""

    reason: str = ""
    message: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    log_tail: bytes = b""


class Returning:
    """Switches back here, or has an executor do it where somebody else runs the app."""

    def __init__(
        self, *, executors: RollbackExecutors, deployments: Deployments, clock: Clock
    ) -> None:
        self._executors = executors
        self._deployments = deployments
        self._clock = clock
        self._health = HealthWatch(deployments=deployments, clock=clock)

    async def to(self, work: StepWork, cycle: Cycle, target: str) -> tuple[Cycle, Outcome]:
        """Returns to the release `target`: the cycle as noted meanwhile, and what came of it.

        cycle: as the step has noted it. A repeat goes on with what an attempt before
        has begun. Raises AttError for what lies outside of the release.
        """
        if cycle.request.deployment_context is DeploymentContext.EXTERNAL:
            return cycle, await self._have_executed(work, cycle, target)
        return await self._switch(work, cycle, target)

    async def _have_executed(self, work: StepWork, cycle: Cycle, target: str) -> Outcome:
        """By whoever runs the app: its word has to do, as nobody here can look."""
        available = self._executors.available(work.settings)
        executor = next(
            (each for each in (Executor.CALLABLE, Executor.COMMAND) if each in available), None
        )
        if executor is None:
            return Outcome(
                reason="rollback_executor_missing",
                message="The executor that the rollback began with is not configured any more.",
            )
        wanted = ExternalRollback(
            project=work.project,
            cycle_id=cycle.cycle_id,
            target=cycle.request.deploy_target,
            release_id=target,
            settings=work.settings,
        )
        try:
            evidence = await self._executors.execute(executor, wanted)
        except ExecutionFailed as error:
            return Outcome(
                reason=error.reason,
                message=error.message,
                evidence=error.evidence,
                log_tail=error.log_tail,
            )
        return Outcome(message=f"The executor returned to {target}.", evidence=evidence)

    async def _switch(self, work: StepWork, cycle: Cycle, target: str) -> tuple[Cycle, Outcome]:
        """Runs the target and looks whether it is healthy; begins a lost run again."""
        begun = self._begun_run(cycle, target)
        while True:
            if not begun:
                try:
                    status = await self._deployments.switch(
                        cycle.project_id, target, cycle_id=cycle.cycle_id
                    )
                except AttError as error:
                    if error.reason in _HOLDING:
                        raise
                    return cycle, Outcome(
                        reason=error.reason.lower(),
                        message=f"The release {target} could not be started: {error.message}",
                        log_tail=await app_tail(self._deployments, cycle.project_id),
                    )
                begun = status.run_id
            if begun != cycle.facts.rollback_run_id:
                cycle = replace(cycle, facts=replace(cycle.facts, rollback_run_id=begun))
                await work.note(Leaves(facts=cycle.facts))
            outcome = await self._look(work, cycle, target)
            if outcome is not None:
                return cycle, outcome
            lost = cycle.facts.lost_runs + 1
            if lost > self._deployments.max_lost_runs(cycle.project_id):
                return cycle, Outcome(
                    reason="supervisor_lost",
                    message=f"The runs of {target} go on being lost with their supervisors.",
                )
            # Counted before, so that no crash makes it one more.
            cycle = replace(cycle, facts=replace(cycle.facts, lost_runs=lost))
            await work.note(Leaves(facts=cycle.facts))
            begun = ""

    def _begun_run(self, cycle: Cycle, target: str) -> str:
        """The run of the target that an attempt before this one has begun; empty: none."""
        facts = cycle.facts
        if facts.rollback_run_id or facts.rollback_run_before is None:
            return facts.rollback_run_id
        if self._deployments.project(cycle.project_id).release_id != target:
            return ""
        status = self._deployments.runtime(cycle.project_id).status
        return run_begun(status, facts.rollback_run_before, target)

    async def _look(self, work: StepWork, cycle: Cycle, target: str) -> Outcome | None:
        """Whether the run of the target is healthy; None: it was lost with its supervisor."""
        settings = self._bounded(work)
        status = self._deployments.runtime(cycle.project_id).status
        begun = status.start_time if status is not None else None
        watched = await self._health.watch(
            cycle.project_id,
            self._health.trial(settings, begun=begun, bake_time=timedelta(), patient=True),
            run_id=cycle.facts.rollback_run_id,
            release_id=target,
            probe=settings.health_check,
            interval=settings.health_check_interval,
        )
        verdict = watched.verdict
        if verdict is None:
            return None
        evidence = {
            "run_id": watched.run.run_id,
            "checks": str(watched.checks),
            **check_evidence(watched.last),
            **exit_evidence(watched.run.exit),
        }
        if verdict.health is Health.HEALTHY:
            await self._deployments.prove(cycle.project_id, target)
            return Outcome(message=f"The release {target} runs and is healthy.", evidence=evidence)
        return Outcome(
            reason=verdict.reason,
            message=f"The release {target} was returned to and is {verdict.health}: "
            f"{verdict.reason}.",
            evidence=evidence,
            log_tail=await app_tail(self._deployments, cycle.project_id),
        )

    def _bounded(self, work: StepWork) -> BootstrapSettings:
        """The settings, with no more time to be healthy than the request has left."""
        settings, timeout = work.settings, work.cycle.request.timeout
        if timeout is None:
            return settings
        left = max(timedelta(), work.cycle.create_time + timeout - self._clock.now())
        return replace(settings, health_timeout=min(settings.health_timeout, left))

"""WATCHDOG: the new run has to stay up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from att_server.core.cycles.model import (
    CycleStep,
    WatchdogStatus,
)
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Asked, Done, Failed, Held, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.evidence import app_tail, exit_evidence
from att_server.core.cycles.watched_run import RunFate, RunLook, look_at_run
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.ports import Clock

STAYED_UP = "stayed_up"


class WatchdogStep(Step):
    """Watches the run of the release for `restart_watchdog_retries` intervals from its start.

    An end or a restart is a failure, at once, also one that happened while no
    server looked: supervisors remember. A run that was lost with its supervisor
    or the host is begun again, and watched anew. What the watch cannot see to its end,
    because a supervisor does not answer, holds the cycle.
    """

    step = CycleStep.WATCHDOG
    failure_class = FailureClass.RESTART_WATCHDOG_FAILURE
    interruptible = True

    def __init__(self, *, deployments: Deployments, clock: Clock) -> None:
        self._deployments = deployments
        self._clock = clock

    def skip_reason(self, asked: Asked) -> str:
        """An external context runs its apps where nobody here can watch."""
        return asked.not_run_here

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        project_id = work.cycle.project_id
        facts = work.cycle.facts
        while True:
            run = await self._watch(work, facts.deploy_run_id)
            if run.fate is not RunFate.LOST:
                break
            facts = replace(facts, lost_runs=facts.lost_runs + 1)
            if facts.lost_runs > self._deployments.max_lost_runs(project_id):
                break
            # Counted before, so that no crash makes it one more.
            await work.note(Leaves(facts=facts, evidence={"lost_runs": str(facts.lost_runs)}))
            status = await self._deployments.switch(
                project_id, facts.release_id, cycle_id=work.cycle.cycle_id
            )
            facts = replace(facts, deploy_run_id=status.run_id, healthy_since=None)
            await work.note(Leaves(facts=facts))
        if run.fate is RunFate.SILENT:
            return Held(reason=run.reason)
        facts = replace(facts, deploy_run_id=run.run_id)
        stable = run.fate is RunFate.UP
        reason = STAYED_UP if stable else run.reason
        evidence = {"run_id": run.run_id, **exit_evidence(run.exit)}
        leaves = Leaves(
            facts=facts,
            result=replace(
                work.cycle.result,
                restart_watchdog_status=(
                    WatchdogStatus.STABLE if stable else WatchdogStatus.UNSTABLE
                ),
                restart_watchdog_reason=reason,
            ),
            evidence=evidence,
            log_tail=b"" if stable else await app_tail(self._deployments, project_id),
            events=(
                Event(
                    event_type="restart_watchdog",
                    time=self._clock.now(),
                    run_id=run.run_id,
                    reason=reason,
                    message=_message(work.settings, stable=stable, reason=reason),
                    attributes={"release_id": facts.release_id, **evidence},
                ),
            ),
        )
        if stable:
            return Done(leaves=leaves)
        return Failed(failure_class=self.failure_class, reason=reason, leaves=leaves)

    async def _watch(self, work: StepWork, run_id: str) -> RunLook:
        """Looks until the run has been up for as long as it has to, or does not go on."""
        project_id, release_id = work.cycle.project_id, work.cycle.facts.release_id
        settings = work.settings
        watch = settings.restart_watchdog_retries * settings.restart_watchdog_interval
        lasts = watch.total_seconds()
        began = self._clock.monotonic()
        watched, due, silent_due = None, 0.0, 0.0
        while True:
            status = self._deployments.runtime(project_id).status
            run = look_at_run(status, run_id=run_id, release_id=release_id)
            run_id = run.run_id
            now = self._clock.monotonic()
            if run.fate in (RunFate.ENDED, RunFate.LOST):
                return run
            if run_id != watched:
                # The supervisor has watched from the start, whoever looks now.
                watched = run_id
                due = now + lasts - self._age(status.start_time if status else None)
                # One that does not answer may yet: for as long as a watch takes.
                silent_due = max(due, began + lasts)
            due_now = silent_due if run.fate is RunFate.SILENT else due
            left = timedelta(seconds=due_now - now)
            if left <= timedelta():
                return run
            await self._deployments.changed(
                project_id, min(left, settings.restart_watchdog_interval)
            )

    def _age(self, time: datetime | None) -> float:
        """Seconds since then; the wall clock may have jumped back."""
        return 0.0 if time is None else max(0.0, (self._clock.now() - time).total_seconds())


def _message(settings: BootstrapSettings, *, stable: bool, reason: str) -> str:
    seconds = settings.restart_watchdog_retries * settings.restart_watchdog_interval
    if stable:
        return f"The new run stayed up for {seconds.total_seconds():g} s."
    return f"The new run did not stay up for {seconds.total_seconds():g} s: {reason}."

"""HealthWatch: checks a run until it is known whether its release is healthy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from att_server.core.cycles.health_trial import Health, HealthTrial, HealthVerdict
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.watched_run import RunFate, RunLook, look_at_run
from att_server.core.errors import AttError
from att_server.core.model import ProbeResult
from att_server.core.ports import Clock
from att_server.core.settings import Probe

_FIRST_PAUSE = timedelta(milliseconds=50)
"""Between the first checks of a run that never answered; it doubles up to the interval, so
that a quick app costs no whole interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How a watch ended. verdict: None where the run was lost with its supervisor.

    last: the last check that was made. run: the last look at the run.
    """

    verdict: HealthVerdict | None
    run: RunLook
    checks: int
    last: ProbeResult | None = None


class HealthWatch:
    """Watches one run at a time; its end is noticed at once, not at the next check."""

    def __init__(self, *, deployments: Deployments, clock: Clock) -> None:
        self._deployments = deployments
        self._clock = clock

    def trial(
        self,
        settings: BootstrapSettings,
        *,
        begun: datetime | None,
        bake_time: timedelta,
        healthy_since: datetime | None = None,
        patient: bool = False,
    ) -> HealthTrial:
        """The trial of a run that began at `begun` (None: now), with what is left of its time.

        A run whose time passed while nobody looked gets one round of checks.
        patient: as `HealthTrial` takes it.
        """
        now = self._clock.monotonic()
        timeout = settings.health_timeout.total_seconds()
        check = settings.health_check.timeout if settings.health_check else timedelta()
        round_ = settings.health_check_retries * (settings.health_check_interval + check)
        due = now - self._age(begun) + timeout
        return HealthTrial(
            retries=settings.health_check_retries,
            interval=settings.health_check_interval,
            bake_time=bake_time,
            due=max(due, now + min(timeout, round_.total_seconds())),
            healthy_since=None if healthy_since is None else now - self._age(healthy_since),
            patient=patient,
        )

    async def watch(
        self,
        project_id: str,
        trial: HealthTrial,
        *,
        run_id: str,
        release_id: str,
        probe: Probe | None,
        interval: timedelta,
        baking: Callable[[datetime | None], Awaitable[None]] | None = None,
    ) -> Watched:
        """Checks until the trial has a verdict, or the run is gone.

        baking: is told when the bake time begins, and None when it ends before its time.
        """
        next_check, pause = self._clock.monotonic(), min(_FIRST_PAUSE, interval)
        last: ProbeResult | None = None
        since = trial.healthy_since
        while True:
            run = self._look(project_id, run_id, release_id)
            run_id = run.run_id
            began = self._clock.monotonic()
            if not _goes_on(run):
                return Watched(verdict=_gone(run), run=run, checks=trial.checks, last=last)
            left = timedelta(seconds=next_check - began)
            if left > timedelta():
                await self._deployments.changed(project_id, left)
                continue
            verdict: HealthVerdict | None
            if run.fate is RunFate.SILENT:
                verdict = trial.not_made(run.reason, began)
            else:
                try:
                    last = await self._deployments.check(project_id, probe)
                except AttError as error:
                    verdict = trial.not_made(error.reason.lower(), self._clock.monotonic())
                else:
                    run = self._look(project_id, run_id, release_id)
                    if not _goes_on(run):
                        continue  # The check failed for it, or answered too soon.
                    verdict = trial.saw(last, self._clock.monotonic())
            if verdict is not None:
                return Watched(verdict=verdict, run=run, checks=trial.checks, last=last)
            if baking is not None and trial.healthy_since != since:
                await baking(None if trial.healthy_since is None else self._clock.now())
            since = trial.healthy_since
            if trial.answered:
                pause = interval
            next_check = began + pause.total_seconds()
            if trial.ends is not None:
                # Not a whole interval later than the bake time ends.
                next_check = min(next_check, max(trial.ends, began + _FIRST_PAUSE.total_seconds()))
            pause = min(2 * pause, interval)

    def _look(self, project_id: str, run_id: str, release_id: str) -> RunLook:
        status = self._deployments.runtime(project_id).status
        return look_at_run(status, run_id=run_id, release_id=release_id)

    def _age(self, time: datetime | None) -> float:
        """Seconds since then; the wall clock may have jumped back."""
        if time is None:
            return 0.0
        return max(0.0, (self._clock.now() - time).total_seconds())


def _goes_on(run: RunLook) -> bool:
    return run.fate in (RunFate.UP, RunFate.SILENT)


def _gone(run: RunLook) -> HealthVerdict | None:
    if run.fate is RunFate.LOST:
        return None
    return HealthVerdict(health=Health.UNHEALTHY, reason=run.reason)

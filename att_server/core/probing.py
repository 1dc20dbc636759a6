"""RunProbing: what a run's probes find, and what its supervisor is told of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from att_server.core.errors import AttError
from att_server.core.model import ProbeResult, ProbeTarget, RunSpec, RunStatus, RuntimeState
from att_server.core.ports import Clock, Prober, RuntimeDriver
from att_server.core.run_table import Entry, RunTable
from att_server.core.settings import (
    LIVENESS_THRESHOLD,
    READINESS_THRESHOLD,
    LogProbe,
    Probe,
    RuntimeSettings,
)

_MIN_CHECK = timedelta(milliseconds=10)
_FIRST_PAUSE = timedelta(milliseconds=50)
"""Between the first two checks of a run that has never been ready. It doubles up to the
probe's interval, so that an app is ready soon and is still asked seldom."""
_PROBED = frozenset({RuntimeState.RUNNING, RuntimeState.READY, RuntimeState.UNKNOWN})

log = logging.getLogger(__name__)


class RunProbing:
    """The probing of one run, from its start or its adoption to its end.

    Readiness: `threshold` successes in a row make the run ready, as many
    failures make it unready again; one that has never been ready by `deadline`
    is ended. A line of the log that matched is not looked for again: the run
    stays ready. Liveness, from when the run is first ready: `threshold` failures
    in a row end it; until its first success only once its `deadline` is over.
    """

    def __init__(
        self,
        *,
        entry: Entry,
        status: RunStatus,
        spec: RunSpec,
        settings: RuntimeSettings,
        runs: RunTable,
        driver: RuntimeDriver,
        prober: Prober,
        clock: Clock,
    ) -> None:
        self._entry = entry
        self._run_id = status.run_id
        self._readiness = settings.readiness
        self._liveness = settings.liveness
        self._project_id = spec.project_id
        self._target = target(spec, status)
        self._runs = runs
        self._driver = driver
        self._prober = prober
        self._clock = clock
        self._ready = status.ready_time is not None
        self._was_ready = asyncio.Event()
        if self._ready or self._readiness is None or entry.ready_run_id == status.run_id:
            self._was_ready.set()
        # The wall clock may jump: it only tells what passed before this server looked.
        age = timedelta() if status.start_time is None else clock.now() - status.start_time
        self._started = clock.monotonic() - max(0.0, age.total_seconds())
        self._complaints: set[str] = set()

    async def run(self) -> None:
        """Probes until the run is over."""
        async with asyncio.TaskGroup() as probes:
            tasks = []
            if self._readiness is not None:
                tasks.append(probes.create_task(self._probe_readiness(self._readiness)))
            if self._liveness is not None:
                tasks.append(probes.create_task(self._probe_liveness(self._liveness)))
            while True:
                seen = self._entry.changed.count
                if not self._lasts():
                    break
                await self._entry.changed.wait(seen)
            for task in tasks:
                task.cancel()

    def _lasts(self) -> bool:
        status = self._entry.status
        return status is not None and status.run_id == self._run_id and is_probed(status)

    async def _probe_readiness(self, probe: Probe) -> None:
        threshold = probe.threshold or READINESS_THRESHOLD
        due = self._due(probe, threshold)
        streak, pause = 0, min(_FIRST_PAUSE, probe.interval)
        once = isinstance(probe.kind, LogProbe)
        if once and self._ready:
            # The line may be gone: whether it was there is known.
            self._show(self._matched(), healthy=True)
            return
        while True:
            result = await self._checked(probe, None if self._was_ready.is_set() else due)
            streak = 0 if result.healthy is self._ready else streak + 1
            if streak >= threshold:
                self._ready, streak = result.healthy, 0
            self._show(result, healthy=self._ready)
            if not self._agreed():
                await self._tell(
                    "is ready" if self._ready else "is no longer ready",
                    lambda: self._driver.set_ready(
                        self._project_id, self._run_id, ready=self._ready
                    ),
                )
            if self._ready:
                self._was_ready.set()
            if once and self._ready and self._agreed():
                return
            if not self._was_ready.is_set() and self._is_over(due):
                await self._fail("startup_deadline")
            if self._was_ready.is_set():
                await self._rest(probe.interval, None)
            else:
                await self._rest(pause, due)
                pause = min(2 * pause, probe.interval)

    async def _probe_liveness(self, probe: Probe) -> None:
        await self._was_ready.wait()
        threshold = probe.threshold or LIVENESS_THRESHOLD
        due = self._due(probe, threshold)
        held = False
        failures = 0
        while True:
            result = await self._checked(probe, None)
            held = held or result.healthy
            failures = 0 if result.healthy else failures + 1
            if self._readiness is None:
                self._show(result, healthy=held and failures < threshold)
            # An app may take until the deadline to begin to answer.
            counts = held or due is None or self._is_over(due)
            if failures >= threshold and counts:
                await self._fail("liveness_failed")
            await self._rest(probe.interval, None)

    def _agreed(self) -> bool:
        """Whether the supervisor knows what the readiness probe has found."""
        status = self._entry.status
        return status is not None and (status.state is RuntimeState.READY) is self._ready

    async def _checked(self, probe: Probe, due: float | None) -> ProbeResult:
        """One check, which ends by `due`, if that is ahead."""
        left = self._left(due)
        if left is not None:
            probe = replace(probe, timeout=min(probe.timeout, max(left, _MIN_CHECK)))
        return await self._prober.probe(probe, self._target)

    async def _rest(self, pause: timedelta, due: float | None) -> None:
        """Waits for the next check; no longer than until `due`, if that is ahead."""
        left = self._left(due)
        await self._clock.sleep(pause if left is None else min(pause, left))

    def _is_over(self, due: float | None) -> bool:
        return due is not None and due <= self._clock.monotonic()

    def _left(self, due: float | None) -> timedelta | None:
        """The time until `due`; None if there is none or it has passed."""
        if due is None or self._is_over(due):
            return None
        return timedelta(seconds=due - self._clock.monotonic())

    def _matched(self) -> ProbeResult:
        return ProbeResult(
            healthy=True, probe="log", reason="log_matched", checked_at=self._clock.now()
        )

    def _show(self, result: ProbeResult, *, healthy: bool) -> None:
        """Shows the last check with the verdict, which a threshold may hold back."""
        if self._lasts():
            self._runs.health_checked(
                self._project_id, self._run_id, replace(result, healthy=healthy)
            )

    async def _fail(self, reason: str) -> None:
        """Has the run ended."""
        await self._tell(
            f"is to be ended ({reason})",
            lambda: self._driver.fail(self._project_id, self._run_id, reason),
        )

    async def _tell(self, what: str, call: Callable[[], Awaitable[None]]) -> None:
        """Tells the run's supervisor, if it can be told.

        Called at every check until the run's state says that it was heard.
        """
        status = self._entry.status
        if status is None or status.state is RuntimeState.UNKNOWN:
            return
        try:
            await call()
        except AttError as error:
            # A supervisor of the release before may not know the command at all.
            if what not in self._complaints:
                log.warning("%s %s, but: %s", self._project_id, what, error.message)
                self._complaints.add(what)
        else:
            self._complaints.discard(what)

    def _due(self, probe: Probe, threshold: int) -> float | None:
        """When the probe has to have held, by the monotonic clock.

        A run whose deadline passed while no server looked gets one round of checks.
        """
        if probe.deadline is None:
            return None
        one_round = min(probe.deadline, threshold * (probe.interval + probe.timeout))
        return max(
            self._started + probe.deadline.total_seconds(),
            self._clock.monotonic() + one_round.total_seconds(),
        )


def is_probed(status: RunStatus) -> bool:
    """Whether the run's app is probed: also where its supervisor is silent."""
    return status.state in _PROBED and bool(status.pid) and status.exit is None


def target(spec: RunSpec, status: RunStatus) -> ProbeTarget:
    """The run as probers see it."""
    return ProbeTarget(
        project_id=spec.project_id,
        log_id=spec.log_id,
        run_id=status.run_id,
        pid=status.pid,
        first_cursor=status.first_cursor,
        directory=spec.directory,
        env={**spec.env, **spec.secrets, "ATT_RUN_ID": status.run_id},
        run_as=spec.run_as,
    )

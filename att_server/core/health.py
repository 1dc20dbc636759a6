"""HealthMonitor: probes running apps, and tells their supervisors what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.background import Background
from att_server.core.model import (
    ProbeResult,
    Project,
    RunSpec,
    RunStatus,
    RuntimeState,
)
from att_server.core.ports import Clock, Prober, RuntimeDriver
from att_server.core.probing import RunProbing, is_probed, target
from att_server.core.run_table import Entry, RunTable
from att_server.core.settings import Probe, RestartCondition, RuntimeSettings

_UNDECIDED = frozenset(
    {
        RuntimeState.STARTING,
        RuntimeState.RUNNING,
        RuntimeState.STOPPING,
        RuntimeState.BACKOFF,
        RuntimeState.UNKNOWN,
    }
)
"""States that may become READY without another call. STOPPING too: so a run
ends whose probe failed."""


class HealthMonitor:
    """Follows the runs of every watched project with the project's probes.

    What probes find is told to the run's supervisor; whether an app that was
    ended for it is started again is the supervisor's decision. Each run is
    probed anew (`probing.py`).
    """

    def __init__(
        self,
        *,
        runs: RunTable,
        driver: RuntimeDriver,
        prober: Prober,
        clock: Clock,
        background: Background,
    ) -> None:
        self._runs = runs
        self._driver = driver
        self._prober = prober
        self._clock = clock
        self._background = background
        self._watched: dict[str, _Watch] = {}

    def watch(self, project: Project, spec: RunSpec, settings: RuntimeSettings) -> None:
        """Probes the project's runs, the present one first, as `settings` say from now on.

        spec: what the runs are started with. Replaces an earlier watch of the
        project; called for every start and every adopted app, probed or not.
        """
        self.forget(project.project_id)
        watch = _Watch(spec=spec, settings=settings)
        self._watched[project.project_id] = watch
        if settings.readiness is not None or settings.liveness is not None:
            entry = self._runs.entry(project.project_id)
            watch.cancel = self._background.start(
                f"health of {project.project_id}", lambda: self._follow(entry, watch)
            )

    def forget(self, project_id: str) -> None:
        """Ends the watch of the project; without effect if there is none."""
        watch = self._watched.pop(project_id, None)
        if watch is not None and watch.cancel is not None:
            watch.cancel()

    async def wait_ready(self, project_id: str, timeout: timedelta) -> bool:
        """Returns True once the app is ready or will not be by itself, False after `timeout`.

        It waits through BACKOFF: a run that ended and is started again may
        still become ready.
        """
        entry = self._runs.entry(project_id)
        deadline = self._clock.monotonic() + timeout.total_seconds()
        while True:
            seen = entry.changed.count
            if entry.status is None or not self._undecided(project_id, entry.status):
                return True
            left = timedelta(seconds=max(0.0, deadline - self._clock.monotonic()))
            if not await entry.changed.wait(seen, left):
                return False

    async def check(self, project: Project, spec: RunSpec, probe: Probe | None) -> ProbeResult:
        """Checks the project's app once; changes nothing.

        spec: what the app runs with. probe: None checks the process alone. An
        app that does not run is `process_not_running`, or `process_exited` with
        its exit code, whatever was to be checked.
        """
        status = self._runs.entry(project.project_id).status
        running = status is not None and status.state.alive and status.exit is None
        if probe is not None and status is not None and running and status.pid:
            return await self._prober.probe(probe, target(spec, status))
        ended = None if status is None else status.exit
        exit_code = None if ended is None else ended.exit_code
        if running:
            reason = "process_running"
        else:
            reason = "process_not_running" if exit_code is None else "process_exited"
        return ProbeResult(
            healthy=running,
            probe="process",
            reason=reason,
            checked_at=self._clock.now(),
            exit_code=exit_code,
        )

    def _undecided(self, project_id: str, status: RunStatus) -> bool:
        if status.state in _UNDECIDED:
            return True
        # A run that was lost with its supervisor is started again by the
        # server, where its policy says so.
        watch = self._watched.get(project_id)
        lost = status.exit is not None and status.exit.supervisor_lost
        return (
            status.state is RuntimeState.EXITED
            and lost
            and watch is not None
            and watch.spec.restart.condition is not RestartCondition.NEVER
        )

    async def _follow(self, entry: Entry, watch: _Watch) -> None:
        """Probes one run after the other, until it is cancelled."""
        while True:
            seen, status = entry.changed.count, entry.status
            if status is None or not is_probed(status):
                await entry.changed.wait(seen)
                continue
            probing = RunProbing(
                entry=entry,
                status=status,
                spec=watch.spec,
                settings=watch.settings,
                runs=self._runs,
                driver=self._driver,
                prober=self._prober,
                clock=self._clock,
            )
            await probing.run()


@dataclass(slots=True, kw_only=True)
class _Watch:
    """How a project's runs are probed; `cancel` ends it, None: there is no probe."""

    spec: RunSpec
    settings: RuntimeSettings
    cancel: Callable[[], object] | None = None

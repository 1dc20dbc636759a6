"""ReleaseDeployments: apps run from releases, on behalf of cycles."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.runtime import MAX_LOST_RUNS
from att_server.core.health import HealthMonitor
from att_server.core.intents import Intents
from att_server.core.launch import Launch, Launcher, not_known_to_run, release_gone, start_failed
from att_server.core.model import (
    Event,
    LogChunk,
    ProbeResult,
    Project,
    ProjectMode,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.operations import Operations
from att_server.core.ports import Clock, LogStore
from att_server.core.run_control import RunControl
from att_server.core.run_table import RunTable
from att_server.core.settings import Probe

DEPLOYMENT = "deployment"
"""The name of the operation that keeps lifecycle calls out, and the server's recovery too."""

_PAGE_BYTES = 256 * 1024


class Projects(Protocol):
    """What deployments need of projects."""

    def get(self, project_id: str) -> Project:
        """The project. Raises PROJECT_NOT_FOUND."""
        ...

    async def set_mode(
        self, project_id: str, mode: ProjectMode, reason: str, *events: Event
    ) -> Project:
        """Stores what the project lets happen, and why."""
        ...


class ReleaseDeployments:
    """Implements `Deployments` (`cycles/runtime.py`) on what runs apps otherwise, too."""

    def __init__(
        self,
        *,
        projects: Projects,
        artifacts: ArtifactStore,
        runs: RunTable,
        control: RunControl,
        health: HealthMonitor,
        launcher: Launcher,
        intents: Intents,
        operations: Operations,
        logs: LogStore,
        clock: Clock,
    ) -> None:
        self._projects = projects
        self._artifacts = artifacts
        self._runs = runs
        self._control = control
        self._health = health
        self._launcher = launcher
        self._intents = intents
        self._operations = operations
        self._logs = logs
        self._clock = clock
        self._held: set[str] = set()

    # Whose the app is -------------------------------------------------------

    def max_lost_runs(self, project_id: str) -> int:
        """See `Deployments`."""
        return MAX_LOST_RUNS

    def project(self, project_id: str) -> Project:
        """See `Deployments`."""
        return self._projects.get(project_id)

    async def hold(self, project_id: str) -> None:
        """See `Deployments`."""
        while project_id not in self._held:
            other = self._operations.current(project_id)
            if other:
                await self._operations.settle(project_id, other)
            else:
                self._operations.occupy(project_id, DEPLOYMENT)
                self._held.add(project_id)

    def let_go(self, project_id: str) -> None:
        """See `Deployments`."""
        if project_id in self._held:
            self._held.discard(project_id)
            self._operations.vacate(project_id)

    # The app ----------------------------------------------------------------

    def runtime(self, project_id: str) -> Runtime:
        """See `Deployments`."""
        return self._runs.runtime(self._projects.get(project_id))

    async def changed(self, project_id: str, timeout: timedelta) -> bool:
        """See `Deployments`. From the call on: what the caller saw right before it counts."""
        bell = self._runs.entry(project_id).changed
        return await bell.wait(bell.count, timeout)

    async def check_release(self, project_id: str, release_id: str) -> None:
        """See `Deployments`. Raises PROJECT_PATH_INVALID for a release that is not there."""
        await self._launch(project_id, release_id)

    async def switch(self, project_id: str, release_id: str, *, cycle_id: str) -> RunStatus:
        """See `Deployments`. What `check_release` finds is found before anything is stored."""
        await self.hold(project_id)
        launch = await self._launch(project_id, release_id)
        entry = self._runs.entry(project_id)
        if entry.status is not None and entry.status.state is RuntimeState.UNKNOWN:
            raise not_known_to_run(project_id)
        # Stored first: a server that begins after a kill brings up what is to run.
        await self._intents.to_deploy(
            project_id, release_id, self._started(project_id, release_id, cycle_id)
        )
        if release_id:
            await self._artifacts.switch(project_id, release_id)
        if entry.alive:
            await self._control.end(project_id)
        status = await self._control.start(self._projects.get(project_id), launch)
        if status.state is RuntimeState.FAILED and status.start_failure:
            raise start_failed(project_id, status, [])
        return status

    async def prove(self, project_id: str, release_id: str) -> None:
        """See `Deployments`. Nobody starts an app without ATT."""

    async def check(self, project_id: str, probe: Probe | None) -> ProbeResult:
        """See `Deployments`. Raises what is wrong with the settings."""
        project = self._projects.get(project_id)
        launch = await self._launcher.plan(project, project.desired_runtime)
        return await self._health.check(project, launch.spec, probe or launch.settings.readiness)

    async def recent_lines(self, project_id: str, count: int) -> list[bytes]:
        """See `Deployments`."""
        log_id = self._projects.get(project_id).log_id
        cursor = await self._logs.seek_tail(project_id, log_id, count)
        lines: list[bytes] = []
        while True:
            page = await self._logs.read(project_id, log_id, cursor=cursor, max_bytes=_PAGE_BYTES)
            for record in page.records:
                if isinstance(record, LogChunk):
                    lines += record.lines.split(b"\n")[:-1]
            # What came since would be read for ever, where an app prints without end.
            if page.cursor >= page.bounds.end or not page.records or len(lines) >= count:
                return lines[-count:]
            cursor = page.cursor

    # The project ------------------------------------------------------------

    async def set_mode(
        self, project_id: str, mode: ProjectMode, reason: str, *events: Event
    ) -> None:
        """See `Deployments`."""
        await self._projects.set_mode(project_id, mode, reason, *events)

    async def _launch(self, project_id: str, release_id: str) -> Launch:
        """What a run from the release is started with. Raises as `check_release`."""
        project = replace(self._projects.get(project_id), release_id=release_id)
        if release_id and await self._artifacts.manifest(project_id, release_id) is None:
            raise release_gone(self._artifacts.directory(project_id, release_id))
        return await self._launcher.checked(project, project.desired_runtime)

    def _started(self, project_id: str, release_id: str, cycle_id: str) -> Event:
        before = self._projects.get(project_id).release_id
        return Event(
            event_type="deploy.started",
            time=self._clock.now(),
            project_id=project_id,
            cycle_id=cycle_id,
            attributes={"release_id": release_id, "release_before": before},
        )

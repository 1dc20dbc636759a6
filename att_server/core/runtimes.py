"""RuntimeManager: at most one running app per project, brought to its desired state."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from att_server.core.background import Background
from att_server.core.errors import AttError, Reason
from att_server.core.health import HealthMonitor
from att_server.core.identity import only
from att_server.core.intents import Intents
from att_server.core.launch import (
    Launch,
    Launcher,
    not_known_to_run,
    not_ready,
    other_spec_runs,
    start_failed,
    stopped_but_not_stored,
)
from att_server.core.model import (
    DesiredState,
    ProbeResult,
    Project,
    RunSpec,
    RunStatus,
    Runtime,
    RuntimeChanges,
    RuntimeState,
)
from att_server.core.operations import Operations
from att_server.core.pages import page_of
from att_server.core.ports import Clock, RuntimeDriver
from att_server.core.recovery import RECOVERY, Recoverer
from att_server.core.request_claim import RequestClaim
from att_server.core.run_control import RunControl
from att_server.core.run_table import Entry, RunTable
from att_server.core.runtime_watch import watch
from att_server.core.settings import Probe, RuntimeSettings
from att_server.core.usage import UsageMeter

LAST_LINES = 20
"""How many lines a failed start quotes."""


class Projects(Protocol):
    """What the manager needs to know of projects."""

    def get(self, project_id: str) -> Project:
        """The project. Raises PROJECT_NOT_FOUND."""
        ...

    def all(self) -> Mapping[str, Project]:
        """All projects, by id."""
        ...


class RuntimeManager:
    """Starts and stops apps. Its operations outlive their callers."""

    def __init__(
        self,
        *,
        projects: Projects,
        runs: RunTable,
        driver: RuntimeDriver,
        control: RunControl,
        health: HealthMonitor,
        launcher: Launcher,
        intents: Intents,
        operations: Operations,
        recoverer: Recoverer,
        clock: Clock,
        background: Background,
        last_lines: Callable[[str, str, int], Awaitable[list[str]]],
    ) -> None:
        """last_lines: the text of the last lines of a project's run, up to so many."""
        self._projects = projects
        self._runs = runs
        self._driver = driver
        self._control = control
        self._health = health
        self._launcher = launcher
        self._intents = intents
        self._operations = operations
        self._recoverer = recoverer
        self._background = background
        self._last_lines = last_lines
        self._usage = UsageMeter(driver=driver, clock=clock, running=runs.alive)

    async def open(self) -> None:
        """Adopts what runs, then brings every app to its desired state in the background."""
        projects = self._projects.all()
        for project_id in projects:
            self._runs.entry(project_id)
        self._runs.adopted(
            await self._driver.adopt(
                {project_id: project.log_id for project_id, project in projects.items()}, self._runs
            )
        )
        self._background.start("runtime events", self._runs.events.run)
        for project_id in projects:
            self._recoverer.look_after(project_id)

    def show_server(self, project_id: str, status: RunStatus) -> None:
        """Shows this server itself as the app of its project; no call starts or ends it."""
        self._runs.show_server(project_id, status)

    # Looking ----------------------------------------------------------------

    def get(self, project_id: str) -> Runtime:
        """The app's state, without its usage. Raises PROJECT_NOT_FOUND."""
        return self._runs.runtime(self._projects.get(project_id))

    def list(
        self, page_size: int, page_token: str, *, within: frozenset[str] | None = None
    ) -> tuple[list[Runtime], str, int]:
        """A page of up to `page_size` apps by project id, the next token, the revision.

        within: only of these projects; None: of all.
        """
        projects, token = page_of(only(self._projects.all(), within), page_size, page_token)
        return [self._runs.runtime(project) for project in projects], token, self._runs.revision

    async def measured(self, runtimes: Sequence[Runtime]) -> Sequence[Runtime]:
        """The same with the usage of those that run, at most 1 s old where it is known."""
        return [await self._measured(runtime) for runtime in runtimes]

    def watch(
        self,
        project_ids: Sequence[str],
        after_revision: int,
        progress_interval: timedelta,
        *,
        within: frozenset[str] | None = None,
    ) -> AsyncGenerator[RuntimeChanges, None]:
        """What changed after `after_revision`, then every change; see `runtime_watch.watch`."""
        return watch(
            self._runs,
            self._projects.all,
            project_ids,
            within=within,
            after_revision=after_revision,
            progress_interval=progress_interval,
        )

    async def check(self, project_id: str, probe: Probe | None) -> ProbeResult:
        """Checks the app once, now: by `probe`, else its readiness probe, else its process.

        Raises PROJECT_NOT_FOUND, PROJECT_IS_SERVER and what is wrong with the settings.
        """
        project = self._controlled(project_id)
        launch = await self._launcher.plan(project, project.desired_runtime)
        return await self._health.check(project, launch.spec, probe or launch.settings.readiness)

    # Calls ------------------------------------------------------------------

    async def start(
        self,
        project_id: str,
        overrides: RuntimeSettings,
        *,
        wait_ready: bool,
        timeout: timedelta,
        request_id: str,
        principal: str,
    ) -> Runtime:
        """Starts the app, or returns the one that runs with an equal specification.

        An app that waits to be started again is started at once.
        wait_ready: returns when it is ready instead of when it runs, within
        `timeout`. The app runs on whatever becomes of the caller. Raises
        RUNTIME_SPEC_CONFLICT, RUNTIME_START_FAILED, RUNTIME_NOT_READY, PROJECT_IS_SERVER,
        PROJECT_BUSY, SUPERVISOR_UNREACHABLE and what is wrong with the settings.
        """
        project = self._controlled(project_id)
        launch = await self._launcher.checked(project, overrides)
        request = self._intents.request("StartRuntime", project_id, overrides, request_id)
        await self._operations.settle(project_id, "start", RECOVERY)
        entry = self._runs.entry(project_id)
        if entry.status is None or entry.status.state not in _GOING_ON:
            await self._do(
                project_id,
                "start",
                lambda: self._start(project, launch, overrides, principal, request),
            )
        else:
            self._operations.refuse_if_busy(project_id)
            if entry.status.state is RuntimeState.UNKNOWN:
                raise not_known_to_run(project_id)
            if not await self._intents.claimed(request):
                _refuse_other_spec(launch.spec, entry)
        self._intents.note_outcome(request)
        return await self._started(project_id, entry, wait_ready, timeout)

    async def stop(self, project_id: str, *, grace: timedelta | None, principal: str) -> Runtime:
        """Stops the app and returns when its process tree is gone; concurrent calls join.

        grace: between SIGTERM and SIGKILL; None is the run's own. Raises
        PROJECT_NOT_FOUND, PROJECT_IS_SERVER, PROJECT_BUSY, SUPERVISOR_UNREACHABLE; and
        STORAGE_FULL where the app is stopped, but that it is meant to be is not stored.
        """
        self._controlled(project_id)
        await self._operations.settle(project_id, "start", RECOVERY)
        if self._operations.current(project_id) == "stop":
            await self._operations.join(project_id)
        else:
            await self._do(project_id, "stop", lambda: self._stop(project_id, grace, principal))
        return self.get(project_id)

    async def restart(
        self,
        project_id: str,
        overrides: RuntimeSettings,
        *,
        wait_ready: bool,
        timeout: timedelta,
        grace: timedelta | None,
        request_id: str,
        principal: str,
    ) -> Runtime:
        """Stops the app if it runs, and starts it: two runs, one log.

        overrides: over what the last start was given. Raises as `start` and `stop`.
        """
        project = self._controlled(project_id)
        wanted = overrides.over(project.desired_runtime)
        launch = await self._launcher.checked(project, wanted)
        request = self._intents.request("RestartRuntime", project_id, overrides, request_id)
        await self._operations.settle(project_id, RECOVERY)
        entry = self._runs.entry(project_id)
        await self._do(
            project_id,
            "restart",
            lambda: self._restart(project, launch, wanted, grace, principal, request),
        )
        self._intents.note_outcome(request)
        return await self._started(project_id, entry, wait_ready, timeout)

    async def signal(
        self, project_id: str, number: int, *, request_id: str, principal: str
    ) -> Runtime:
        """Sends a signal to the app's main process.

        Raises RUNTIME_NOT_RUNNING, PROJECT_IS_SERVER.
        """
        self._controlled(project_id)
        if await self._intents.to_signal(project_id, number, request_id, principal):
            await self._driver.signal(project_id, number)
        return self.get(project_id)

    @asynccontextmanager
    async def released(self, project_id: str) -> AsyncIterator[None]:
        """Keeps the app from being started while its project is deleted.

        Raises PROJECT_NOT_STOPPED, PROJECT_BUSY, PROJECT_IS_SERVER.
        """
        self._refuse_server(project_id)
        # What is being recovered runs in a moment, or has to be stopped yet. It is
        # not waited for: no other project could be changed meanwhile.
        recovered = self._operations.current(project_id) == RECOVERY
        if not recovered:
            self._operations.refuse_if_busy(project_id)
        if recovered or self._runs.entry(project_id).alive:
            raise AttError(
                Reason.PROJECT_NOT_STOPPED,
                f"The app of {project_id!r} runs, or is to. Stop it, then delete the project.",
                project_id=project_id,
            )
        self._operations.occupy(project_id, "deletion")
        try:
            yield
        finally:
            self._operations.vacate(project_id)
            if project_id not in self._projects.all():
                self._health.forget(project_id)
                self._runs.drop(project_id)
                await self._driver.forget(project_id)

    def _controlled(self, project_id: str) -> Project:
        """The project, whose app calls may start and stop."""
        project = self._projects.get(project_id)
        self._refuse_server(project_id)
        return project

    def _refuse_server(self, project_id: str) -> None:
        if self._runs.entry(project_id).is_server:
            raise AttError(
                Reason.PROJECT_IS_SERVER,
                f"The project {project_id!r} is this server itself. A cycle or a rollback replaces "
                "it; its service, or `att launch`, starts and stops it.",
                project_id=project_id,
            )

    async def _measured(self, runtime: Runtime) -> Runtime:
        if not runtime.state.alive or runtime.status is None:
            return runtime
        usage = await self._usage.usage(runtime.project_id, runtime.status.run_id)
        return replace(runtime, usage=usage)

    # Operations -------------------------------------------------------------

    async def _start(
        self,
        project: Project,
        launch: Launch,
        overrides: RuntimeSettings,
        principal: str,
        request: RequestClaim,
    ) -> None:
        project_id = project.project_id
        entry = self._runs.entry(project_id)
        waits = entry.status is not None and entry.status.state is RuntimeState.BACKOFF
        if waits:
            if await self._intents.claimed(request):
                return
            _refuse_other_spec(launch.spec, entry)
        # The disk is waited for at both ends at once.
        async with self._driver.prepared(project_id, project.log_id):
            if await self._intents.to_run(
                project_id,
                overrides,
                "runtime.start_requested",
                principal,
                None if waits else request,
                command=launch.spec.command[0],
            ):
                if waits:
                    status = await self._control.start_now(project, launch)
                else:
                    await self._end(project_id, None)  # nothing, or what ends already
                    status = await self._control.start(project, launch)
                await self._check_started(project_id, status)

    async def _restart(
        self,
        project: Project,
        launch: Launch,
        overrides: RuntimeSettings,
        grace: timedelta | None,
        principal: str,
        request: RequestClaim,
    ) -> None:
        # Desired first: where a server dies between stop and start, the next
        # one starts the app.
        if await self._intents.to_run(
            project.project_id, overrides, "runtime.restart_requested", principal, request
        ):
            await self._end(project.project_id, grace)
            status = await self._control.start(project, launch)
            await self._check_started(project.project_id, status)

    async def _check_started(self, project_id: str, status: RunStatus) -> None:
        """Raises RUNTIME_START_FAILED where it was not; the app is not to run then."""
        if _not_started(status):
            await self._intents.to_stop(
                project_id, "runtime.start_failed", "", cause=status.start_failure
            )
            raise await self._start_failed(project_id, status)

    async def _stop(self, project_id: str, grace: timedelta | None, principal: str) -> None:
        unstored = None
        if self._projects.get(project_id).desired is not DesiredState.STOPPED:
            try:
                await self._intents.to_stop(project_id, "runtime.stop_requested", principal)
            except AttError as error:
                if error.reason is not Reason.STORAGE_FULL:
                    raise
                unstored = error  # the app may be what fills the disk
        await self._end(project_id, grace)
        if unstored is not None:
            raise stopped_but_not_stored(project_id, unstored) from unstored

    async def _end(self, project_id: str, grace: timedelta | None) -> None:
        if self._runs.entry(project_id).alive:
            await self._control.end(project_id, grace)

    async def _do(self, project_id: str, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._operations.begin(project_id, name, work)
        await self._operations.join(project_id)

    async def _started(
        self, project_id: str, entry: Entry, wait_ready: bool, timeout: timedelta
    ) -> Runtime:
        """Returns the state once the wait is over. Raises as `start`."""
        status = entry.status
        if status is not None and _not_started(status):  # told again to a repeated call
            raise await self._start_failed(project_id, status)
        if wait_ready and status is not None:
            in_time = await self._health.wait_ready(project_id, timeout)
            status = entry.status or status
            if not in_time:
                ended = status.past[-1].run_id if status.past and not status.exit else ""
                lines = await self._last_lines(project_id, ended or status.run_id, LAST_LINES)
                raise not_ready(project_id, status, entry.health, lines)
            if status.state is not RuntimeState.READY:
                raise await self._start_failed(project_id, status)
        return self.get(project_id)

    async def _start_failed(self, project_id: str, status: RunStatus) -> AttError:
        lines = await self._last_lines(project_id, status.run_id, LAST_LINES)
        return start_failed(project_id, status, lines)


_GOING_ON = frozenset(
    {RuntimeState.STARTING, RuntimeState.RUNNING, RuntimeState.READY, RuntimeState.UNKNOWN}
)
"""The states of an app that a start leaves as it is."""


def _refuse_other_spec(spec: RunSpec, entry: Entry) -> None:
    if entry.status is not None and entry.status.spec_digest != spec.digest():
        raise other_spec_runs(spec.project_id, entry.status)


def _not_started(status: RunStatus) -> bool:
    return status.state is RuntimeState.FAILED and bool(status.start_failure)

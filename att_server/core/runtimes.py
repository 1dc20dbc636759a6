"""RuntimeManager: at most one running app per project, brought to its desired state."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol

from att_server.core.background import Background
from att_server.core.errors import AttError, Reason
from att_server.core.launch import not_ready, run_spec, settings_digest, start_failed
from att_server.core.model import (
    DesiredState,
    Event,
    Project,
    RequestClaim,
    RunStatus,
    Runtime,
    RuntimeSettings,
    RuntimeState,
)
from att_server.core.operations import Operations
from att_server.core.pages import page_of
from att_server.core.ports import Clock, CommandFinder, RuntimeDriver, StateStore
from att_server.core.readiness import Readiness
from att_server.core.requests import claim
from att_server.core.run_table import Entry, RunTable

LAST_LINES = 20
"""How many lines a failed start quotes."""

log = logging.getLogger(__name__)


class Projects(Protocol):
    """What the manager needs to know of projects."""

    def get(self, project_id: str) -> Project:
        """The project. Raises PROJECT_NOT_FOUND."""
        ...

    def all(self) -> Mapping[str, Project]:
        """All projects, by id."""
        ...

    async def effective(self, project: Project) -> RuntimeSettings:
        """The project's settings as a start would use them."""
        ...

    async def set_desired(
        self, project_id: str, desired: DesiredState, runtime: RuntimeSettings | None, event: Event
    ) -> None:
        """Stores what the app is meant to be."""
        ...


class RuntimeManager:
    """Starts and stops apps. Its operations outlive their callers."""

    def __init__(
        self,
        *,
        projects: Projects,
        runs: RunTable,
        store: StateStore,
        driver: RuntimeDriver,
        readiness: Readiness,
        commands: CommandFinder,
        clock: Clock,
        background: Background,
        inherited_env: Mapping[str, str],
        last_lines: Callable[[str, int], Awaitable[list[str]]],
    ) -> None:
        """inherited_env: what apps get of the server's environment.

        last_lines: the text of the last lines of a project's log.
        """
        self._projects = projects
        self._runs = runs
        self._store = store
        self._driver = driver
        self._readiness = readiness
        self._operations = Operations(background)
        self._commands = commands
        self._clock = clock
        self._background = background
        self._inherited_env = inherited_env
        self._last_lines = last_lines

    async def open(self) -> None:
        """Adopts what runs, then brings every app to its desired state in the background."""
        projects = self._projects.all()
        adopted = await self._driver.adopt(
            {project_id: project.log_id for project_id, project in projects.items()}, self._runs
        )
        for project_id, status in adopted.items():
            await self._runs.note_adopted(project_id, status)
        self._background.start("runtime events", self._runs.store_events)
        for project in projects.values():
            self._reconcile(project)

    # Calls ------------------------------------------------------------------

    def get(self, project_id: str) -> Runtime:
        """The app's state. Raises PROJECT_NOT_FOUND."""
        return self._runs.runtime(self._projects.get(project_id))

    def list(self, page_size: int, page_token: str) -> tuple[list[Runtime], str, int]:
        """A page of up to `page_size` apps by project id, the next token, the revision."""
        projects, token = page_of(self._projects.all(), page_size, page_token)
        return [self._runs.runtime(project) for project in projects], token, self._runs.revision

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

        wait_ready: returns when it is ready instead of when it runs, within
        `timeout`. The app runs on whatever becomes of the caller. Raises
        RUNTIME_SPEC_CONFLICT, RUNTIME_START_FAILED, RUNTIME_NOT_READY,
        PROJECT_BUSY and what is wrong with the settings.
        """
        project = self._projects.get(project_id)
        entry = self._runs.entry(project_id)
        settings = await self._checked_settings(project, overrides)
        known = await self._claim("StartRuntime", project_id, overrides, request_id)
        while self._operations.current(project_id) == "start":
            await self._operations.settle(project_id)
        if not _begun(known, entry):
            self._operations.refuse_if_busy(project_id)
            if entry.alive:
                self._refuse_other_spec(project, settings, entry)
            else:
                await self._do(
                    project_id,
                    "start",
                    lambda: self._start(project, settings, overrides, principal),
                )
        await self._set_outcome(request_id, entry)
        return await self._started(project_id, entry, wait_ready, timeout)

    async def stop(self, project_id: str, *, grace: timedelta | None, principal: str) -> Runtime:
        """Stops the app and returns when its process tree is gone; concurrent calls join.

        grace: between SIGTERM and SIGKILL; None is the run's own. Raises
        PROJECT_NOT_FOUND, PROJECT_BUSY, SUPERVISOR_UNREACHABLE.
        """
        self._projects.get(project_id)
        while self._operations.current(project_id) == "start":
            await self._operations.settle(project_id)
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
        project = self._projects.get(project_id)
        entry = self._runs.entry(project_id)
        wanted = overrides.over(project.desired_runtime)
        settings = await self._checked_settings(project, wanted)
        known = await self._claim("RestartRuntime", project_id, overrides, request_id)
        if not _begun(known, entry):
            await self._do(
                project_id,
                "restart",
                lambda: self._restart(project, settings, wanted, grace, principal),
            )
        await self._set_outcome(request_id, entry)
        return await self._started(project_id, entry, wait_ready, timeout)

    async def signal(
        self, project_id: str, number: int, *, request_id: str, principal: str
    ) -> Runtime:
        """Sends a signal to the app's main process. Raises RUNTIME_NOT_RUNNING."""
        self._projects.get(project_id)
        known = await claim(
            self._store,
            RequestClaim(
                request_id=request_id,
                method="SignalRuntime",
                digest=f"{project_id} {number}",
                project_id=project_id,
                time=self._clock.now(),
            ),
        )
        if known is None:
            await self._store.append_events(
                self._event("runtime.signalled", project_id, principal, signal=number)
            )
            await self._driver.signal(project_id, number)
        return self.get(project_id)

    @asynccontextmanager
    async def released(self, project_id: str) -> AsyncIterator[None]:
        """Keeps the app from being started while its project is deleted.

        Raises PROJECT_NOT_STOPPED, PROJECT_BUSY.
        """
        self._operations.refuse_if_busy(project_id)
        if self._runs.entry(project_id).alive:
            raise AttError(
                Reason.PROJECT_NOT_STOPPED,
                f"The app of {project_id!r} still runs. Stop it, then delete the project.",
                project_id=project_id,
            )
        self._operations.occupy(project_id, "deletion")
        try:
            yield
        finally:
            self._operations.vacate(project_id)
            if project_id not in self._projects.all():
                self._runs.drop(project_id)
                await self._driver.forget(project_id)

    # Operations -------------------------------------------------------------

    async def _checked_settings(
        self, project: Project, overrides: RuntimeSettings
    ) -> RuntimeSettings:
        """The settings of a start, checked as far as one can without starting."""
        settings = overrides.over(await self._projects.effective(project))
        spec = run_spec(project, settings, self._inherited_env)
        await self._commands.check(spec.command, directory=spec.directory, env=spec.env)
        return settings

    def _refuse_other_spec(self, project: Project, settings: RuntimeSettings, entry: Entry) -> None:
        spec = run_spec(project, settings, self._inherited_env)
        if entry.status is not None and entry.status.spec_digest != spec.digest():
            raise AttError(
                Reason.RUNTIME_SPEC_CONFLICT,
                f"The app of {project.project_id!r} runs with other settings. "
                "Restart it to use these, or stop it first.",
                project_id=project.project_id,
                run_id=entry.status.run_id,
            )

    async def _start(
        self,
        project: Project,
        settings: RuntimeSettings,
        overrides: RuntimeSettings,
        principal: str,
    ) -> None:
        project_id = project.project_id
        spec = run_spec(project, settings, self._inherited_env)
        await self._projects.set_desired(
            project_id,
            DesiredState.RUNNING,
            overrides,
            self._event("runtime.start_requested", project_id, principal, command=spec.command[0]),
        )
        status = await self._driver.start(spec)
        self._runs.run_changed(project_id, status)
        if status.state is RuntimeState.FAILED:
            await self._projects.set_desired(
                project_id,
                DesiredState.STOPPED,
                None,
                self._event(
                    "runtime.start_failed", project_id, principal, cause=status.start_failure
                ),
            )
            raise await self._start_failed(project_id, status)
        if settings.readiness is not None:
            self._readiness.watch(project_id, settings.readiness)

    async def _stop(self, project_id: str, grace: timedelta | None, principal: str) -> None:
        if self._projects.get(project_id).desired is not DesiredState.STOPPED:
            await self._projects.set_desired(
                project_id,
                DesiredState.STOPPED,
                None,
                self._event("runtime.stop_requested", project_id, principal),
            )
        await self._end(project_id, grace)

    async def _restart(
        self,
        project: Project,
        settings: RuntimeSettings,
        overrides: RuntimeSettings,
        grace: timedelta | None,
        principal: str,
    ) -> None:
        # Desired first: where a server dies between stop and start, the next
        # one starts the app.
        await self._projects.set_desired(
            project.project_id,
            DesiredState.RUNNING,
            overrides,
            self._event("runtime.restart_requested", project.project_id, principal),
        )
        await self._end(project.project_id, grace)
        await self._start(project, settings, overrides, principal)

    async def _end(self, project_id: str, grace: timedelta | None) -> None:
        if self._runs.entry(project_id).alive:
            status = await self._driver.stop(project_id, grace)
            if status is not None:
                self._runs.run_changed(project_id, status)

    def _reconcile(self, project: Project) -> None:
        """Begins what is missing between what is desired and what was found."""
        project_id = project.project_id
        status = self._runs.entry(project_id).status
        if project.desired is DesiredState.STOPPED:
            if status is not None and status.state.alive:
                self._operations.begin(project_id, "stop", lambda: self._stop(project_id, None, ""))
        elif status is None or _ended_from_outside(status):
            self._operations.begin(project_id, "start", lambda: self._start_again(project))
        elif status.state is RuntimeState.RUNNING:
            self._background.start(
                f"readiness of {project_id}", lambda: self._resume_probing(project)
            )

    async def _start_again(self, project: Project) -> None:
        settings = await self._checked_settings(project, project.desired_runtime)
        await self._start(project, settings, project.desired_runtime, "")

    async def _resume_probing(self, project: Project) -> None:
        try:
            settings = project.desired_runtime.over(await self._projects.effective(project))
        except AttError as error:
            log.warning("%s cannot be probed: %s", project.project_id, error.message)
            return
        if settings.readiness is not None:
            self._readiness.watch(project.project_id, settings.readiness)

    async def _do(self, project_id: str, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._operations.begin(project_id, name, work)
        await self._operations.join(project_id)

    async def _started(
        self, project_id: str, entry: Entry, wait_ready: bool, timeout: timedelta
    ) -> Runtime:
        """Returns the state once the wait is over. Raises as `start`."""
        if wait_ready and entry.status is not None:
            in_time = await self._readiness.wait(project_id, timeout)
            status = entry.status
            if not in_time:
                raise not_ready(project_id, status, entry.health)
            if status.state is not RuntimeState.READY:
                raise await self._start_failed(project_id, status)
        return self.get(project_id)

    async def _start_failed(self, project_id: str, status: RunStatus) -> AttError:
        return start_failed(project_id, status, await self._last_lines(project_id, LAST_LINES))

    # Records ----------------------------------------------------------------

    async def _claim(
        self, method: str, project_id: str, overrides: RuntimeSettings, request_id: str
    ) -> RequestClaim | None:
        return await claim(
            self._store,
            RequestClaim(
                request_id=request_id,
                method=method,
                digest=settings_digest(project_id, overrides),
                project_id=project_id,
                time=self._clock.now(),
            ),
        )

    async def _set_outcome(self, request_id: str, entry: Entry) -> None:
        if request_id and entry.status is not None:
            await self._store.set_request_outcome(request_id, entry.status.run_id)

    def _event(
        self, event_type: str, project_id: str, principal: str, **attributes: object
    ) -> Event:
        return Event(
            event_type=event_type,
            time=self._clock.now(),
            project_id=project_id,
            principal=principal,
            attributes={key: str(value) for key, value in attributes.items()},
        )


def _begun(known: RequestClaim | None, entry: Entry) -> bool:
    """Whether the call with this claim has already had its effect.

    A server that died after the effect left no outcome: then a run that started
    after the claim was made is what it began.
    """
    if known is None:
        return False
    started = None if entry.status is None else entry.status.start_time
    return bool(known.outcome) or (started is not None and started >= known.time)


def _ended_from_outside(status: RunStatus) -> bool:
    """Whether the app is down though nobody asked for it and it did not end by itself.

    That is a restart of the host, or a server that died between stop and start.
    """
    return status.state is RuntimeState.STOPPED or (
        not status.state.alive and status.reason == "host_restarted"
    )

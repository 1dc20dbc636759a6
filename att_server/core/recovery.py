"""Recovery: the server itself brings apps to their desired state, where no call does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum, auto
from typing import Protocol

from att_server.core.background import Background
from att_server.core.errors import AttError
from att_server.core.health import HealthMonitor
from att_server.core.launch import Launcher
from att_server.core.model import DesiredState, Event, Project, RunStatus, RuntimeState
from att_server.core.operations import Operations
from att_server.core.ports import Clock, StateStore
from att_server.core.run_control import RunControl
from att_server.core.run_table import RunTable
from att_server.core.settings import RestartCondition, RestartPolicy

RECOVERY = "recovery"
"""The name of the operation. Calls wait for it: only what calls do makes a project busy."""

TRY_AGAIN = (timedelta(seconds=1), timedelta(seconds=60))
"""Between two tries to recover an app: the first wait, and the longest."""

SUPERVISOR_LOST = "supervisor_lost"
HOST_RESTARTED = "host_restarted"

log = logging.getLogger(__name__)


class Recovery(Enum):
    """What the server does about an app that is to run."""

    NONE = auto()
    START = auto()
    START_AFTER_LOSS = auto()


def astray(desired: DesiredState, status: RunStatus | None) -> bool:
    """Whether the server may have to do something, which `recovery` then decides.

    What ended by itself in this boot is its supervisor's business, and done.
    """
    if desired is DesiredState.STOPPED:
        return status is not None and status.state.alive
    if status is None or status.state is RuntimeState.STOPPED or _being_stopped(status):
        return True
    if status.state.alive:
        return False
    return not status.this_boot or status.reason in (SUPERVISOR_LOST, HOST_RESTARTED)


def recovery(status: RunStatus | None, policy: RestartPolicy) -> Recovery:
    """What brings back an app that is to run and was last seen in `status`.

    An app that was taken down from outside runs again: the host went down, its
    supervisor was told to end, or a server died between stop and start. One
    that failed before a restart of the host gets another chance, as its policy
    would give it; one whose supervisor was lost goes on under its policy.
    """
    if status is None or status.state is RuntimeState.STOPPED:
        return Recovery.START
    if status.state.alive:
        return Recovery.NONE
    if status.reason == HOST_RESTARTED:
        return Recovery.START
    restarts = policy.condition is not RestartCondition.NEVER
    if not status.this_boot:
        return Recovery.START if restarts and not _ended_well(status, policy) else Recovery.NONE
    if status.reason == SUPERVISOR_LOST and restarts:
        return Recovery.START_AFTER_LOSS
    return Recovery.NONE


def _being_stopped(status: RunStatus) -> bool:
    """Whether a call ends the app: one that is to run was being started anew by it."""
    return status.state is RuntimeState.STOPPING and not status.reason


def _ended_well(status: RunStatus, policy: RestartPolicy) -> bool:
    ended = status.exit
    return (
        policy.condition is RestartCondition.ON_FAILURE
        and status.state is RuntimeState.EXITED
        and ended is not None
        and ended.exit_code == 0
        and not ended.reason
    )


class Projects(Protocol):
    """What a recovery needs to know of projects."""

    def all(self) -> Mapping[str, Project]:
        """All projects, by id."""
        ...


class Recoverer:
    """Recovers apps, each for itself, until that has succeeded or is no longer wanted."""

    def __init__(
        self,
        *,
        projects: Projects,
        runs: RunTable,
        store: StateStore,
        control: RunControl,
        health: HealthMonitor,
        launcher: Launcher,
        operations: Operations,
        clock: Clock,
        background: Background,
    ) -> None:
        self._projects = projects
        self._runs = runs
        self._store = store
        self._control = control
        self._health = health
        self._launcher = launcher
        self._operations = operations
        self._clock = clock
        self._background = background
        # True: it went astray again while it was being recovered.
        self._recovering: dict[str, bool] = {}

    def look_after(self, project_id: str) -> None:
        """Begins to recover the project's app, if something has to be done about it.

        An app that is well is probed from now on. Called for every project when
        the server begins, and when an app was lost.
        """
        if project_id in self._recovering:
            self._recovering[project_id] = True
        elif self._astray(project_id):
            self._recovering[project_id] = False
            self._background.start(
                f"recovery of {project_id}", lambda: self._recover_at_last(project_id)
            )
        elif self._runs.entry(project_id).alive:
            self._background.start(f"health of {project_id}", lambda: self._watch(project_id))

    def _astray(self, project_id: str) -> bool:
        project = self._projects.all().get(project_id)
        return project is not None and astray(project.desired, self._runs.entry(project_id).status)

    async def _recover_at_last(self, project_id: str) -> None:
        wait, told = TRY_AGAIN[0], ""
        try:
            while True:
                await self._operations.settle(project_id)
                if not self._astray(project_id):
                    return
                self._operations.begin(project_id, RECOVERY, lambda: self._recover(project_id))
                try:
                    await self._operations.join(project_id)
                except AttError as error:
                    if error.reason != told:
                        told = error.reason
                        await self._report(project_id, error)
                    await self._clock.sleep(wait)
                    wait = min(2 * wait, TRY_AGAIN[1])
                else:
                    if not self._recovering[project_id]:
                        return
                    self._recovering[project_id] = False
        finally:
            del self._recovering[project_id]

    async def _recover(self, project_id: str) -> None:
        project = self._projects.all()[project_id]
        if project.desired is DesiredState.STOPPED:
            await self._control.end(project_id)
            return
        before = self._runs.entry(project_id).status
        if before is not None and _being_stopped(before):
            await self._control.end(project_id)
        launch = await self._launcher.checked(project, project.desired_runtime)
        status = self._runs.entry(project_id).status
        decided = recovery(status, launch.settings.restart_policy)
        if decided is not Recovery.NONE:
            await self._control.start(
                project, launch, after_loss=decided is Recovery.START_AFTER_LOSS
            )

    async def _report(self, project_id: str, error: AttError) -> None:
        log.warning("%s cannot be recovered: %s", project_id, error.message)
        event = Event(
            event_type="runtime.recovery_failed",
            time=self._clock.now(),
            project_id=project_id,
            reason=error.reason,
            message=error.message,
        )
        try:
            await self._store.append_events(event)
        except AttError as unstored:
            log.error("events cannot be stored: %s", unstored.message)

    async def _watch(self, project_id: str) -> None:
        """Probes an app that was adopted, unless a call has replaced it meanwhile."""
        project = self._projects.all()[project_id]
        entry = self._runs.entry(project_id)
        adopted = entry.status
        if adopted is None:
            return
        try:
            launch = await self._launcher.plan(project, project.desired_runtime)
            if not entry.ready_run_id and await self._runs.events.was_ready(project_id, adopted):
                entry.ready_run_id = adopted.run_id
        except AttError as error:
            log.warning("%s cannot be probed: %s", project_id, error.message)
            return
        status = entry.status
        if status is not None and status.supervisor_id == adopted.supervisor_id:
            self._health.watch(project, launch.spec, launch.settings)

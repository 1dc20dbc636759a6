"""OwnDeployments: this server itself, released like an app, through its launcher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.server_launcher import (
    OwnProject,
    ServerLauncher,
    Trial,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.errors import AttError, Reason
from att_server.core.launch import release_gone
from att_server.core.model import (
    DesiredState,
    Event,
    EventFilter,
    ProbeResult,
    ProbeTarget,
    Project,
    ProjectMode,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.own_runs import run_id, run_now, this_run
from att_server.core.ports import Clock, Prober, StateStore
from att_server.core.settings import Probe, RuntimeSettings

TOLD = "launcher."
"""What the types of the launcher's events begin with."""

_LOOK_AGAIN = timedelta(milliseconds=100)
_TELL_AGAIN = timedelta(seconds=2)
_MARGIN = timedelta(minutes=1)
_MAX_LOST_RUNS = 50
"""More than the launcher bears: it gives a release on trial up before that."""
_TAKES_WITHIN = timedelta(seconds=30)
"""For a launcher to take a wish; one that was killed is started again meanwhile."""

log = logging.getLogger(__name__)


class Projects(Protocol):
    """What is needed of projects."""

    def get(self, project_id: str) -> Project:
        """The project. Raises PROJECT_NOT_FOUND."""
        ...

    async def create(
        self, project_id: str, path: str, runtime: RuntimeSettings, *, principal: str
    ) -> Project:
        """Creates the project, or returns the one with this id and specification."""
        ...

    async def set_release(
        self, project_id: str, release_id: str, *events: Event, desired: DesiredState
    ) -> None:
        """Stores from which release the app runs."""
        ...


class OwnDeployments:
    """Implements `Deployments`: the own project through the launcher, all others as they are.

    A switch ends this server. What it began, the next server finds: each start is a
    run whose id is `launch-` and its number, and ends are looked up in the
    launcher's record, so the steps of a cycle see an app like any other.
    """

    def __init__(
        self,
        apps: Deployments,
        *,
        own: OwnProject,
        launcher: ServerLauncher,
        projects: Projects,
        artifacts: ArtifactStore,
        journal: CycleJournal,
        store: StateStore,
        prober: Prober,
        clock: Clock,
        target: str,
        environ: Mapping[str, str],
        pid: int,
    ) -> None:
        """apps: runs all other apps. target: where this server serves. environ: for checks."""
        self._apps = apps
        self._own = own
        self._launcher = launcher
        self._projects = projects
        self._artifacts = artifacts
        self._journal = journal
        self._store = store
        self._prober = prober
        self._clock = clock
        self._environ = {**environ, "ATT_TARGET": target}
        self._pid = pid

    @property
    def project_of_server(self) -> OwnProject:
        """The project that is this server."""
        return self._own

    async def open(self) -> None:
        """Registers the project where it is not, and stores what it really runs from.

        Called once, before cycles go on. A cycle that is under way finds out itself.
        """
        own = self._own
        try:
            project = await self._projects.create(
                own.project_id, str(own.path), RuntimeSettings(), principal="att init --self"
            )
        except AttError as error:
            log.error("ATT's own project cannot be registered: %s", error.message)
            return
        active = await self._journal.cycles(project_id=own.project_id, active_only=True, limit=1)
        here = self._launcher.release_id
        # One that stands in for another release will be replaced in a moment.
        stays = not self._launcher.launch or self._launcher.state().current == here
        if not active and stays and project.release_id != here:
            event = Event(
                event_type="deploy.completed",
                time=self._clock.now(),
                project_id=own.project_id,
                reason="fell_back" if project.release_id else "installed",
                message="The launcher runs this release, and not the one that was deployed last.",
                attributes={"release_id": here, "release_before": project.release_id},
            )
            await self._projects.set_release(
                own.project_id, here, event, desired=DesiredState.STOPPED
            )

    def show(self, show: Callable[[str, RunStatus], None]) -> None:
        """Has this server shown as the run of its project."""
        show(self._own.project_id, this_run(self._launcher, self._pid))

    async def tell(self) -> None:
        """Goes on telling what the launcher does as events, each once."""
        while True:
            try:
                await self._tell()
            except AttError as error:
                log.warning("what the launcher did is not told: %s", error.message)
            await self._clock.sleep(_TELL_AGAIN)

    async def _tell(self) -> None:
        last, _ = await self._store.list_events(
            EventFilter(event_types=(TOLD,)), cursor=0, limit=1, tail=True
        )
        told = int(last[0].attributes["number"]) if last else 0
        events = await self._launcher.events(told)
        if events:
            await self._store.append_events(*events)

    # Deployments --------------------------------------------------------------

    def max_lost_runs(self, project_id: str) -> int:
        """See `Deployments`. Of this server its launcher has the count, over all cycles."""
        own = project_id == self._own.project_id
        return _MAX_LOST_RUNS if own else self._apps.max_lost_runs(project_id)

    def project(self, project_id: str) -> Project:
        """See `Deployments`."""
        return self._apps.project(project_id)

    async def hold(self, project_id: str) -> None:
        """See `Deployments`."""
        await self._apps.hold(project_id)

    def let_go(self, project_id: str) -> None:
        """See `Deployments`."""
        self._apps.let_go(project_id)

    def runtime(self, project_id: str) -> Runtime:
        """See `Deployments`."""
        if project_id != self._own.project_id:
            return self._apps.runtime(project_id)
        return Runtime(
            project_id=project_id,
            state=RuntimeState.READY,
            desired=DesiredState.RUNNING,
            revision=1,
            status=run_now(self._launcher, self._pid),
        )

    async def changed(self, project_id: str, timeout: timedelta) -> bool:
        """See `Deployments`. The state of this server does not change while it runs."""
        if project_id != self._own.project_id:
            return await self._apps.changed(project_id, timeout)
        await self._clock.sleep(timeout)
        return False

    async def check_release(self, project_id: str, release_id: str) -> None:
        """See `Deployments`. Raises SUPERVISOR_UNREACHABLE where no launcher is there."""
        if project_id != self._own.project_id:
            await self._apps.check_release(project_id, release_id)
            return
        if not self._launcher.launch or not self._launcher.present:
            raise _no_launcher(project_id)
        if release_id and await self._artifacts.manifest(project_id, release_id) is None:
            raise release_gone(self._artifacts.directory(project_id, release_id))
        lacking = self._launcher.startable(release_id)
        if lacking is not None:
            raise AttError(
                Reason.COMMAND_NOT_FOUND,
                f"The release {release_id} of ATT has no {lacking}. Have the command `build` of "
                "[bootstrap.release] make a virtual environment .venv with ATT in it.",
                command=lacking,
            )

    async def switch(self, project_id: str, release_id: str, *, cycle_id: str) -> RunStatus:
        """See `Deployments`. Where it succeeds, the next server goes on, and not this one."""
        if project_id != self._own.project_id:
            return await self._apps.switch(project_id, release_id, cycle_id=cycle_id)
        await self.hold(project_id)
        await self.check_release(project_id, release_id)
        started = Event(
            event_type="deploy.started",
            time=self._clock.now(),
            project_id=project_id,
            cycle_id=cycle_id,
            attributes={
                "release_id": release_id,
                "release_before": self.project(project_id).release_id,
            },
        )
        await self._projects.set_release(
            project_id, release_id, started, desired=DesiredState.STOPPED
        )
        wish_id = f"{cycle_id}:{release_id}"
        trial = await self._trial(cycle_id)
        await self._launcher.wish(wish_id, release_id, trial)
        return await self._settled(wish_id, release_id, trial)

    async def _trial(self, cycle_id: str) -> Trial:
        cycle = await self._journal.cycle(cycle_id)
        settings = cycle.facts.settings if cycle is not None else None
        settings = settings or BootstrapSettings()
        watch = settings.restart_watchdog_retries * settings.restart_watchdog_interval
        tries = settings.release.tries
        ready = settings.health_timeout
        return Trial(
            tries=tries,
            ready_within=ready,
            good_within=tries * ready + watch + ready + 3 * settings.bake_time + _MARGIN,
        )

    async def _settled(self, wish_id: str, release_id: str, trial: Trial) -> RunStatus:
        """What came of the wish, for a server that is not replaced by it."""
        deadline = (
            self._clock.monotonic()
            + (trial.tries * trial.ready_within + _TAKES_WITHIN + _MARGIN).total_seconds()
        )
        while self._clock.monotonic() < deadline:
            state = self._launcher.state()
            if state.wish == wish_id and state.outcome == "failed":
                raise AttError(
                    Reason.RUNTIME_START_FAILED,
                    f"The release {release_id} of ATT could not be started and kept: "
                    f"{state.reason}. The one before serves. Mend it and release it again.",
                    project_id=self._own.project_id,
                    cause=state.reason,
                )
            serving = state.wish == wish_id and state.outcome == "serving"
            if serving and release_id == self._launcher.release_id:
                return run_now(self._launcher, self._pid)
            await self._clock.sleep(_LOOK_AGAIN)
        raise _no_launcher(self._own.project_id)

    async def prove(self, project_id: str, release_id: str) -> None:
        """See `Deployments`."""
        if project_id == self._own.project_id:
            await self._launcher.prove(release_id)

    async def check(self, project_id: str, probe: Probe | None) -> ProbeResult:
        """See `Deployments`. A command finds this server by ATT_TARGET."""
        if project_id != self._own.project_id:
            return await self._apps.check(project_id, probe)
        if probe is None:
            # Whoever asks runs.
            return ProbeResult(
                healthy=True,
                probe="process",
                reason="process_running",
                checked_at=self._clock.now(),
            )
        project, release_id = self.project(project_id), self._launcher.release_id
        directory = project.path
        if release_id:
            directory = self._artifacts.directory(project_id, release_id)
        target = ProbeTarget(
            project_id=project_id,
            log_id=project.log_id,
            run_id=run_id(self._launcher),
            pid=self._pid,
            first_cursor=0,
            directory=directory,
            env=self._environ,
        )
        return await self._prober.probe(probe, target)

    async def recent_lines(self, project_id: str, count: int) -> list[bytes]:
        """See `Deployments`. What a start printed that failed, else the server's log."""
        if project_id != self._own.project_id:
            return await self._apps.recent_lines(project_id, count)
        return await asyncio.to_thread(self._launcher.output, count)

    async def set_mode(
        self, project_id: str, mode: ProjectMode, reason: str, *events: Event
    ) -> None:
        """See `Deployments`."""
        await self._apps.set_mode(project_id, mode, reason, *events)


def _no_launcher(project_id: str) -> AttError:
    return AttError(
        Reason.SUPERVISOR_UNREACHABLE,
        "No launcher looks after this server, so it cannot be replaced by another release. Start "
        "it with `att launch`; it takes this server over.",
        project_id=project_id,
    )

"""The composition root: builds everything, starts and ends it in order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from att_server.access_parts import AccessParts
from att_server.core.app_users import ANYBODY, AppUsers, ProjectUsers
from att_server.core.audit import AuditLog
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.code import CodeManager
from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.server_launcher import OwnProject, ServerLauncher
from att_server.core.cycles.settings import BootstrapSettingsReader
from att_server.core.cycles.step import Hooks
from att_server.core.cycles.test_report import JUnitFiles
from att_server.core.deployment import ReleaseDeployments
from att_server.core.events import EventManager
from att_server.core.identity import TokenStore
from att_server.core.launch import inherited_env
from att_server.core.listeners import NetworkTerms
from att_server.core.log_keeper import LogKeeper
from att_server.core.logs import LogManager
from att_server.core.model import Event
from att_server.core.notifier import Notifier
from att_server.core.own_baseline import OwnBaseline
from att_server.core.own_deployments import OwnDeployments
from att_server.core.ports import (
    Clock,
    CommandFinder,
    CommandRunner,
    LogStore,
    Prober,
    RuntimeDriver,
    SettingsReader,
    StateStore,
    TemplateStore,
)
from att_server.core.project_roots import ANYWHERE, ProjectRoots
from att_server.core.projects import ProjectManager
from att_server.core.repository import Repositories
from att_server.core.run_events import RunEvents
from att_server.core.run_table import RunTable
from att_server.core.templates import Templates
from att_server.cycle_parts import CyclePorts, cycle_parts
from att_server.rpc.auth import Certificates
from att_server.rpc.limits import Limits
from att_server.rpc.server import Managers, RpcServer
from att_server.rpc.server_service import ServerIdentity
from att_server.runtime_parts import RuntimePorts, runtime_parts

REVISIONS_PER_EPOCH = 1 << 32
"""So that revisions rise over restarts of the server."""

SHUTDOWN_GRACE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """One adapter for every port of the core.

    helpers, project_commands: run commands of ATT's own accord, and those of
    projects, so many at once. furnish: as `OwnBaseline` takes it.
    """

    store: StateStore
    journal: CycleJournal
    tokens: TokenStore
    logs: LogStore
    driver: RuntimeDriver
    prober: Prober
    commands: CommandFinder
    helpers: CommandRunner
    settings: SettingsReader
    artifacts: ArtifactStore
    repositories: Repositories
    forges: Forges
    junit: JUnitFiles
    bootstrap_settings: BootstrapSettingsReader
    project_commands: ProjectCommands
    templates: TemplateStore
    clock: Clock
    launcher: ServerLauncher | None = None
    furnish: Callable[[Path], None] = lambda _: None
    roots: ProjectRoots = ANYWHERE
    users: AppUsers = ANYBODY
    is_directory: Callable[[Path], bool] = Path.is_dir


@asynccontextmanager
async def serving(
    adapters: Adapters,
    *,
    socket_path: Path,
    state_dir: Path,
    epoch: int,
    instance_id: str,
    environ: Mapping[str, str],
    probe_hosts: frozenset[str] = frozenset(),
    hooks: Hooks | None = None,
    limits: Limits | None = None,
    grace: Callable[[], timedelta] = lambda: SHUTDOWN_GRACE,
    network: NetworkTerms | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[Sequence[str]]:
    """Serves the contract on `socket_path` while the context is open; yields the targets.

    probe_hosts: what probes may ask, beside this host. hooks: what an embedder
    brings along. limits: of each caller. grace: asked at the end, how long calls may
    take to come to theirs. network: what is served beside the socket. certificates:
    knows those of clients.

    Ends in the order that loses nothing: streams are told to go, calls get a
    grace, cycles and operations are left as they are, then events are stored.
    """
    identity = ServerIdentity(
        version=version("att-control"),
        instance_id=instance_id,
        start_time=adapters.clock.now(),
        epoch=epoch,
        pid=os.getpid(),
        state_dir=state_dir,
        release_id="" if adapters.launcher is None else adapters.launcher.release_id,
    )
    stored = Bell()
    parts = await AccessParts.prepare(
        store=adapters.store,
        tokens=adapters.tokens,
        clock=adapters.clock,
        stored=stored,
        limits=limits or Limits(),
        network=network or NetworkTerms(),
        certificates=certificates,
    )
    async with Background() as background:
        core = _core(
            adapters,
            background,
            stored=stored,
            audit=parts.audit,
            epoch=epoch,
            owner=instance_id,
            environ=environ,
            target=f"unix:{socket_path}",
            hooks=hooks or Hooks(),
        )
        managers = core.managers
        await managers.projects.open()
        if core.own is not None:
            await core.own.open()
            background.start("events of the launcher", core.own.tell)
        background.start("notifications", core.notifier.run)
        await parts.open(background)
        background.start("logs", managers.log_keeper.run)
        await adapters.store.append_events(
            _server_event(adapters.clock, "server.started", identity)
        )
        # Before apps are looked after: those that cycles have their hands on are theirs.
        await core.cycles.open()
        await managers.runtimes.open()
        if core.own is not None:
            core.own.show(managers.runtimes.show_server)
        core.cycles.resume(list(managers.projects.all()))
        if core.baseline is not None:
            background.start("release of the installation", core.baseline.register)
        server = RpcServer(
            managers=managers,
            identity=identity,
            access=parts.access,
            limits=limits or Limits(),
            probe_hosts=probe_hosts,
        )
        targets = await server.start(
            socket_path, epoch=epoch, network=parts.network.listeners, tls=parts.tls
        )
        try:
            yield targets
        finally:
            await server.stop(grace())
    await parts.settle()
    await core.run_events.flush()
    await adapters.store.append_events(_server_event(adapters.clock, "server.stopped", identity))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    managers: Managers
    cycles: CycleEngine
    run_events: RunEvents
    notifier: Notifier
    own: OwnDeployments | None
    baseline: OwnBaseline | None


def _core(
    adapters: Adapters,
    background: Background,
    *,
    stored: Bell,
    audit: AuditLog,
    epoch: int,
    owner: str,
    environ: Mapping[str, str],
    target: str,
    hooks: Hooks,
) -> _Core:
    """The managers, wired to what they share, and what runs beside them."""
    store, clock = adapters.store, adapters.clock
    # Logs and recovery act on the word of the run table, which asks for nothing of
    # theirs: it comes first, with the projects, which all need.
    run_events = RunEvents(store=store, clock=clock, stored=stored)
    runs = RunTable(
        events=run_events,
        first_revision=epoch * REVISIONS_PER_EPOCH,
        log_grew=lambda project_id: logs.grew(project_id),
        lost=lambda project_id: apps.recoverer.look_after(project_id),
    )
    projects = ProjectManager(
        store=store,
        logs=adapters.logs,
        settings=adapters.settings,
        directories=adapters.artifacts,
        templates=Templates(store=adapters.templates, events=store),
        clock=clock,
        stored=stored,
        roots=adapters.roots,
        users=adapters.users,
        is_directory=adapters.is_directory,
        released=lambda project_id: cycles.manager.released(
            project_id, apps.manager.released(project_id)
        ),
        forget=lambda project_id: _forget(adapters, project_id),
        desired_changed=runs.project_changed,
    )
    users = ProjectUsers(adapters.users, projects.effective)
    logs = LogManager(store=adapters.logs, find_project=projects.get, current_run=runs.current_run)
    apps = runtime_parts(
        RuntimePorts(
            store=store,
            driver=adapters.driver,
            prober=adapters.prober,
            commands=adapters.commands,
            users=adapters.users,
            artifacts=adapters.artifacts,
            logs=adapters.logs,
            clock=clock,
            inherited_env=inherited_env(environ),
        ),
        projects=projects,
        runs=runs,
        background=background,
        last_lines=logs.last_lines,
    )
    own = _own(adapters, apps.deployments, projects, environ=inherited_env(environ), target=target)
    cycles = cycle_parts(
        CyclePorts(
            journal=adapters.journal,
            store=store,
            repositories=adapters.repositories,
            forges=adapters.forges,
            artifacts=adapters.artifacts,
            junit=adapters.junit,
            settings=adapters.bootstrap_settings,
            runner=adapters.helpers,
            project_commands=adapters.project_commands,
            clock=clock,
            hooks=hooks,
            inherited_env=inherited_env(environ),
        ),
        projects=projects,
        users=users,
        deployments=own or apps.deployments,
        background=background,
        stored=stored,
        owner=owner,
    )

    async def settle() -> None:
        await run_events.settle()
        await audit.settle()

    events = EventManager(store=store, stored=stored, settle=settle)
    managers = Managers(
        projects=projects,
        runtimes=apps.manager,
        logs=logs,
        log_keeper=LogKeeper(
            logs=adapters.logs,
            store=store,
            settings=adapters.settings,
            clock=clock,
            stored=stored,
            find_project=projects.get,
            all_projects=lambda: list(projects.all().values()),
        ),
        events=events,
        bootstrap=cycles.manager,
        dry_runs=cycles.dry_runs,
        releases=cycles.releases,
        code=CodeManager(
            find_project=projects.get,
            journal=adapters.journal,
            repositories=adapters.repositories,
            settings=adapters.bootstrap_settings,
        ),
    )
    notifier = Notifier(
        store=store,
        find_project=projects.get,
        settings=adapters.settings,
        commands=adapters.helpers,
        clock=clock,
        stored=stored,
        inherited_env=inherited_env(environ),
        user=users.of_commands,
    )
    return _Core(
        managers=managers,
        cycles=cycles.engine,
        run_events=run_events,
        notifier=notifier,
        own=own,
        baseline=None if own is None else _baseline(adapters, projects, own.project_of_server),
    )


def _baseline(adapters: Adapters, projects: ProjectManager, own: OwnProject) -> OwnBaseline:
    return OwnBaseline(
        own,
        find_project=projects.get,
        repositories=adapters.repositories,
        artifacts=adapters.artifacts,
        journal=adapters.journal,
        clock=adapters.clock,
        furnish=adapters.furnish,
    )


def _own(
    adapters: Adapters,
    apps: ReleaseDeployments,
    projects: ProjectManager,
    *,
    environ: Mapping[str, str],
    target: str,
) -> OwnDeployments | None:
    """What releases this server itself; None where it was not registered as a project."""
    launcher = adapters.launcher
    if launcher is None or launcher.own is None:
        return None
    return OwnDeployments(
        apps,
        own=launcher.own,
        launcher=launcher,
        projects=projects,
        artifacts=adapters.artifacts,
        journal=adapters.journal,
        store=adapters.store,
        prober=adapters.prober,
        clock=adapters.clock,
        target=target,
        environ=environ,
        pid=os.getpid(),
    )


async def _forget(adapters: Adapters, project_id: str) -> None:
    """Removes what is kept in files of a project that is not there."""
    await adapters.artifacts.forget_project(project_id)
    await adapters.repositories.forget_project(project_id)


def _server_event(clock: Clock, event_type: str, identity: ServerIdentity) -> Event:
    return Event(
        event_type=event_type,
        time=clock.now(),
        attributes={
            "version": identity.version,
            "instance_id": identity.instance_id,
            "epoch": str(identity.epoch),
            "pid": str(identity.pid),
        },
    )

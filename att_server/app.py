"""The composition root: builds everything, starts and ends it in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.command_runner import ZygoteCommandRunner
from att_server.adapters.commands import PathCommandFinder
from att_server.adapters.probes import SystemProber
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.adapters.templates import PackagedTemplates
from att_server.adapters.zygote_client import ZygoteClient
from att_server.config import Config
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.events import EventManager
from att_server.core.health import HealthMonitor
from att_server.core.intents import Intents
from att_server.core.launch import Launcher, inherited_env
from att_server.core.logs import LogManager
from att_server.core.model import Event
from att_server.core.notifier import Notifier
from att_server.core.operations import Operations
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
from att_server.core.projects import ProjectManager
from att_server.core.recovery import Recoverer
from att_server.core.run_events import RunEvents
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager
from att_server.core.templates import Templates
from att_server.lock import state_directory
from att_server.rpc.server import Managers, RpcServer
from att_server.rpc.server_service import ServerIdentity
from att_server.server_log import server_log

REVISIONS_PER_EPOCH = 1 << 32
"""So that revisions rise over restarts of the server."""

SHUTDOWN_GRACE = timedelta(seconds=5)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """One adapter for every port of the core."""

    store: StateStore
    logs: LogStore
    driver: RuntimeDriver
    prober: Prober
    commands: CommandFinder
    helpers: CommandRunner
    settings: SettingsReader
    templates: TemplateStore
    clock: Clock
    is_directory: Callable[[Path], bool] = Path.is_dir


async def run(config: Config, ready: Callable[[str], None]) -> None:
    """Serves until it is cancelled; the apps run on.

    ready: told the target once it is served. Raises StartRefused.
    """
    clock = SystemClock()
    instance_id = clock.new_id()
    async with AsyncExitStack() as stack:
        stack.enter_context(
            state_directory(
                config.state_dir,
                socket_path=config.socket_path,
                instance_id=instance_id,
                start_time=clock.now(),
            )
        )
        stack.enter_context(server_log(config.log_path))
        store = await SqliteStateStore.open(config.state_dir / "att.db")
        stack.push_async_callback(store.aclose)
        epoch = await store.next_epoch()
        logs = SegmentLogStore(config.state_dir)
        stack.push_async_callback(logs.aclose)
        zygote = ZygoteClient()
        stack.push_async_callback(zygote.aclose)
        driver = SupervisorDriver(config.state_dir, epoch=epoch, clock=clock, zygote=zygote)
        stack.push_async_callback(driver.aclose)
        helpers = ZygoteCommandRunner(zygote)
        prober = SystemProber(clock, logs=logs, commands=helpers, allowed_hosts=config.probe_hosts)
        stack.push_async_callback(prober.aclose)
        adapters = Adapters(
            store=store,
            logs=logs,
            driver=driver,
            prober=prober,
            commands=PathCommandFinder(),
            helpers=helpers,
            settings=TomlSettingsReader(allowed_hosts=config.probe_hosts),
            templates=PackagedTemplates(),
            clock=clock,
        )
        await stack.enter_async_context(
            serving(
                adapters,
                socket_path=config.socket_path,
                state_dir=config.state_dir,
                epoch=epoch,
                instance_id=instance_id,
                environ=config.environ,
                probe_hosts=config.probe_hosts,
            )
        )
        ready(f"unix:{config.socket_path}")
        await asyncio.Event().wait()


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
) -> AsyncIterator[None]:
    """Serves the contract on `socket_path` while the context is open.

    probe_hosts: what probes may ask, beside this host.

    Ends in the order that loses nothing: streams are told to go, calls get a
    grace, operations are left to their supervisors, then events are stored.
    """
    identity = ServerIdentity(
        version=version("att-control"),
        instance_id=instance_id,
        start_time=adapters.clock.now(),
        epoch=epoch,
        pid=os.getpid(),
        state_dir=state_dir,
    )
    async with Background() as background:
        managers, run_events, notifier = _managers(adapters, background, epoch, environ)
        await managers.projects.open()
        background.start("notifications", notifier.run)
        await adapters.store.append_events(
            _server_event(adapters.clock, "server.started", identity)
        )
        await managers.runtimes.open()
        server = RpcServer(
            managers=managers,
            identity=identity,
            principal=f"local:{os.getuid()}",
            probe_hosts=probe_hosts,
        )
        await server.start(socket_path)
        try:
            yield
        finally:
            await server.stop(SHUTDOWN_GRACE)
    await run_events.flush()
    await adapters.store.append_events(_server_event(adapters.clock, "server.stopped", identity))


def _managers(
    adapters: Adapters, background: Background, epoch: int, environ: Mapping[str, str]
) -> tuple[Managers, RunEvents, Notifier]:
    """The managers, wired to what they share; what is flushed at the end; what runs beside."""
    store, driver, clock = adapters.store, adapters.driver, adapters.clock
    stored = Bell()
    # Logs and recovery act on the word of the run table, which asks for nothing of
    # theirs: it comes first, with the projects, which all need.
    run_events = RunEvents(store=store, clock=clock, stored=stored)
    runs = RunTable(
        events=run_events,
        first_revision=epoch * REVISIONS_PER_EPOCH,
        log_grew=lambda project_id: logs.grew(project_id),
        lost=lambda project_id: recoverer.look_after(project_id),
    )
    projects = ProjectManager(
        store=store,
        logs=adapters.logs,
        settings=adapters.settings,
        templates=Templates(store=adapters.templates, events=store),
        clock=clock,
        stored=stored,
        is_directory=adapters.is_directory,
        released=lambda project_id: runtimes.released(project_id),
        desired_changed=runs.project_changed,
    )
    logs = LogManager(store=adapters.logs, find_project=projects.get, current_run=runs.current_run)
    health = HealthMonitor(
        runs=runs, driver=driver, prober=adapters.prober, clock=clock, background=background
    )
    launcher = Launcher(
        projects=projects, commands=adapters.commands, inherited_env=inherited_env(environ)
    )
    operations = Operations(background)
    recoverer = Recoverer(
        projects=projects,
        runs=runs,
        store=store,
        driver=driver,
        health=health,
        launcher=launcher,
        operations=operations,
        clock=clock,
        background=background,
    )
    runtimes = RuntimeManager(
        projects=projects,
        runs=runs,
        store=store,
        driver=driver,
        health=health,
        launcher=launcher,
        intents=Intents(projects=projects, runs=runs, store=store, clock=clock),
        operations=operations,
        recoverer=recoverer,
        clock=clock,
        background=background,
        last_lines=logs.last_lines,
    )
    events = EventManager(store=store, stored=stored, settle=run_events.settle)
    managers = Managers(projects=projects, runtimes=runtimes, logs=logs, events=events)
    notifier = Notifier(
        store=store,
        find_project=projects.get,
        settings=adapters.settings,
        commands=adapters.helpers,
        clock=clock,
        stored=stored,
        inherited_env=inherited_env(environ),
    )
    return managers, run_events, notifier


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

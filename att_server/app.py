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
from att_server.adapters.commands import PathCommandFinder
from att_server.adapters.probes import HttpProber
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.config import Config
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.events import EventManager
from att_server.core.launch import inherited_env
from att_server.core.logs import LogManager
from att_server.core.model import Event
from att_server.core.ports import (
    Clock,
    CommandFinder,
    LogStore,
    Prober,
    RuntimeDriver,
    SettingsReader,
    StateStore,
)
from att_server.core.projects import ProjectManager
from att_server.core.readiness import Readiness
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager
from att_server.lock import state_directory
from att_server.rpc.server import Managers, RpcServer
from att_server.rpc.server_service import ServerIdentity

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
    settings: SettingsReader
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
        store = await SqliteStateStore.open(config.state_dir / "att.db")
        stack.push_async_callback(store.aclose)
        epoch = await store.next_epoch()
        logs = SegmentLogStore(config.state_dir)
        stack.push_async_callback(logs.aclose)
        driver = SupervisorDriver(config.state_dir, epoch=epoch, clock=clock)
        stack.push_async_callback(driver.aclose)
        prober = HttpProber(clock)
        stack.push_async_callback(prober.aclose)
        adapters = Adapters(
            store=store,
            logs=logs,
            driver=driver,
            prober=prober,
            commands=PathCommandFinder(),
            settings=TomlSettingsReader(),
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
) -> AsyncIterator[None]:
    """Serves the contract on `socket_path` while the context is open.

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
        managers, runs = _managers(adapters, background, epoch, environ)
        await managers.projects.open()
        await adapters.store.append_events(
            _server_event(adapters.clock, "server.started", identity)
        )
        await managers.runtimes.open()
        server = RpcServer(managers=managers, identity=identity, principal=f"local:{os.getuid()}")
        await server.start(socket_path)
        try:
            yield
        finally:
            await server.stop(SHUTDOWN_GRACE)
    await runs.flush_events()
    await adapters.store.append_events(_server_event(adapters.clock, "server.stopped", identity))


def _managers(
    adapters: Adapters, background: Background, epoch: int, environ: Mapping[str, str]
) -> tuple[Managers, RunTable]:
    """The managers, wired to what they share."""
    stored = Bell()
    # Logs wake on the word of the run table, which asks for nothing of theirs:
    # the projects, which both need, come first.
    projects = ProjectManager(
        store=adapters.store,
        logs=adapters.logs,
        settings=adapters.settings,
        clock=adapters.clock,
        stored=stored,
        is_directory=adapters.is_directory,
        released=lambda project_id: runtimes.released(project_id),
    )
    runs = RunTable(
        store=adapters.store,
        clock=adapters.clock,
        stored=stored,
        first_revision=epoch * REVISIONS_PER_EPOCH,
        log_grew=lambda project_id: logs.grew(project_id),
    )
    logs = LogManager(store=adapters.logs, find_project=projects.get, current_run=runs.current_run)
    readiness = Readiness(
        runs=runs,
        driver=adapters.driver,
        prober=adapters.prober,
        clock=adapters.clock,
        background=background,
    )
    runtimes = RuntimeManager(
        projects=projects,
        runs=runs,
        store=adapters.store,
        driver=adapters.driver,
        readiness=readiness,
        commands=adapters.commands,
        clock=adapters.clock,
        background=background,
        inherited_env=inherited_env(environ),
        last_lines=logs.last_lines,
    )
    events = EventManager(store=adapters.store, stored=stored)
    return Managers(projects=projects, runtimes=runtimes, logs=logs, events=events), runs


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

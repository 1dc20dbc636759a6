"""What apps are run with, put together: probes, operations, recovery, the manager."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from att_server.core.app_users import AppUsers
from att_server.core.background import Background
from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.deployment import ReleaseDeployments
from att_server.core.health import HealthMonitor
from att_server.core.intents import Intents
from att_server.core.launch import Launcher
from att_server.core.operations import Operations
from att_server.core.ports import (
    Clock,
    CommandFinder,
    LogStore,
    Prober,
    RuntimeDriver,
    StateStore,
)
from att_server.core.projects import ProjectManager
from att_server.core.recovery import Recoverer
from att_server.core.run_control import RunControl
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePorts:
    """What running apps stands on. inherited_env: what apps get of the server's environment."""

    store: StateStore
    driver: RuntimeDriver
    prober: Prober
    commands: CommandFinder
    users: AppUsers
    artifacts: ArtifactStore
    logs: LogStore
    clock: Clock
    inherited_env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeParts:
    """What the server needs of it."""

    manager: RuntimeManager
    recoverer: Recoverer
    deployments: ReleaseDeployments


def runtime_parts(
    ports: RuntimePorts,
    *,
    projects: ProjectManager,
    runs: RunTable,
    background: Background,
    last_lines: Callable[[str, str, int], Awaitable[list[str]]],
) -> RuntimeParts:
    """The parts, wired. last_lines: see `RuntimeManager`."""
    health = HealthMonitor(
        runs=runs,
        driver=ports.driver,
        prober=ports.prober,
        clock=ports.clock,
        background=background,
    )
    launcher = Launcher(
        projects=projects,
        commands=ports.commands,
        users=ports.users,
        directories=ports.artifacts,
        inherited_env=ports.inherited_env,
    )
    operations = Operations(background)
    control = RunControl(runs=runs, driver=ports.driver, health=health)
    recoverer = Recoverer(
        projects=projects,
        runs=runs,
        store=ports.store,
        control=control,
        health=health,
        launcher=launcher,
        operations=operations,
        clock=ports.clock,
        background=background,
    )
    intents = Intents(projects=projects, runs=runs, store=ports.store, clock=ports.clock)
    manager = RuntimeManager(
        projects=projects,
        runs=runs,
        driver=ports.driver,
        control=control,
        health=health,
        launcher=launcher,
        intents=intents,
        operations=operations,
        recoverer=recoverer,
        clock=ports.clock,
        background=background,
        last_lines=last_lines,
    )
    deployments = ReleaseDeployments(
        projects=projects,
        artifacts=ports.artifacts,
        runs=runs,
        control=control,
        health=health,
        launcher=launcher,
        intents=intents,
        operations=operations,
        logs=ports.logs,
        clock=ports.clock,
    )
    return RuntimeParts(manager=manager, recoverer=recoverer, deployments=deployments)

"""A server on what a state directory holds: the adapters that production runs on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from att_server.adapters.app_users import SystemAppUsers
from att_server.adapters.bootstrap_settings import TomlBootstrapSettings
from att_server.adapters.command_runner import ZygoteCommandRunner
from att_server.adapters.commands import PathCommandFinder
from att_server.adapters.forge_local import LocalForges
from att_server.adapters.forges import ConfiguredForges
from att_server.adapters.git.command import Git, GitSettings
from att_server.adapters.git.projects import GitRepositories
from att_server.adapters.github.access import GitHubAccess
from att_server.adapters.identities import TomlIdentities
from att_server.adapters.junit import JUnitDirectory
from att_server.adapters.launcher_files import LauncherFiles, lend_environment
from att_server.adapters.probes import SystemProber
from att_server.adapters.project_roots import TomlProjectRoots
from att_server.adapters.release_directories import ReleaseDirectories
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.sqlite_tokens import SqliteTokens
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.adapters.templates import PackagedTemplates
from att_server.adapters.zygote_client import ZygoteClient
from att_server.app import Adapters, serving
from att_server.config import Config
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.slots import Slots
from att_server.core.cycles.step import Hooks
from att_server.core.launch import inherited_env
from att_server.core.ports import Clock
from att_server.server_log import server_log


@asynccontextmanager
async def serving_state(
    config: Config,
    *,
    clock: Clock,
    zygote: ZygoteClient,
    instance_id: str,
    hooks: Hooks,
    migrates: Callable[[], None],
    grace: Callable[[], timedelta],
) -> AsyncIterator[Sequence[str]]:
    """Serves what the state directory holds, as `serving` does.

    The caller holds the directory, and owns the zygote. migrates: called, in any thread,
    before the database is, which may take its time. Raises StartRefused.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(server_log(config.log_path))
        database = await SqliteDatabase.open(config.store_path, migrates=migrates)
        store = SqliteStateStore(database)
        stack.push_async_callback(store.aclose)
        epoch = await store.next_epoch()
        logs = SegmentLogStore(config.state_dir)
        stack.push_async_callback(logs.aclose)
        driver = SupervisorDriver(config.state_dir, epoch=epoch, clock=clock, zygote=zygote)
        stack.push_async_callback(driver.aclose)
        helpers = ZygoteCommandRunner(zygote)
        prober = SystemProber(clock, logs=logs, commands=helpers, allowed_hosts=config.probe_hosts)
        stack.push_async_callback(prober.aclose)
        journal = SqliteJournal(database)
        project_commands = ProjectCommands(
            runner=helpers, slots=Slots(os.cpu_count() or 1), clock=clock
        )
        settings = TomlBootstrapSettings(config.state_dir, allowed_hosts=config.probe_hosts)
        launcher = LauncherFiles(
            config.state_dir,
            launch=config.launch,
            release_id=config.release_id,
            start_time=clock.now(),
        )
        roots = TomlProjectRoots(
            config.state_dir, clock, own=None if launcher.own is None else launcher.own.path
        )
        repositories = GitRepositories(
            _git(config.environ),
            config.state_dir,
            access=GitHubAccess(settings, config.environ),
            roots=roots,
        )
        forges = ConfiguredForges(
            local=LocalForges(
                journal=journal,
                repositories=repositories,
                commands=project_commands,
                inherited_env=inherited_env(config.environ),
            ),
            repositories=repositories,
            clock=clock,
            environ=config.environ,
        )
        stack.push_async_callback(forges.aclose)
        adapters = Adapters(
            store=store,
            journal=journal,
            tokens=SqliteTokens(database),
            logs=logs,
            driver=driver,
            prober=prober,
            commands=PathCommandFinder(),
            helpers=helpers,
            settings=TomlSettingsReader(allowed_hosts=config.probe_hosts, roots=roots),
            artifacts=ReleaseDirectories(config.state_dir),
            repositories=repositories,
            forges=forges,
            junit=JUnitDirectory(config.state_dir / "junit"),
            bootstrap_settings=settings,
            project_commands=project_commands,
            templates=PackagedTemplates(),
            clock=clock,
            launcher=launcher,
            furnish=lend_environment,
            roots=roots,
            users=SystemAppUsers(zygote, config.state_dir, clock),
        )
        targets = await stack.enter_async_context(
            serving(
                adapters,
                socket_path=config.socket_path,
                state_dir=config.state_dir,
                epoch=epoch,
                instance_id=instance_id,
                environ=config.environ,
                probe_hosts=config.probe_hosts,
                hooks=hooks,
                grace=grace,
                network=config.network,
                certificates=TomlIdentities(config.state_dir, clock),
            )
        )
        yield targets


def _git(environ: Mapping[str, str]) -> Git:
    """Git, of the server's environment only with what finds and unlocks remotes."""
    agent = {name: environ[name] for name in ("SSH_AUTH_SOCK",) if name in environ}
    return Git(GitSettings(path=environ.get("PATH", os.defpath), environ=agent))

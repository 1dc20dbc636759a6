"""Releases of a real repository under real supervisors, step by step, over servers that die."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.command_runner import ZygoteCommandRunner
from att_server.adapters.commands import PathCommandFinder
from att_server.adapters.git.projects import GitRepositories
from att_server.adapters.probes import SystemProber
from att_server.adapters.release_directories import ReleaseDirectories
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.app_users import ANYBODY
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.cycles import progress
from att_server.core.cycles.model import (
    Cycle,
    CycleFacts,
    CycleRequest,
    CycleResult,
    CycleStep,
    HealthStatus,
    StepStatus,
)
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.settings import BootstrapSettings, ReleaseSettings
from att_server.core.cycles.slots import Slots
from att_server.core.cycles.step import Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.deploy import DeployStep
from att_server.core.cycles.steps.finalize import FinalizeStep
from att_server.core.cycles.steps.stage import StageStep
from att_server.core.deployment import ReleaseDeployments
from att_server.core.model import Event, Project
from att_server.core.ports import RuntimeDriver
from att_server.core.project_roots import ANYWHERE
from att_server.core.projects import ProjectManager
from att_server.core.releases import Release
from att_server.core.run_events import RunEvents
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager
from att_server.core.settings import RuntimeSettings
from att_server.core.templates import Templates
from att_server.runtime_parts import RuntimePorts, runtime_parts
from att_server.testing.journal import MemoryJournal
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore
from tests.contract.git_projects import GitProject, make_project, project_at

PROJECT = "web"
ENV = {"PATH": os.environ["PATH"]}
APP = """\
import os, time
print("%s", os.getcwd(), os.environ["ATT_RELEASE_ID"], os.environ["ATT_DATA_DIR"], flush=True)
time.sleep(1000)
"""


def app(version: str) -> Mapping[str, bytes]:
    """The files of a version of the app."""
    settings = f'[runtime]\ncommand = [{sys.executable!r}, "app.py"]\nstop_grace = "1s"\n'
    return {"app.py": (APP % version).encode(), "att.toml": settings.encode()}


class Killed(Exception):
    """The server died here."""


@dataclass(kw_only=True)
class ReleaseBench:
    """A project with a remote, its releases, and the servers that came and went.

    notes_left: the server dies at the note after so many; None: it lives. noted: the
    cycle as it was stored by the last note.
    """

    git: GitProject
    state: Path
    zygote: ZygoteClient
    settings: BootstrapSettings = field(default_factory=BootstrapSettings)
    clock: SystemClock = field(default_factory=SystemClock)
    store: MemoryStateStore = field(default_factory=MemoryStateStore)
    epoch: int = 0
    events: list[Event] = field(default_factory=list)
    notes_left: int | None = None
    noted: Cycle | None = None

    def __post_init__(self) -> None:
        self.journal = MemoryJournal(self.store)
        self.artifacts = ReleaseDirectories(self.state)
        self.repositories = GitRepositories(self.git.git, self.state)

    # Servers ----------------------------------------------------------------

    @asynccontextmanager
    async def server(
        self, *, held: bool = False, driver: type[SupervisorDriver] = SupervisorDriver
    ) -> AsyncIterator[Life]:
        """The next server; held: a cycle at DEPLOY holds the project from the start."""
        self.epoch += 1
        own = driver(self.state, epoch=self.epoch, clock=self.clock, zygote=self.zygote)
        logs = SegmentLogStore(self.state)
        runner = ZygoteCommandRunner(self.zygote)
        prober = SystemProber(self.clock, logs=logs, commands=runner, allowed_hosts=frozenset())
        try:
            async with Background() as background:
                life = self._life(background, own, logs, prober, runner)
                await life.projects.open()
                if PROJECT not in life.projects.all():
                    await life.projects.create(
                        PROJECT, str(self.git.checkout), RuntimeSettings(), principal=""
                    )
                if held:
                    await life.deployments.hold(PROJECT)
                await life.runtimes.open()
                yield life
        finally:
            await own.aclose()
            await prober.aclose()
            await logs.aclose()

    def _life(
        self,
        background: Background,
        driver: RuntimeDriver,
        logs: SegmentLogStore,
        prober: SystemProber,
        runner: ZygoteCommandRunner,
    ) -> Life:
        stored = Bell()
        runs = RunTable(
            events=RunEvents(store=self.store, clock=self.clock, stored=stored),
            first_revision=0,
            log_grew=lambda _: None,
            lost=lambda project_id: parts.recoverer.look_after(project_id),
        )
        projects = ProjectManager(
            store=self.store,
            logs=logs,
            settings=TomlSettingsReader(),
            directories=self.artifacts,
            templates=Templates(store=FakeTemplateStore(), events=self.store),
            clock=self.clock,
            stored=stored,
            roots=ANYWHERE,
            users=ANYBODY,
            is_directory=Path.is_dir,
            released=lambda project_id: parts.manager.released(project_id),
            forget=self.artifacts.forget_project,
            desired_changed=runs.project_changed,
        )

        async def last_lines(*_: object) -> list[str]:
            return []

        parts = runtime_parts(
            RuntimePorts(
                store=self.store,
                driver=driver,
                prober=prober,
                commands=PathCommandFinder(),
                users=ANYBODY,
                artifacts=self.artifacts,
                logs=logs,
                clock=self.clock,
                inherited_env=ENV,
            ),
            projects=projects,
            runs=runs,
            background=background,
            last_lines=last_lines,
        )
        deployments = parts.deployments
        commands = ProjectCommands(runner=runner, slots=Slots(2), clock=self.clock)
        steps: tuple[Step, ...] = (
            StageStep(
                repositories=self.repositories,
                artifacts=self.artifacts,
                journal=self.journal,
                commands=commands,
                clock=self.clock,
                inherited_env=ENV,
            ),
            DeployStep(
                deployments=deployments,
                journal=self.journal,
                commands=commands,
                clock=self.clock,
                inherited_env=ENV,
            ),
            FinalizeStep(
                repositories=self.repositories,
                artifacts=self.artifacts,
                journal=self.journal,
                deployments=deployments,
                clock=self.clock,
            ),
        )
        return Life(
            bench=self,
            projects=projects,
            runtimes=parts.manager,
            deployments=deployments,
            driver=driver,
            steps={step.step: step for step in steps},
        )

    # What there is ----------------------------------------------------------

    def commit(self, version: str, **files: bytes | None) -> str:
        """A version of the app on the base; `_` in names stands for `.`."""
        given = {name.replace("_", "."): content for name, content in files.items()}
        return self.git.commit_on_remote({**app(version), **given}, message=version)

    async def cycle(self, commit: str, **request: object) -> Cycle:
        """A cycle that has merged the commit."""
        repository = await self.repositories.of(project_at(self.git.checkout, PROJECT))
        found = await repository.fetch_commit(commit)
        return Cycle(
            cycle_id=self.clock.new_id(),
            project_id=PROJECT,
            request=CycleRequest(**request),  # type: ignore[arg-type]  # its own fields
            requested_by="token:agent",
            create_time=self.clock.now(),
            steps=tuple(StepStatus(step=step) for step in CycleStep),
            facts=CycleFacts(commit=commit, merged_commit=commit, merged_tree=found.tree),
            result=CycleResult(health_status=HealthStatus.HEALTHY),
        )

    async def release(self, release_id: str) -> Release:
        """The record of the release."""
        known = await self.journal.releases(PROJECT)
        return next(each for each in known if each.release_id == release_id)

    async def pinned(self) -> frozenset[str]:
        """The commits that the repository keeps for releases."""
        return await (await self.repositories.of(project_at(self.git.checkout, PROJECT))).pinned()

    def directory(self, release_id: str) -> Path:
        """Where the release lies."""
        return self.artifacts.directory(PROJECT, release_id)

    def left(self) -> list[str]:
        """What lies in the directory of releases."""
        releases = self.state / "projects" / PROJECT / "releases"
        return sorted(path.name for path in releases.iterdir()) if releases.is_dir() else []

    def release_settings(self, **values: object) -> None:
        """Sets `[bootstrap.release]`."""
        release = ReleaseSettings(**values)  # type: ignore[arg-type]  # its own fields
        self.settings = replace(self.settings, release=release)


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One server's, from its start to its end or its death."""

    bench: ReleaseBench
    projects: ProjectManager
    runtimes: RuntimeManager
    deployments: ReleaseDeployments
    driver: RuntimeDriver
    steps: Mapping[CycleStep, Step]

    @property
    def project(self) -> Project:
        return self.projects.get(PROJECT)

    async def do(self, step: CycleStep, cycle: Cycle) -> tuple[StepEnd, Cycle]:
        """Runs the step as an engine does: how it ended, and the cycle as it is stored then.

        A server that dies in it raises Killed, with what was noted in `args`.
        """
        bench = self.bench
        stored = cycle

        async def keep(leaves: Leaves) -> None:
            nonlocal stored
            stored = progress.noted(stored, step, leaves)
            await bench.journal.put_releases(*leaves.releases)
            bench.events += leaves.events

        async def note(leaves: Leaves) -> None:
            if bench.notes_left == 0:
                raise Killed(stored)
            await keep(leaves)
            bench.noted = stored

        work = StepWork(
            cycle=cycle,
            project=self.project,
            settings=bench.settings,
            status=cycle.step(step),
            now=bench.clock.now(),
            note=note,
        )
        try:
            end = await self.steps[step].run(work)
        except Killed as death:
            raise Killed(stored) from death
        await keep(end.leaves)
        return end, stored

    async def carry(self, cycle: Cycle, *steps: CycleStep) -> tuple[StepEnd, Cycle]:
        """Does the steps, one after the other: the last end, and the cycle."""
        for step in steps:
            end, cycle = await self.do(step, cycle)
        return end, cycle

    async def deploy(self, commit: str, **request: object) -> Cycle:
        """Takes the commit from STAGE to FINALIZE, and lets go of the project."""
        cycle = await self.bench.cycle(commit, **request)
        _, cycle = await self.carry(cycle, CycleStep.STAGE, CycleStep.DEPLOY, CycleStep.FINALIZE)
        self.deployments.let_go(PROJECT)
        return cycle

    async def printed(self, word: str) -> list[str]:
        """The words of the last line that begins with `word`, once there is one."""
        while True:
            for line in reversed(await self.deployments.recent_lines(PROJECT, 100)):
                if line.decode().split(" ")[0] == word:
                    return line.decode().split(" ")
            await self.deployments.changed(PROJECT, timedelta(milliseconds=20))

    def run_id(self) -> str:
        """The id of the app's last run."""
        status = self.deployments.runtime(PROJECT).status
        return "" if status is None else status.run_id

    async def stop(self) -> None:
        """Ends the app, whoever holds the project."""
        await self.driver.stop(PROJECT, timedelta(0))


@asynccontextmanager
async def release_bench(directory: Path) -> AsyncIterator[ReleaseBench]:
    """A project below `directory`, whose app is ended on leaving."""
    state = directory / "s"
    state.mkdir(mode=0o700)
    zygote = ZygoteClient()
    bench = ReleaseBench(git=await make_project(directory / "g"), state=state, zygote=zygote)
    try:
        yield bench
        if bench.epoch:
            async with bench.server(held=True) as life:
                await life.stop()
    finally:
        await zygote.aclose()

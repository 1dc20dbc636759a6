"""Cycles up to MERGE on a real git remote, real commands and the engine's own worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from att_server.adapters.bootstrap_settings import TomlBootstrapSettings
from att_server.adapters.command_runner import ZygoteCommandRunner
from att_server.adapters.forge_local import LocalForges
from att_server.adapters.forges import ConfiguredForges
from att_server.adapters.git.projects import GitRepositories
from att_server.adapters.junit import JUnitDirectory
from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.bell import Bell
from att_server.core.cycles.change import encode_change
from att_server.core.cycles.cleanup import Cleanup
from att_server.core.cycles.executors import RollbackExecutors
from att_server.core.cycles.going_back import GoingBack
from att_server.core.cycles.metadata import MetadataChain
from att_server.core.cycles.model import (
    Cycle,
    CycleRequest,
    CycleState,
    CycleStep,
    Decision,
    StepStatus,
)
from att_server.core.cycles.plan import Planner
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.cycles.slots import Slots
from att_server.core.cycles.step import Hooks, Step
from att_server.core.cycles.steps.approval import ApprovalStep
from att_server.core.cycles.steps.branch import BranchStep
from att_server.core.cycles.steps.ci import CiStep
from att_server.core.cycles.steps.commit import CommitStep
from att_server.core.cycles.steps.deploy import DeployStep
from att_server.core.cycles.steps.edit import EditStep
from att_server.core.cycles.steps.finalize import FinalizeStep
from att_server.core.cycles.steps.health import HealthStep
from att_server.core.cycles.steps.merge import MergeStep
from att_server.core.cycles.steps.prepare import PrepareStep
from att_server.core.cycles.steps.pull_request import PullRequestStep
from att_server.core.cycles.steps.push import PushStep
from att_server.core.cycles.steps.stage import StageStep
from att_server.core.cycles.steps.test import TestStep
from att_server.core.cycles.steps.watchdog import WatchdogStep
from att_server.core.cycles.worker import CycleWorker, Tools
from att_server.core.model import Event, EventFilter, Project
from att_server.core.repository import Change, WriteFile
from att_server.testing import FakeClock
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.deployments import FakeDeployments
from att_server.testing.journal import MemoryJournal
from att_server.testing.state_store import MemoryStateStore
from tests.contract.git_projects import GitProject, git, make_project
from tests.server_process import PATIENCE

PROJECT = "web"
LEASE = timedelta(hours=1)
GOOD = [WriteFile(path="docs/guide.md", content=b"better\n")]


@dataclass(kw_only=True)
class ChangeBench:
    """A project with a remote, and what carries its changes to the base."""

    git: GitProject
    clock: FakeClock
    store: MemoryStateStore
    journal: MemoryJournal
    deployments: FakeDeployments
    artifacts: MemoryArtifacts
    repositories: GitRepositories
    commands: ProjectCommands
    forges: ConfiguredForges
    zygote: ZygoteClient
    state: Path
    steps: dict[CycleStep, Step] = field(default_factory=dict)
    tools: Tools | None = None
    plans: Planner | None = None
    changed: Bell = field(default_factory=Bell)

    @property
    def project(self) -> Project:
        return self.deployments.project(PROJECT)

    @property
    def planner(self) -> Planner:
        assert self.plans is not None
        return self.plans

    def base_settings(self, text: str, **files: bytes) -> str:
        """A commit on the base with this `att.toml`, and files by name with `_` for `.`."""
        given = {name.replace("_", "."): content for name, content in files.items()}
        return self.git.commit_on_remote({"att.toml": text.encode(), **given}, message="Settings")

    async def start(
        self, change: Change | None = None, *, until: CycleStep = CycleStep.MERGE, **request: object
    ) -> Cycle:
        """A cycle as a call stores it, taken by an engine."""
        cycle = Cycle(
            cycle_id=self.clock.new_id(),
            project_id=PROJECT,
            request=CycleRequest(until=until, **request),  # type: ignore[arg-type]  # its own fields
            requested_by="token:agent",
            create_time=self.clock.now(),
            steps=tuple(StepStatus(step=step) for step in CycleStep),
        )
        await self.journal.create(cycle, b"" if change is None else encode_change(change))
        return await self.taken(cycle.cycle_id)

    async def taken(self, cycle_id: str) -> Cycle:
        taken = await self.journal.take(cycle_id, "engine", lease=LEASE, force=True)
        assert taken is not None
        return taken

    async def run(self, cycle: Cycle) -> Cycle:
        """Works on the cycle until it has ended."""
        async with self.working(cycle) as worker:
            async with asyncio.timeout(PATIENCE):
                await worker.task
        return await self.stored(cycle)

    async def cycle(self, change: Change | None = GOOD, **request: object) -> Cycle:
        """A whole cycle, which ends by itself."""
        return await self.run(await self.start(change, **request))  # type: ignore[arg-type]  # as `start`

    @asynccontextmanager
    async def working(self, cycle: Cycle) -> AsyncIterator[Working]:
        """A worker at work; killed on leaving."""
        assert self.tools is not None
        worker = CycleWorker(cycle, self.tools, changed=self.changed)
        task = asyncio.create_task(worker.run())
        try:
            yield Working(worker, task)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def story(self, cycle: Cycle) -> str:
        """What became of every step, for the message of a failed assertion."""
        steps = [
            f"{each.step} {each.state} {each.reason} {dict(each.evidence)} {each.log_tail[-500:]!r}"
            for each in cycle.steps
            if each.attempt
        ]
        return "\n".join([f"{cycle.outcome} {cycle.failure}", *steps])

    async def stored(self, cycle: Cycle) -> Cycle:
        stored = await self.journal.cycle(cycle.cycle_id)
        assert stored is not None
        return stored

    async def until(self, cycle: Cycle, condition: Callable[[Cycle], object]) -> Cycle:
        """The cycle once the condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition(stored := await self.stored(cycle)):
                await asyncio.sleep(0.005)
        return stored

    async def until_awaiting(self, cycle: Cycle) -> Cycle:
        return await self.until(cycle, lambda c: c.state is CycleState.AWAITING_APPROVAL)

    async def decide(self, cycle: Cycle, *, approved: bool = True) -> None:
        assert cycle.approval is not None
        await self.journal.decide(
            cycle.cycle_id,
            Decision(
                approved=approved,
                principal="token:person",
                time=self.clock.now(),
                commit_sha=cycle.approval.commit_sha,
                plan_digest=cycle.approval.plan_digest,
            ),
        )

    async def events(self) -> list[Event]:
        found, _ = await self.store.list_events(EventFilter(), cursor=0, limit=1000)
        return list(found)

    def refs(self) -> list[str]:
        """The branches of the remote."""
        return git(self.git.remote, "for-each-ref", "--format=%(refname:short)").split()

    def left(self) -> list[str]:
        """What is left of cycles in the state directory."""
        junit = self.state / "junit"
        files = [path.name for path in junit.iterdir()] if junit.is_dir() else []
        kept = replace(self.git, state=self.state / "projects" / PROJECT)
        return [*files, *kept.left_in_state()] if kept.state.is_dir() else files


@dataclass(frozen=True, slots=True)
class Working:
    worker: CycleWorker
    task: asyncio.Task[None]


async def make_bench(
    directory: Path,
    *,
    slots: int = 2,
    environ: Mapping[str, str] | None = None,
    **changes: object,
) -> ChangeBench:
    """A project whose base has no `att.toml` yet. changes: of git's settings."""
    made = await make_project(directory, **changes)  # type: ignore[arg-type]  # of the settings
    _ = made.checkout
    state = directory / "att"
    state.mkdir(mode=0o700)
    clock = FakeClock()
    store = MemoryStateStore()
    journal = MemoryJournal(store, clock)
    zygote = ZygoteClient()
    runner = ZygoteCommandRunner(zygote)
    inherited = {"PATH": os.environ["PATH"], **(environ or {})}
    commands = ProjectCommands(runner=runner, slots=Slots(slots), clock=clock)
    repositories = GitRepositories(made.git, state)
    forges = ConfiguredForges(
        local=LocalForges(
            journal=journal,
            repositories=repositories,
            commands=commands,
            inherited_env=inherited,
        ),
        repositories=repositories,
        clock=clock,
        environ=environ or {},
    )
    bench = ChangeBench(
        git=made,
        clock=clock,
        store=store,
        journal=journal,
        deployments=FakeDeployments(clock),
        artifacts=MemoryArtifacts(),
        repositories=repositories,
        commands=commands,
        forges=forges,
        zygote=zygote,
        state=state,
    )
    bench.deployments.add(PROJECT, path=made.checkout)
    junit = JUnitDirectory(state / "junit")
    settings = TomlBootstrapSettings(state)
    metadata = MetadataChain(
        journal=bench.journal,
        deployments=bench.deployments,
        runner=runner,
        clock=clock,
        hooks=Hooks(),
        inherited_env=inherited,
    )
    steps: tuple[Step, ...] = (
        PrepareStep(
            repositories=repositories,
            settings=settings,
            metadata=metadata,
            going_back=GoingBack(
                repositories=repositories, settings=settings, journal=bench.journal
            ),
            clock=clock,
        ),
        BranchStep(repositories=repositories),
        EditStep(repositories=repositories, journal=bench.journal),
        TestStep(
            repositories=repositories, commands=commands, junit=junit, inherited_env=inherited
        ),
        CommitStep(repositories=repositories),
        PushStep(repositories=repositories, forges=forges),
        PullRequestStep(forges=forges),
        CiStep(repositories=repositories, forges=forges),
        ApprovalStep(repositories=repositories),
        MergeStep(repositories=repositories, forges=forges),
        StageStep(
            repositories=repositories,
            artifacts=bench.artifacts,
            journal=journal,
            commands=commands,
            clock=clock,
            inherited_env=inherited,
        ),
        DeployStep(
            deployments=bench.deployments,
            journal=journal,
            commands=commands,
            clock=clock,
            inherited_env=inherited,
        ),
        WatchdogStep(deployments=bench.deployments, clock=clock),
        HealthStep(deployments=bench.deployments, clock=clock),
        FinalizeStep(
            repositories=repositories,
            artifacts=bench.artifacts,
            journal=journal,
            deployments=bench.deployments,
            clock=clock,
        ),
    )
    bench.plans = Planner(
        repositories=repositories,
        settings=settings,
        steps=steps,
        forges=forges,
        questions=RollbackQuestions(
            journal=journal,
            repositories=repositories,
            artifacts=bench.artifacts,
            deployments=bench.deployments,
            executors=RollbackExecutors(runner=runner, hooks=Hooks(), inherited_env=inherited),
            metadata=metadata,
        ),
        clock=clock,
    )
    bench.steps = {step.step: step for step in steps}
    bench.tools = Tools(
        journal=bench.journal,
        steps=bench.steps,
        deployments=bench.deployments,
        cleanup=Cleanup(
            repositories=repositories,
            journal=bench.journal,
            forges=forges,
            artifacts=bench.artifacts,
            junit=junit,
            clock=clock,
        ),
        clock=clock,
        stored=Bell(),
    )
    return bench

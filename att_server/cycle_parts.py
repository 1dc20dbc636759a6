"""What cycles are done with, put together: the steps, the engine, the manager."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from att_server.core.app_users import ProjectUsers
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.bootstrap import BootstrapManager
from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.cleanup import Cleanup
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.executors import RollbackExecutors
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.going_back import GoingBack
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.leftovers import Leftovers
from att_server.core.cycles.metadata import MetadataChain
from att_server.core.cycles.plan import Planner
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettingsReader
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
from att_server.core.cycles.steps.revert import RevertStep
from att_server.core.cycles.steps.rollback import RollbackStep
from att_server.core.cycles.steps.stage import StageStep
from att_server.core.cycles.steps.test import TestStep
from att_server.core.cycles.steps.watchdog import WatchdogStep
from att_server.core.cycles.test_report import JUnitFiles
from att_server.core.dry_runs import DryRuns
from att_server.core.ports import Clock, CommandRunner, StateStore
from att_server.core.projects import ProjectManager
from att_server.core.release_list import ReleaseList
from att_server.core.repository import Repositories


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclePorts:
    """What cycles stand on. inherited_env: what commands get of the server's environment."""

    journal: CycleJournal
    store: StateStore
    repositories: Repositories
    forges: Forges
    artifacts: ArtifactStore
    junit: JUnitFiles
    settings: BootstrapSettingsReader
    runner: CommandRunner
    project_commands: ProjectCommands
    clock: Clock
    hooks: Hooks
    inherited_env: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleParts:
    """What the server needs of it."""

    engine: CycleEngine
    manager: BootstrapManager
    dry_runs: DryRuns
    releases: ReleaseList


def cycle_parts(
    ports: CyclePorts,
    *,
    projects: ProjectManager,
    users: ProjectUsers,
    deployments: Deployments,
    background: Background,
    stored: Bell,
    owner: str,
) -> CycleParts:
    """The parts, wired. owner: names the engine among all that ever were."""
    metadata = MetadataChain(
        journal=ports.journal,
        deployments=deployments,
        runner=ports.runner,
        clock=ports.clock,
        hooks=ports.hooks,
        inherited_env=ports.inherited_env,
    )
    executors = RollbackExecutors(
        runner=ports.runner, hooks=ports.hooks, inherited_env=ports.inherited_env
    )
    questions = RollbackQuestions(
        journal=ports.journal,
        repositories=ports.repositories,
        artifacts=ports.artifacts,
        deployments=deployments,
        executors=executors,
        metadata=metadata,
    )
    cleanup = Cleanup(
        repositories=ports.repositories,
        journal=ports.journal,
        forges=ports.forges,
        artifacts=ports.artifacts,
        junit=ports.junit,
        clock=ports.clock,
    )
    going_back = GoingBack(
        repositories=ports.repositories, settings=ports.settings, journal=ports.journal
    )
    steps = _steps(ports, deployments, going_back, metadata, questions, executors)
    engine = CycleEngine(
        journal=ports.journal,
        steps=steps,
        deployments=deployments,
        cleanup=cleanup,
        leftovers=Leftovers(
            journal=ports.journal,
            repositories=ports.repositories,
            artifacts=ports.artifacts,
            deployments=deployments,
            cleanup=cleanup,
        ),
        clock=ports.clock,
        background=background,
        stored=stored,
        owner=owner,
    )
    dry_runs = DryRuns(
        find_project=projects.get,
        check_user=users.check_cycles,
        planner=Planner(
            repositories=ports.repositories,
            settings=ports.settings,
            steps=steps,
            forges=ports.forges,
            questions=questions,
            clock=ports.clock,
        ),
        questions=questions,
        going_back=going_back,
    )
    manager = BootstrapManager(
        journal=ports.journal,
        store=ports.store,
        engine=engine,
        find_project=projects.get,
        check_user=users.check_cycles,
        repositories=ports.repositories,
        dry_runs=dry_runs,
        clock=ports.clock,
        stored=stored,
    )
    return CycleParts(
        engine=engine,
        manager=manager,
        dry_runs=dry_runs,
        releases=ReleaseList(journal=ports.journal, find_project=projects.get),
    )


def _steps(
    ports: CyclePorts,
    deployments: Deployments,
    going_back: GoingBack,
    metadata: MetadataChain,
    questions: RollbackQuestions,
    executors: RollbackExecutors,
) -> list[Step]:
    repositories, journal, forges = ports.repositories, ports.journal, ports.forges
    artifacts, clock, env = ports.artifacts, ports.clock, ports.inherited_env
    commands = ports.project_commands
    return [
        PrepareStep(
            repositories=repositories,
            settings=ports.settings,
            going_back=going_back,
            metadata=metadata,
            clock=clock,
        ),
        BranchStep(repositories=repositories),
        EditStep(repositories=repositories, journal=journal),
        TestStep(
            repositories=repositories,
            commands=commands,
            junit=ports.junit,
            inherited_env=env,
        ),
        CommitStep(repositories=repositories),
        PushStep(repositories=repositories, forges=forges),
        PullRequestStep(forges=forges),
        CiStep(repositories=repositories, forges=forges),
        ApprovalStep(repositories=repositories),
        MergeStep(repositories=repositories, forges=forges),
        StageStep(
            repositories=repositories,
            artifacts=artifacts,
            journal=journal,
            commands=commands,
            clock=clock,
            inherited_env=env,
        ),
        DeployStep(
            deployments=deployments,
            journal=journal,
            commands=commands,
            clock=clock,
            inherited_env=env,
        ),
        WatchdogStep(deployments=deployments, clock=clock),
        HealthStep(deployments=deployments, clock=clock),
        FinalizeStep(
            repositories=repositories,
            artifacts=artifacts,
            journal=journal,
            deployments=deployments,
            clock=clock,
        ),
        RollbackStep(
            journal=journal,
            questions=questions,
            executors=executors,
            deployments=deployments,
            clock=clock,
        ),
        RevertStep(
            repositories=repositories,
            forges=forges,
            journal=journal,
            deployments=deployments,
            clock=clock,
        ),
    ]

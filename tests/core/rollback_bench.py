"""The ways back on fakes: releases with files, a repository that knows their history, a forge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from att_server.adapters.forge_local import LocalForge, LocalForges
from att_server.core.cycles.artifacts import Manifest
from att_server.core.cycles.executors import RollbackExecutors
from att_server.core.cycles.forge import Forge, Forges
from att_server.core.cycles.metadata import MetadataChain
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.slots import Slots
from att_server.core.cycles.step import Hooks
from att_server.core.cycles.steps.revert import RevertStep
from att_server.core.cycles.steps.rollback import RollbackStep
from att_server.core.errors import AttError, Reason
from att_server.core.model import CommandResult, Project
from att_server.core.releases import ReleaseState
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Merged,
    MergeMethod,
    Moved,
    NothingToRevert,
    Repositories,
    Repository,
    RepositoryError,
    RepositoryFailure,
    Reverted,
)
from att_server.testing import FakeCommandRunner
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.commands import RanCommand
from tests.core.step_bench import NEW, OLD, PROJECT, Bench

RevertEnd = Reverted | NothingToRevert | Moved | Conflict | Exception


class History:
    """Implements what the ways back need of `Repository`.

    ancestors: by commit, what it contains besides itself. differing: by commit, what
    a look at its export finds. failures: raised by the next looks, one each.
    head: of the base. candidate: what `merge_candidate` makes.
    """

    def __init__(self) -> None:
        self.ancestors: dict[str, set[str]] = {}
        self.differing: dict[str, Sequence[str]] = {}
        self.failures: list[Exception] = []
        self.head: str | None = NEW
        self.candidate: Merged | Conflict = Conflict(paths=("app.py",))
        self.gone = False

    async def verify_export(self, commit: str, directory: Path) -> Sequence[str]:
        if self.failures:
            raise self.failures.pop(0)
        if commit not in self.differing:
            raise RepositoryError(RepositoryFailure.NOT_FOUND, f"there is no commit {commit}")
        return self.differing[commit]

    async def contains(self, descendant: str, commit: str) -> bool:
        return commit == descendant or commit in self.ancestors.get(descendant, set())

    async def fetch(self, branch: str) -> str | None:
        return self.head

    async def merge_candidate(
        self, cycle_id: str, base: str, head: str, method: MergeMethod, note: CommitNote
    ) -> Merged | Conflict:
        return self.candidate

    async def of(self, project: Project) -> Repository:
        """As `Repositories`, of which it is the only one."""
        if self.gone:
            raise AttError(Reason.PROJECT_NOT_REPOSITORY_ROOT, "There is no repository.")
        return cast("Repository", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertCall:
    branch: str
    before: str
    after: str
    message: str


class ScriptedForges:
    """Stands for `Forges`, of which it has the local one. Reverts end as they are told to."""

    def __init__(self, local: LocalForges) -> None:
        self._local = local
        self.ends: list[RevertEnd] = []
        self.reverts: list[RevertCall] = []

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        return ScriptedForge(self, self._local, project, cycle)


class ScriptedForge(LocalForge):
    def __init__(
        self, script: ScriptedForges, local: LocalForges, project: Project, cycle: Cycle
    ) -> None:
        super().__init__(local, project, cycle)
        self._script = script

    async def revert(
        self, *, branch: str, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        call = RevertCall(branch=branch, before=before, after=after, message=note.message)
        self._script.reverts.append(call)
        end = self._script.ends.pop(0) if self._script.ends else Reverted(commit="f" * 40)
        if isinstance(end, Exception):
            raise end
        return end


class RollbackBench(Bench):
    """A cycle whose release NEW has failed, and OLD, which is GOOD and has its files."""

    def __init__(
        self,
        settings: BootstrapSettings | None = None,
        *,
        hooks: Hooks | None = None,
        result: Callable[[RanCommand], CommandResult] = lambda _: CommandResult(exit_code=0),
    ) -> None:
        super().__init__(settings)
        hooks = hooks or Hooks()
        self.history = History()
        self.artifacts = MemoryArtifacts()
        self.runner = FakeCommandRunner(result)
        self.forges = ScriptedForges(
            LocalForges(
                journal=self.journal,
                repositories=cast("Repositories", self.history),
                commands=ProjectCommands(runner=self.runner, slots=Slots(1), clock=self.clock),
                inherited_env={},
            )
        )
        self.executors = RollbackExecutors(
            runner=self.runner, hooks=hooks, inherited_env={"PATH": "/bin"}
        )
        self.metadata = MetadataChain(
            journal=self.journal,
            deployments=self.deployments,
            runner=self.runner,
            clock=self.clock,
            hooks=hooks,
            inherited_env={"PATH": "/bin"},
        )
        self.questions = RollbackQuestions(
            journal=self.journal,
            repositories=cast("Repositories", self.history),
            artifacts=self.artifacts,
            deployments=self.deployments,
            executors=self.executors,
            metadata=self.metadata,
        )

    async def failed(self) -> RollbackBench:
        """NEW runs and is not healthy."""
        await self.register(
            self.release(OLD, ReleaseState.GOOD), self.release(NEW, ReleaseState.TRYING)
        )
        await self.built(OLD)
        await self.built(NEW)
        self.deployments.answers(NEW, "http_status")
        self.deployments.answers(OLD, "http_ok")
        await self.deploy()
        self.fail()
        return self

    async def built(self, release_id: str) -> None:
        """The release's files are there."""
        await self.artifacts.seal(
            PROJECT,
            Manifest(
                release_id=release_id,
                tree=f"tree-of-{release_id}",
                cycle_id="",
                create_time=self.clock.now(),
            ),
        )
        self.history.differing[release_id] = ()

    def rollback(self) -> RollbackStep:
        return RollbackStep(
            journal=self.journal,
            questions=self.questions,
            executors=self.executors,
            deployments=self.deployments,
            clock=self.clock,
        )

    def revert(self) -> RevertStep:
        return RevertStep(
            repositories=cast("Repositories", self.history),
            forges=cast("Forges", self.forges),
            journal=self.journal,
            deployments=self.deployments,
            clock=self.clock,
        )

    def with_result(self, **changes: object) -> None:
        result = replace(self.cycle.result, **changes)  # type: ignore[arg-type] # its fields
        self.cycle = replace(self.cycle, result=result)

    def with_facts(self, **changes: object) -> None:
        facts = replace(self.cycle.facts, **changes)  # type: ignore[arg-type] # its fields
        self.cycle = replace(self.cycle, facts=facts)

    @property
    def switches(self) -> list[str]:
        return [release_id for _, release_id, _ in self.deployments.switched]

    @property
    def mode(self) -> tuple[str, str]:
        project = self.deployments.project(PROJECT)
        return str(project.mode), project.mode_reason

    def told(self) -> list[str]:
        return [event.event_type for event in self.events]

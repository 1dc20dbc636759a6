"""RollbackQuestions: what the rollback policy is asked, whoever asks.

A cycle that failed, a person's rollback and a dry run are asked about on one way,
so that a dry run says what a run does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.executors import RollbackExecutors
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.metadata import MetadataChain
from att_server.core.cycles.model import Cycle, CycleKind, CycleRequest
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.errors import AttError
from att_server.core.failure_class import Failure, FailureClass
from att_server.core.model import Project
from att_server.core.release_metadata import (
    MetadataSource,
    NamedRelease,
    ReleaseMetadata,
    registry_metadata,
    resolve,
    rollback_target,
)
from att_server.core.releases import DeploymentContext, Release
from att_server.core.repository import (
    Repositories,
    RepositoryError,
    RepositoryFailure,
    is_sha,
)
from att_server.core.rollback_policy import ArtifactState, Question

PLANNED = "planned"
"""Stands for the id of the release that a plan would deploy: it is not known yet."""

_LOOKS = 3
"""At a directory, where git is killed in the middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A rollback that is asked about.

    deployed: the id of what is to be left; empty: nothing was switched to.
    previous: what is known of the release before, besides what the registry says.
    """

    project: Project
    context: DeploymentContext
    settings: BootstrapSettings
    failure: Failure | None
    deployed: str
    rollback_release_id: str
    previous: Mapping[MetadataSource, ReleaseMetadata] = field(default_factory=dict)
    old_release_runs: bool = False
    incident_attempts: int = 0


class RollbackQuestions:
    """Gathers what the policy looks at; changes nothing.

    All raise RepositoryError with an external cause where the target's files cannot
    be looked at just now.
    """

    def __init__(
        self,
        *,
        journal: CycleJournal,
        repositories: Repositories,
        artifacts: ArtifactStore,
        deployments: Deployments,
        executors: RollbackExecutors,
        metadata: MetadataChain,
    ) -> None:
        self._journal = journal
        self._repositories = repositories
        self._artifacts = artifacts
        self._deployments = deployments
        self._executors = executors
        self._metadata = metadata

    async def of_cycle(
        self, cycle: Cycle, project: Project, settings: BootstrapSettings
    ) -> Question:
        """What a cycle asks: one that failed, or a person's rollback."""
        facts, request = cycle.facts, cycle.request
        by_person = cycle.kind is CycleKind.ROLLBACK
        failure = None
        if cycle.failure is not None and not by_person:
            failure = Failure(
                failure_class=cycle.failure.failure_class,
                external_cause=cycle.failure.external_cause,
            )
        if by_person:
            deployed = await self.deployed(project, request.deployment_context)
            previous = await self._asked(project, request, settings, deployed)
        else:
            deployed = facts.release_id if facts.cut_over else ""
            previous = _remembered(cycle)
        return await self._question(
            _Wish(
                project=project,
                context=request.deployment_context,
                settings=settings,
                failure=failure,
                deployed=deployed,
                rollback_release_id=request.rollback_release_id,
                previous=previous,
                old_release_runs=not by_person and self._old_release_runs(cycle),
                incident_attempts=int(cycle.result.rollback_performed),
            )
        )

    async def of_project(
        self,
        project: Project,
        settings: BootstrapSettings,
        *,
        context: DeploymentContext,
        target_release_id: str = "",
        failure_class: FailureClass | None = None,
    ) -> Question:
        """What a rollback of what is deployed now would ask.

        failure_class: that it is wanted for; None: a person asks. target_release_id:
        empty: it is found.
        """
        deployed = await self.deployed(project, context)
        request = CycleRequest(deployment_context=context, rollback_release_id=target_release_id)
        return await self._question(
            _Wish(
                project=project,
                context=context,
                settings=settings,
                failure=None if failure_class is None else Failure(failure_class=failure_class),
                deployed=deployed,
                rollback_release_id=target_release_id,
                previous=await self._asked(project, request, settings, deployed),
            )
        )

    async def of_plan(
        self,
        project: Project,
        request: CycleRequest,
        settings: BootstrapSettings,
        *,
        base_commit: str = "",
    ) -> Question:
        """What the cycle would ask if the release that it deploys were not healthy."""
        metadata = await self._metadata.before_change(
            project, request, settings, base_commit=base_commit
        )
        previous = metadata.resolved.previous_release_id
        return await self._question(
            _Wish(
                project=project,
                context=request.deployment_context,
                settings=settings,
                failure=Failure(failure_class=FailureClass.HEALTH_FAILURE),
                deployed=request.requested_release_id or request.commit or PLANNED,
                rollback_release_id=request.rollback_release_id,
                previous=_named(previous),
            )
        )

    async def deployed(self, project: Project, context: DeploymentContext) -> str:
        """The id of what is deployed now; empty: nothing that is known.

        What an external context runs, only the registry knows: the last one that
        was switched to.
        """
        if context is DeploymentContext.SELF_HOSTED:
            return project.release_id
        releases = await self._journal.releases(project.project_id)
        switched = [each for each in releases if each.deploy_time is not None]
        last = max(switched, key=lambda each: each.deploy_time or each.create_time, default=None)
        return "" if last is None else last.release_id

    async def _asked(
        self,
        project: Project,
        request: CycleRequest,
        settings: BootstrapSettings,
        deployed: str,
    ) -> Mapping[MetadataSource, ReleaseMetadata]:
        """What the sources say that a failed cycle has asked before it changed anything."""
        metadata = await self._metadata.of_deployed(
            project, request, settings, deployed_release_id=deployed, lazy=True
        )
        return _named(metadata.resolved.previous_release_id)

    async def _question(self, wish: _Wish) -> Question:
        project_id = wish.project.project_id
        releases = await self._journal.releases(project_id)
        target = _target(wish, releases)
        artifacts: dict[str, ArtifactState] = {}
        if target is not None and wish.context is DeploymentContext.SELF_HOSTED:
            artifacts[target.release_id] = await self._artifact(wish.project, target.release_id)
        return Question(
            project_id=project_id,
            mode=wish.project.mode,
            context=wish.context,
            settings=wish.settings.rollback,
            failure=wish.failure,
            deployed_release_id=wish.deployed,
            old_release_runs=wish.old_release_runs,
            target=target,
            releases=releases,
            artifacts=artifacts,
            executors=self._executors.available(wish.settings),
            incident_attempts=wish.incident_attempts,
            window_attempts=await self._journal.automatic_rollbacks(
                project_id, wish.settings.rollback.window
            ),
        )

    async def _artifact(self, project: Project, release_id: str) -> ArtifactState:
        """What a look at the target's directory and commit finds, read afresh."""
        # Not made here: a source of metadata, or a person, may name anything.
        if not is_sha(release_id):
            return ArtifactState.DIRECTORY_MISSING
        if await self._artifacts.manifest(project.project_id, release_id) is None:
            return ArtifactState.DIRECTORY_MISSING
        directory = self._artifacts.directory(project.project_id, release_id)
        for look in range(_LOOKS):
            try:
                repository = await self._repositories.of(project)
                differing = await repository.verify_export(release_id, directory)
            except AttError:
                # The checkout, and with it the repository, is gone or moved.
                return ArtifactState.NOT_CHECKED
            except RepositoryError as error:
                if error.failure is RepositoryFailure.NOT_FOUND:
                    return ArtifactState.COMMIT_MISSING
                if not error.failure.external:
                    return ArtifactState.NOT_CHECKED
                if look == _LOOKS - 1:
                    raise
            else:
                return ArtifactState.CHANGED if differing else ArtifactState.VERIFIED
        raise AssertionError("the last look returns or raises")

    def _old_release_runs(self, cycle: Cycle) -> bool:
        """Whether the run that DEPLOY found still goes on: the switch failed before its end."""
        status = self._deployments.runtime(cycle.project_id).status
        return (
            status is not None
            and status.state.alive
            and status.exit is None
            and bool(cycle.facts.run_before)
            and status.run_id == cycle.facts.run_before
        )


def _target(wish: _Wish, releases: Sequence[Release]) -> NamedRelease | None:
    """The registry is asked anew: what PREPARE found may be what is deployed now."""
    answers = {
        **wish.previous,
        MetadataSource.REGISTRY: registry_metadata(releases, deployed_release_id=wish.deployed),
    }
    return rollback_target(rollback_release_id=wish.rollback_release_id, metadata=resolve(answers))


def _remembered(cycle: Cycle) -> Mapping[MetadataSource, ReleaseMetadata]:
    """What PREPARE was told; an app that fails now is not asked where it wants to go back to."""
    facts = cycle.facts
    if not facts.previous_release_id or facts.previous_release_source not in set(MetadataSource):
        return {}
    return _named(
        NamedRelease(
            release_id=facts.previous_release_id,
            source=MetadataSource(facts.previous_release_source),
        )
    )


def _named(named: NamedRelease | None) -> Mapping[MetadataSource, ReleaseMetadata]:
    if named is None:
        return {}
    return {named.source: ReleaseMetadata(previous_release_id=named.release_id)}

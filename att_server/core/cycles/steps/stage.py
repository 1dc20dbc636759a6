"""STAGE: the merged commit becomes a release, built at the path that it will run from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from att_server.core.cycles.artifacts import ArtifactStore, Manifest
from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import CycleFacts, CycleStep
from att_server.core.cycles.project_commands import (
    ProjectCommands,
    command_evidence,
    command_failure,
)
from att_server.core.cycles.step import Asked, Done, Failed, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.release_events import state_event
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.ports import Clock
from att_server.core.releases import Release, bad_twin
from att_server.core.repository import Repositories, Repository

_NAMED_PATHS = 10
"""How many of the paths that are wrong are told."""


class StageStep(Step):
    """Exports and builds the release, or takes the one that is there and whole.

    What is no release yet is never repaired: it is made anew. The manifest comes
    last, so a release that is there is complete; it is compared with its commit
    all the same, since its app could write to it.
    """

    step = CycleStep.STAGE
    failure_class = FailureClass.STAGE_FAILURE
    interruptible = True

    def __init__(
        self,
        *,
        repositories: Repositories,
        artifacts: ArtifactStore,
        journal: CycleJournal,
        commands: ProjectCommands,
        clock: Clock,
        inherited_env: Mapping[str, str],
    ) -> None:
        """inherited_env: what apps get of the server's environment."""
        self._repositories = repositories
        self._artifacts = artifacts
        self._journal = journal
        self._commands = commands
        self._clock = clock
        self._inherited_env = inherited_env

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`."""
        return asked.not_run_here

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        project_id = work.cycle.project_id
        repository = await self._repositories.of(work.project)
        release_id = release_commit(work.cycle.facts)
        tree = (await repository.fetch_commit(release_id)).tree
        wanted = Release(
            release_id=release_id,
            project_id=project_id,
            tree_sha=tree,
            cycle_id=work.cycle.cycle_id,
            state_time=work.now,
            create_time=work.now,
            data_version=work.settings.release.data_version,
            min_data_version=work.settings.release.min_data_version,
        )
        known = await self._journal.releases(project_id)
        pardoned: dict[str, Release] = {}
        if work.cycle.request.override_bad:
            bad_ones = [each for each in known if bad_twin(wanted, [each])]
            pardoned = {each.release_id: each.pardoned(work.now) for each in bad_ones}
        elif (bad := bad_twin(wanted, known)) is not None:
            told = {"bad_release_id": bad.release_id, "bad_reason": bad.reason}
            return _failed("release_marked_bad", evidence=told)
        stage = _Stage(
            work=work,
            repository=repository,
            release_id=release_id,
            tree=tree,
            directory=self._artifacts.directory(project_id, release_id),
        )
        leaves = await self._stage(stage)
        if isinstance(leaves, Failed):
            return leaves
        found = {each.release_id: each for each in known} | pardoned
        release = found.get(release_id, wanted).rebuilt()
        begun = {**({} if release_id in found else {release_id: release}), **pardoned}
        return Done(
            leaves=replace(
                leaves,
                facts=replace(work.cycle.facts, release_id=release_id),
                releases=tuple((pardoned | {release_id: release}).values()),
                events=(*leaves.events, *map(state_event, begun.values())),
            )
        )

    async def _stage(self, stage: _Stage) -> Leaves | Failed:
        """Makes the release, or finds it whole."""
        project_id, release_id = stage.work.cycle.project_id, stage.release_id
        evidence = {"release_id": release_id, "directory": str(stage.directory)}
        if await self._artifacts.manifest(project_id, release_id) is not None:
            changed = await stage.repository.verify_export(release_id, stage.directory)
            if not changed:
                await stage.repository.pin(release_id)
                return Leaves(evidence={**evidence, "reused": "true"})
            if await self._artifacts.current(project_id) == release_id:
                # Its app may run there: it is not taken away under it.
                return _failed("running_release_changed", evidence=_paths(changed))
        try:
            made = await self._make(stage)
        except _PathNotShared as error:
            made = _failed("shared_path_in_tree", evidence={"error": str(error)})
        if isinstance(made, Failed):
            await self._artifacts.discard(project_id, release_id)
            return made
        await stage.repository.pin(release_id)
        await self._artifacts.seal(project_id, self._manifest(stage))
        return replace(made, evidence={**evidence, **made.evidence})

    async def _make(self, stage: _Stage) -> Leaves | Failed:
        """Exports and builds. Raises _PathNotShared."""
        settings = stage.work.settings.release
        if not settings.build:
            await self._export(stage)
            return Leaves()
        cycle = stage.work.cycle
        command = {"command": " ".join(settings.build), "release_id": stage.release_id}
        started = Event(event_type="build.started", time=self._clock.now(), attributes=command)
        await stage.work.note(Leaves(events=(started,)))
        env = command_env(
            self._inherited_env,
            {**settings.env, "ATT_RELEASE_ID": stage.release_id},
            project_id=cycle.project_id,
            cycle_id=cycle.cycle_id,
        )
        result, took = await self._commands.run(
            settings.build,
            directory=lambda: self._export(stage),
            env=env,
            timeout=settings.build_timeout,
        )
        evidence = {"build_seconds": f"{took.total_seconds():.3f}", **command_evidence(result)}
        reason = command_failure(result)
        if not reason:
            # Else no look at the release could tell what its app has changed since.
            changed = await stage.repository.verify_export(stage.release_id, stage.directory)
            if changed:
                reason = "build_changed_files"
                evidence |= _paths(changed)
        completed = Event(
            event_type="build.completed",
            time=self._clock.now(),
            reason=reason,
            attributes={**command, **evidence},
        )
        leaves = Leaves(evidence=evidence, log_tail=result.output, events=(completed,))
        return _failed(reason, leaves=leaves) if reason else leaves

    async def _export(self, stage: _Stage) -> Path:
        """Makes the directory hold the commit's files and the links, and nothing else."""
        project_id = stage.work.cycle.project_id
        await self._artifacts.discard(project_id, stage.release_id)
        await stage.repository.export(stage.release_id, stage.directory)
        shared = stage.work.settings.release.shared
        try:
            await self._artifacts.link_shared(project_id, stage.release_id, shared)
        except ValueError as error:
            raise _PathNotShared(str(error)) from error
        return stage.directory

    def _manifest(self, stage: _Stage) -> Manifest:
        settings = stage.work.settings.release
        return Manifest(
            release_id=stage.release_id,
            tree=stage.tree,
            cycle_id=stage.work.cycle.cycle_id,
            create_time=self._clock.now(),
            build=settings.build,
            shared=settings.shared,
            facts={
                "data_version": str(settings.data_version),
                "min_data_version": str(settings.min_data_version),
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """What is staged, and where."""

    work: StepWork
    repository: Repository
    release_id: str
    tree: str
    directory: Path


class _PathNotShared(Exception):
    """A path that is to be shared is in the release's tree, or leads out of it."""


def release_commit(facts: CycleFacts) -> str:
    """The commit that is released: what the base has got, never what it had before."""
    return facts.merged_commit or facts.commit


def _failed(
    reason: str, *, evidence: Mapping[str, str] | None = None, leaves: Leaves | None = None
) -> Failed:
    left = leaves or Leaves(evidence=evidence or {})
    return Failed(failure_class=FailureClass.STAGE_FAILURE, reason=reason, leaves=left)


def _paths(changed: Sequence[str]) -> dict[str, str]:
    return {
        "changed_files": str(len(changed)),
        "first_changed_files": ", ".join(changed[:_NAMED_PATHS]),
    }

"""PREPARE: the base, its settings, and which release is deployed until now."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.gates import ApprovalReason
from att_server.core.cycles.going_back import GoingBack
from att_server.core.cycles.metadata import MetadataChain
from att_server.core.cycles.model import CycleFacts, CycleKind, CycleStep
from att_server.core.cycles.settings import BootstrapSettingsReader
from att_server.core.cycles.starting_point import NoStart, StartingPoint, find_start
from att_server.core.cycles.step import Done, Failed, Leaves, Step, StepEnd, StepWork
from att_server.core.failure_class import FailureClass
from att_server.core.ports import Clock
from att_server.core.repository import Repositories


class PrepareStep(Step):
    """Records what everything after it goes by."""

    step = CycleStep.PREPARE
    failure_class = FailureClass.PREPARE_FAILURE
    interruptible = True

    def __init__(
        self,
        *,
        repositories: Repositories,
        settings: BootstrapSettingsReader,
        going_back: GoingBack,
        metadata: MetadataChain,
        clock: Clock,
    ) -> None:
        self._repositories = repositories
        self._settings = settings
        self._going_back = going_back
        self._metadata = metadata
        self._clock = clock

    async def run(self, work: StepWork) -> StepEnd:
        """Looks at the remote, and asks the sources of release metadata."""
        if work.cycle.kind is CycleKind.ROLLBACK:
            return await self._to_go_back(work)
        try:
            repository = await self._repositories.of(work.project)
            start = await find_start(
                repository, self._settings, work.project.project_id, work.cycle.request
            )
        except NoStart as error:
            return Failed(
                failure_class=self.failure_class,
                reason=error.reason,
                leaves=Leaves(evidence={"error": error.message}),
            )
        facts = _facts(work.cycle.facts, start)
        evidence = {"base_branch": start.base_branch, "base_commit": start.base_commit}
        metadata = await self._metadata.before_change(
            work.project, work.cycle.request, start.settings, base_commit=start.base_commit
        )
        facts = replace(
            facts,
            previous_release_id=metadata.previous_release_id,
            previous_release_source=metadata.sources.get("previous_release_id", ""),
        )
        result = replace(
            work.cycle.result,
            release_metadata_source=metadata.sources,
            commit_sha=facts.commit,
        )
        return Done(
            leaves=Leaves(
                facts=facts,
                result=result,
                evidence=evidence,
                events=metadata.events(self._clock),
            )
        )

    async def _to_go_back(self, work: StepWork) -> StepEnd:
        """A rollback does not wait for a remote: without one it goes by what is remembered."""
        way = await self._going_back.find(work.project, work.cycle.request)
        facts = replace(
            work.cycle.facts,
            base_branch=way.settings.base_branch,
            base_commit=way.base_commit,
            settings=way.settings,
        )
        evidence = {
            "base_branch": way.settings.base_branch,
            "base_commit": way.base_commit,
            "base_unknown": way.problem,
        }
        told = {name: value for name, value in evidence.items() if value}
        return Done(leaves=Leaves(facts=facts, evidence=told))


def _facts(facts: CycleFacts, start: StartingPoint) -> CycleFacts:
    commit = start.commit
    return replace(
        facts,
        base_branch=start.base_branch,
        base_commit=start.base_commit,
        settings=start.settings,
        approval_reason=ApprovalReason.OTHER_BASE_BRANCH if start.other_base else "",
        commit="" if commit is None else commit.sha,
        tree="" if commit is None else commit.tree,
        merged_commit=commit.sha if commit is not None and start.on_base else "",
        merged_tree=commit.tree if commit is not None and start.on_base else "",
    )

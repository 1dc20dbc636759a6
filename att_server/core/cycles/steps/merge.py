"""MERGE: the base contains the change, and what it holds then was tested."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.commit_note import merge_note
from att_server.core.cycles.course import AUTO_MERGE_DISABLED
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.model import CycleFacts, CycleStep
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.starting_point import COMMIT_IS_ON_BASE
from att_server.core.cycles.step import (
    Again,
    Asked,
    Done,
    Failed,
    Leaves,
    Skipped,
    Step,
    StepEnd,
    StepWork,
)
from att_server.core.cycles.steps.conflict import merge_conflict
from att_server.core.cycles.steps.on_base import is_on_base
from att_server.core.cycles.steps.under_test import under_test
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.repository import (
    Conflict,
    Merged,
    MergeMethod,
    Repositories,
    Repository,
)

MAX_RETESTS = 3
MAX_TRIES = 10
"""Of pushing to a base that moves, where nothing has to be tested in between."""


class MergeStep(Step):
    """Merges by compare-and-swap on the base for which the tree was tested."""

    step = CycleStep.MERGE
    failure_class = FailureClass.MERGE_FAILURE
    interruptible = False

    def __init__(self, *, repositories: Repositories, forges: Forges) -> None:
        self._repositories = repositories
        self._forges = forges

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`."""
        return "" if asked.settings.auto_merge_on_ci_success else AUTO_MERGE_DISABLED

    async def run(self, work: StepWork) -> StepEnd:
        """Merges, or goes back to TEST with what the moved base makes of the change."""
        repository = await self._repositories.of(work.project)
        if is_on_base(work.cycle):
            return await self._there_already(work, repository)
        forge = await self._forges.of(work.project, work.cycle)
        facts = work.cycle.facts
        for _ in range(MAX_TRIES):
            before = under_test(facts).base
            # Whoever pushes next is sure of it: the lease is checked right before.
            await work.note(Leaves(facts=facts))
            merged = await forge.merge(
                facts.commit, expected=before, note=merge_note(work.cycle, work.settings)
            )
            if isinstance(merged, Conflict):
                return merge_conflict(merged)
            if isinstance(merged, Merged):
                as_tested = merged.ours and merged.before == before
                if as_tested or self._is_tested(work, merged.tree):
                    return _done(work, facts, merged)
                # Somebody merged it, or onto a base that had moved: nobody has tested that.
                reason = "base_moved" if merged.ours else "merged_by_another"
                facts = _with_merge(facts, merged) if merged.ours else facts
                return self._again(facts, merged, reason)
            base = await repository.fetch(facts.base_branch)
            if base is None:
                return self._failed("base_branch_missing", "The remote has no base any more.")
            made = await repository.merge_candidate(
                work.cycle.cycle_id,
                base,
                facts.commit,
                self._candidate_method(work.settings),
                merge_note(work.cycle, work.settings),
            )
            if isinstance(made, Conflict):
                return merge_conflict(made)
            # A forge knows only what was pushed, and may want that to contain the base.
            if self._forges.polled(work.settings) or not self._is_tested(work, made.tree):
                return self._again(facts, made, "base_moved")
            facts = _on(facts, made)
        return self._keeps_moving(facts)

    def _candidate_method(self, settings: BootstrapSettings) -> MergeMethod:
        """A forge is shown the candidate on the cycle's branch, whose commits are to stay on it."""
        return MergeMethod.MERGE if self._forges.polled(settings) else settings.merge_method

    def _is_tested(self, work: StepWork, tree: str) -> bool:
        settings = work.settings
        judged = bool(settings.test.command or settings.ci.command) or self._forges.polled(settings)
        return not judged or tree == work.cycle.facts.tested_tree

    def _again(self, facts: CycleFacts, made: Merged, reason: str) -> StepEnd:
        if facts.retests >= MAX_RETESTS:
            return self._keeps_moving(facts)
        facts = replace(_on(facts, made), retests=facts.retests + 1)
        evidence = {"base": made.before, "candidate": made.commit, "retests": str(facts.retests)}
        return Again(
            step=CycleStep.TEST, reason=reason, leaves=Leaves(facts=facts, evidence=evidence)
        )

    def _keeps_moving(self, facts: CycleFacts) -> Failed:
        failed = self._failed(
            "base_keeps_moving",
            "Whenever the change was ready to be merged, the base had moved. Ask for it again.",
        )
        return replace(failed, leaves=replace(failed.leaves, facts=facts))

    async def _there_already(self, work: StepWork, repository: Repository) -> Skipped:
        facts = work.cycle.facts
        parents = (await repository.fetch_commit(facts.commit)).parents
        leaves = Leaves(
            facts=replace(facts, base_before=parents[0] if parents else ""),
            result=replace(work.cycle.result, merged=True, merge_commit_sha=facts.commit),
        )
        return Skipped(reason=COMMIT_IS_ON_BASE, leaves=leaves)

    def _failed(self, reason: str, message: str) -> Failed:
        leaves = Leaves(evidence={"error": message})
        return Failed(failure_class=self.failure_class, reason=reason, leaves=leaves)


def _on(facts: CycleFacts, made: Merged) -> CycleFacts:
    """With this merge as what is under test."""
    return replace(
        facts, candidate=made.commit, candidate_base=made.before, candidate_tree=made.tree
    )


def _with_merge(facts: CycleFacts, merged: Merged) -> CycleFacts:
    """With this merge as what brought the change to the base."""
    return replace(
        facts,
        base_before=merged.before,
        merged_commit=merged.commit,
        merged_tree=merged.tree,
        merged_here=merged.ours,
    )


def _done(work: StepWork, facts: CycleFacts, merged: Merged) -> Done:
    attributes = {
        "commit": merged.commit,
        "base": facts.base_branch,
        "before": merged.before,
        "url": facts.pull_request,
    }
    return Done(
        leaves=Leaves(
            facts=_with_merge(facts, merged),
            result=replace(work.cycle.result, merged=True, merge_commit_sha=merged.commit),
            evidence={name: value for name, value in attributes.items() if value},
            events=(Event(event_type="git.pr.merged", time=work.now, attributes=attributes),),
        )
    )

"""EDIT: the change becomes a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from att_server.core.cycles.change import decode_change
from att_server.core.cycles.commit_note import merge_note
from att_server.core.cycles.gates import plan_digest
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import CycleFacts, CycleStep
from att_server.core.cycles.starting_point import COMMIT_IS_ON_BASE
from att_server.core.cycles.step import (
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
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.repository import ChangedPath, Conflict, Repositories, Repository

_REFUSED = {Reason.EDIT_PATH_INVALID, Reason.PATCH_DOES_NOT_APPLY}
_SHOWN_PATHS = 50
_SHOWN_LENGTH = 200


class EditStep(Step):
    """Makes the tree in the object store; no file is written. The stored change goes with it.

    For a commit that is given it still names the plan.
    """

    step = CycleStep.EDIT
    failure_class = FailureClass.EDIT_FAILURE
    interruptible = True

    def __init__(self, *, repositories: Repositories, journal: CycleJournal) -> None:
        self._repositories = repositories
        self._journal = journal

    async def run(self, work: StepWork) -> StepEnd:
        """Applies the change to the base."""
        cycle, facts = work.cycle, work.cycle.facts
        repository = await self._repositories.of(work.project)
        if cycle.request.commit:
            return await self._given(work, repository)
        stored = await self._journal.change(cycle.cycle_id)
        if not stored:
            return self._refused("no_change", "The request holds no change. Give one.")
        try:
            applied = await repository.apply(
                cycle.cycle_id, facts.base_commit, decode_change(stored)
            )
        except AttError as error:
            if error.reason not in _REFUSED:
                raise
            return self._refused(error.reason.lower(), error.message, **error.metadata)
        if not applied.paths:
            return self._refused("no_change", "The base holds all of the change already.")
        return Done(
            leaves=Leaves(
                facts=_planned(work, replace(facts, tree=applied.tree)),
                evidence={"tree": applied.tree, **_shown(applied.paths)},
                events=(
                    Event(
                        event_type="code.changed",
                        time=work.now,
                        attributes={"tree": applied.tree, **_shown(applied.paths)},
                    ),
                ),
                drop_change=True,
            )
        )

    async def _given(self, work: StepWork, repository: Repository) -> StepEnd:
        """For a commit that exists: what would come of merging it, where the base went on."""
        facts = work.cycle.facts
        if is_on_base(work.cycle):
            return Skipped(reason=COMMIT_IS_ON_BASE, leaves=Leaves(facts=_planned(work, facts)))
        if not await repository.contains(facts.commit, facts.base_commit):
            merged = await repository.merge_candidate(
                work.cycle.cycle_id,
                facts.base_commit,
                facts.commit,
                work.settings.merge_method,
                merge_note(work.cycle, work.settings),
            )
            if isinstance(merged, Conflict):
                return merge_conflict(merged)
            facts = replace(
                facts,
                candidate=merged.commit,
                candidate_base=facts.base_commit,
                candidate_tree=merged.tree,
            )
        if not await repository.changed_paths(
            facts.base_commit, facts.candidate_tree or facts.tree
        ):
            return self._refused("no_change", "The commit holds the same files as the base.")
        return Skipped(reason="commit_given", leaves=Leaves(facts=_planned(work, facts)))

    def _refused(self, reason: str, message: str, **facts: str) -> Failed:
        evidence = {name: value for name, value in facts.items() if value}
        return Failed(
            failure_class=self.failure_class,
            reason=reason,
            leaves=Leaves(evidence={**evidence, "error": message}, drop_change=True),
        )


def _planned(work: StepWork, facts: CycleFacts) -> CycleFacts:
    digest = plan_digest(
        work.settings, work.cycle.request, base_commit=facts.base_commit, tree=facts.tree
    )
    return replace(facts, plan_digest=digest)


def _shown(paths: Sequence[ChangedPath]) -> dict[str, str]:
    names = [_one_line(each.path) for each in paths[:_SHOWN_PATHS]]
    return {"files": str(len(paths)), "paths": ", ".join(names)}


def _one_line(path: str) -> str:
    return (
        path if path.isprintable() and len(path) <= _SHOWN_LENGTH else ascii(path[:_SHOWN_LENGTH])
    )

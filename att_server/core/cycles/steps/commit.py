"""COMMIT: the tree of EDIT becomes a commit on the base."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.commit_note import change_message, commit_note
from att_server.core.cycles.model import CycleStep
from att_server.core.cycles.step import Asked, Done, Leaves, Step, StepEnd, StepWork
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.repository import Repositories


class CommitStep(Step):
    """Makes the commit, which is the same however often it is made.

    What tests left behind is not in it.
    """

    step = CycleStep.COMMIT
    failure_class = FailureClass.COMMIT_FAILURE
    interruptible = True

    def __init__(self, *, repositories: Repositories) -> None:
        self._repositories = repositories

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`."""
        return "commit_given" if asked.request.commit else ""

    async def run(self, work: StepWork) -> StepEnd:
        """Makes the commit here."""
        cycle, facts = work.cycle, work.cycle.facts
        repository = await self._repositories.of(work.project)
        changed = await repository.changed_paths(facts.base_commit, facts.tree)
        message = change_message(cycle, [each.path for each in changed])
        commit = await repository.commit(
            cycle.cycle_id, facts.tree, facts.base_commit, commit_note(cycle, message)
        )
        made = Event(
            event_type="git.commit",
            time=work.now,
            attributes={"commit": commit, "tree": facts.tree},
        )
        return Done(
            leaves=Leaves(
                facts=replace(facts, commit=commit),
                result=replace(cycle.result, commit_sha=commit, committed=True),
                evidence={"commit": commit},
                events=() if facts.commit == commit else (made,),
            )
        )

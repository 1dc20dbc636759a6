"""PUSH: the cycle's branch is on the remote, at its commit, or at what is to be checked."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.forge import Forges
from att_server.core.cycles.model import CycleStep
from att_server.core.cycles.starting_point import COMMIT_IS_ON_BASE
from att_server.core.cycles.step import Done, Leaves, Skipped, Step, StepEnd, StepWork
from att_server.core.cycles.steps.branch import branch_exists
from att_server.core.cycles.steps.on_base import is_on_base
from att_server.core.cycles.steps.under_test import under_test
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.repository import Moved, Repositories


class PushStep(Step):
    """Makes the branch by compare-and-swap: one that is there at another commit stays.

    Where a forge checks what the branch is at, the branch follows what is under test.
    """

    step = CycleStep.PUSH
    failure_class = FailureClass.PUSH_FAILURE
    interruptible = True

    def __init__(self, *, repositories: Repositories, forges: Forges) -> None:
        self._repositories = repositories
        self._forges = forges

    async def run(self, work: StepWork) -> StepEnd:
        """Pushes the commit."""
        if is_on_base(work.cycle):
            return Skipped(reason=COMMIT_IS_ON_BASE)
        cycle, facts = work.cycle, work.cycle.facts
        repository = await self._repositories.of(work.project)
        wanted = self._wanted(work)
        if wanted == facts.merged_commit:
            # It came to the base on another one than was tested: there it is to be checked.
            return Skipped(reason="merged_already")
        if not facts.branch_pushed:
            # A commit of ours nobody else can have pushed; one that was given, anybody.
            there = cycle.request.commit and await repository.remote_branch(facts.branch)
            if there != facts.commit:
                facts = replace(facts, branch_pushed=True)
                # Stored before, so that a branch which a killed server pushed is removed.
                await work.note(Leaves(facts=facts))
        at = facts.branch_head or None
        pushed = await repository.push(facts.branch, wanted, expected=at)
        if isinstance(pushed, Moved):
            failure = branch_exists(facts.branch, pushed.actual or "")
            mine = replace(facts, branch_pushed=False)
            return replace(failure, leaves=replace(failure.leaves, facts=mine))
        facts = replace(facts, branch_head=wanted)
        evidence = {"branch": facts.branch, "commit": wanted}
        event = Event(event_type="git.push", time=work.now, attributes=evidence)
        return Done(
            leaves=Leaves(
                facts=facts,
                result=replace(cycle.result, pushed=True),
                evidence=evidence,
                # Once, also where a moved base leads here again.
                events=() if cycle.result.pushed and (at or facts.commit) == wanted else (event,),
            )
        )

    def _wanted(self, work: StepWork) -> str:
        facts = work.cycle.facts
        return under_test(facts).commit if self._forges.polled(work.settings) else facts.commit

"""BRANCH: the name of the cycle's branch, free on the remote."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.branch_names import branch_violation
from att_server.core.cycles.model import Cycle, CycleStep
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
from att_server.core.cycles.steps.on_base import is_on_base
from att_server.core.failure_class import FailureClass
from att_server.core.repository import Repositories


class BranchStep(Step):
    """Chooses the branch. It is made on the remote by PUSH, at the finished commit.

    Where a name cannot be had this is said before any test has run.
    """

    step = CycleStep.BRANCH
    failure_class = FailureClass.PUSH_FAILURE
    interruptible = True

    def __init__(self, *, repositories: Repositories) -> None:
        self._repositories = repositories

    async def run(self, work: StepWork) -> StepEnd:
        """Looks whether the name is free."""
        if is_on_base(work.cycle):
            return Skipped(reason=COMMIT_IS_ON_BASE)
        facts = work.cycle.facts
        branch = branch_name(work.cycle)
        if violation := branch_violation(branch):
            return self._refused("branch_invalid", f"The branch name {branch!a} {violation}.")
        if branch == facts.base_branch:
            return self._refused(
                "branch_is_base", f"{branch} is the base; the change needs a branch of its own."
            )
        repository = await self._repositories.of(work.project)
        actual = await repository.remote_branch(branch)
        if actual is not None and actual != facts.commit:
            return branch_exists(branch, actual)
        return Done(
            leaves=Leaves(
                facts=replace(facts, branch=branch),
                result=replace(work.cycle.result, branch_name=branch),
                evidence={"branch": branch},
            )
        )

    def _refused(self, reason: str, message: str) -> Failed:
        leaves = Leaves(evidence={"error": message})
        return Failed(failure_class=self.failure_class, reason=reason, leaves=leaves)


def branch_name(cycle: Cycle) -> str:
    """The name that was asked for, or one of the cycle's own."""
    return cycle.request.branch_name or f"att/{cycle.cycle_id.lower()}"


def branch_exists(branch: str, actual: str) -> Failed:
    """The failure for a branch that is somebody else's."""
    message = f"The remote has a branch {branch} at {actual}. Name another one, or remove it there."
    return Failed(
        failure_class=FailureClass.PUSH_FAILURE,
        reason="branch_exists",
        leaves=Leaves(evidence={"error": message, "actual": actual}),
    )

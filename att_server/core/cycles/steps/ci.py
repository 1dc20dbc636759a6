"""CI: the required checks of the very commit passed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from att_server.core.cycles.commit_note import commit_note
from att_server.core.cycles.forge import Checks, CheckState, Forges
from att_server.core.cycles.model import CiStatus, CycleStep
from att_server.core.cycles.step import (
    Asked,
    Done,
    Failed,
    Leaves,
    Step,
    StepEnd,
    StepWork,
    Waiting,
)
from att_server.core.cycles.steps.under_test import UnderTest, tree_with_old_gates, under_test
from att_server.core.failure_class import FailureClass
from att_server.core.repository import Repositories

_GROWS = 2
"""How much longer each wait between looks is than the one before."""


class CiStep(Step):
    """Has the checks run, or looks at those that a forge runs, until all are over."""

    step = CycleStep.CI
    failure_class = FailureClass.CI_FAILURE
    interruptible = True

    def __init__(self, *, repositories: Repositories, forges: Forges) -> None:
        self._repositories = repositories
        self._forges = forges

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`. A forge may have checks that nobody here knows of."""
        checked = asked.settings.ci.command or self._forges.polled(asked.settings)
        return "" if checked else "not_configured"

    async def run(self, work: StepWork) -> StepEnd:
        """Looks once at a forge that goes on by itself; else runs the checks to their end."""
        facts = work.cycle.facts
        what = under_test(facts)
        if facts.ci_commit == what.commit:
            return Done(leaves=Leaves(evidence={"commit": what.commit}))
        if self._forges.polled(work.settings):
            return await self._look(work, what)
        evidence = {"commit": what.commit}
        if judged := await self._with_old_gates(work, what):
            checks = await self._checks(work, judged)
            passed = checks.state is CheckState.SUCCESS
            evidence["gates_of_base"] = "passed" if passed else "failed"
            if not passed:
                return self._over(work, what, checks, evidence)
        checks = await self._checks(work, what.commit)
        return self._over(work, what, checks, evidence)

    async def _checks(self, work: StepWork, commit: str) -> Checks:
        forge = await self._forges.of(work.project, work.cycle)
        return await forge.checks(commit)

    async def _with_old_gates(self, work: StepWork, what: UnderTest) -> str | None:
        """A commit on top whose checks are those of the base; None: the change left them alone."""
        repository = await self._repositories.of(work.project)
        cycle_id = work.cycle.cycle_id
        tree = await tree_with_old_gates(repository, cycle_id, what, work.settings.ci.command)
        if tree is None:
            return None
        note = commit_note(work.cycle, "The checks of the base")
        return await repository.commit(cycle_id, tree, what.commit, note)

    async def _look(self, work: StepWork, what: UnderTest) -> StepEnd:
        """One look. The first comes after a while, as checks have to begin."""
        settings, seen = work.settings.ci, work.status.evidence
        since = work.now
        looks = 0
        if seen.get("commit") == what.commit and "since" in seen:
            since = datetime.fromisoformat(seen["since"])
            looks = work.cycle.facts.ci_poll
        deadline = since + settings.timeout
        evidence = {"commit": what.commit, "since": since.isoformat()}
        if looks:
            checks = await self._checks(work, what.commit)
            if checks.state is CheckState.FAILURE or _is_settled(checks, seen):
                return self._over(work, what, checks, evidence)
            evidence |= checks.evidence
            if work.now >= deadline:
                none = checks.state is CheckState.NONE
                late = replace(checks, reason="no_checks" if none else "timed_out")
                return self._failed(work, late, evidence, timed_out=True)
        facts = replace(work.cycle.facts, ci_poll=looks + 1)
        wait = _wait(settings.initial_poll, settings.max_poll, looks)
        return Waiting(
            until=min(work.now + wait, deadline),
            reason="checks_pending",
            deadline=deadline,
            leaves=Leaves(facts=facts, evidence=evidence),
        )

    def _over(
        self, work: StepWork, what: UnderTest, checks: Checks, evidence: dict[str, str]
    ) -> StepEnd:
        if checks.state is not CheckState.SUCCESS:
            return self._failed(work, checks, evidence, timed_out=checks.reason == "timed_out")
        facts = work.cycle.facts
        return Done(
            leaves=Leaves(
                # Where there is no command for tests, the checks are the test.
                facts=replace(facts, ci_commit=what.commit, ci_poll=0, tested_tree=what.tree),
                result=replace(work.cycle.result, ci_status=CiStatus.SUCCESS),
                evidence={**evidence, **checks.evidence},
                log_tail=checks.log_tail,
            )
        )

    def _failed(
        self, work: StepWork, checks: Checks, evidence: dict[str, str], *, timed_out: bool
    ) -> Failed:
        status = CiStatus.TIMEOUT if timed_out else CiStatus.FAILURE
        return Failed(
            failure_class=FailureClass.CI_TIMEOUT if timed_out else self.failure_class,
            reason=checks.reason or "no_checks",
            leaves=Leaves(
                result=replace(work.cycle.result, ci_status=status),
                evidence={**evidence, **checks.evidence},
                log_tail=checks.log_tail,
            ),
        )


def _is_settled(checks: Checks, seen: Mapping[str, str]) -> bool:
    """Whether it is a success, and no more checks may come that nobody has heard of."""
    if checks.state is not CheckState.SUCCESS:
        return False
    return checks.settled or seen.get("checks") == checks.evidence.get("checks")


def _wait(first: timedelta, longest: timedelta, looks: int) -> timedelta:
    wait = first
    for _ in range(looks):
        if wait >= longest:
            break
        wait *= _GROWS
    return min(wait, max(first, longest))

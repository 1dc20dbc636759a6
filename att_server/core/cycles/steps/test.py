"""TEST: the base's test command on the change's tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.model import CycleStep
from att_server.core.cycles.project_commands import (
    ProjectCommands,
    command_evidence,
    command_failure,
)
from att_server.core.cycles.settings import TestSettings
from att_server.core.cycles.step import Asked, Done, Failed, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.under_test import UnderTest, tree_with_old_gates, under_test
from att_server.core.cycles.test_report import JUnitFiles, JUnitResults, TestReport
from att_server.core.failure_class import FailureClass
from att_server.core.model import CommandResult, Event
from att_server.core.repository import Repositories, Repository

JUNIT = "{junit}"
"""Stands in the test command for a path that JUnit XML is to be written to."""


class TestStep(Step):
    """Runs the tests. Their exit code decides; a report only tells."""

    __test__ = False  # Not one of pytest's.

    step = CycleStep.TEST
    failure_class = FailureClass.TEST_FAILURE
    interruptible = True

    def __init__(
        self,
        *,
        repositories: Repositories,
        commands: ProjectCommands,
        junit: JUnitFiles,
        inherited_env: Mapping[str, str],
    ) -> None:
        """inherited_env: what commands get of the server's environment."""
        self._repositories = repositories
        self._commands = commands
        self._junit = junit
        self._inherited_env = inherited_env

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`. A test command that the change brings along is none yet."""
        return "" if asked.settings.test.command else "not_configured"

    async def run(self, work: StepWork) -> StepEnd:
        """Tests the tree, and first with the base's gates where the change edits them."""
        cycle, facts = work.cycle, work.cycle.facts
        what = under_test(facts)
        if facts.tested_tree == what.tree:
            return Done(leaves=Leaves(evidence={"tree": what.tree}))
        repository = await self._repositories.of(work.project)
        begun = Event(event_type="test.run", time=work.now, attributes={"tree": what.tree})
        await work.note(Leaves(events=(begun,)))
        judged = await tree_with_old_gates(
            repository, cycle.cycle_id, what, work.settings.test.command
        )
        by_old = {}
        if judged is not None:
            end = await self._tested(work, repository, replace(what, tree=judged))
            by_old = {"gates_of_base": "failed" if isinstance(end, Failed) else "passed"}
            if isinstance(end, Failed):
                return _with(end, by_old)
        return _with(await self._tested(work, repository, what), by_old)

    async def _tested(
        self, work: StepWork, repository: Repository, what: UnderTest
    ) -> Done | Failed:
        cycle, settings = work.cycle, work.settings.test
        ours = await self._junit.place(cycle.cycle_id)
        written = ours

        async def worktree() -> Path:
            nonlocal written
            tree = await repository.worktree(cycle.cycle_id, what.base, what.tree)
            written = tree / settings.junit if not _names_ours(settings) else ours
            return tree

        result, duration = await self._commands.run(
            [word.replace(JUNIT, str(ours)) for word in settings.command],
            directory=worktree,
            env=command_env(
                self._inherited_env,
                settings.env,
                project_id=cycle.project_id,
                cycle_id=cycle.cycle_id,
            ),
            timeout=settings.timeout,
        )
        read = JUnitResults()
        if settings.junit or _names_ours(settings):
            read = await self._junit.read(written)
        await self._junit.discard(cycle.cycle_id)
        return self._end(work, what, result, duration, read)

    def _end(
        self,
        work: StepWork,
        what: UnderTest,
        result: CommandResult,
        duration: timedelta,
        read: JUnitResults,
    ) -> Done | Failed:
        cycle = work.cycle
        reason = command_failure(result)
        evidence = {**command_evidence(result), **_counted(read)}
        leaves = Leaves(
            result=replace(cycle.result, test_report_cycle_id=cycle.cycle_id),
            evidence=evidence,
            log_tail=result.output,
            report=TestReport(
                cycle_id=cycle.cycle_id,
                project_id=cycle.project_id,
                tree=what.tree,
                exit_code=_as_a_shell_says(result),
                passed_count=read.passed_count,
                failed_count=read.failed_count,
                skipped_count=read.skipped_count,
                duration=duration,
                results=read.results,
                output_tail=result.output,
            ),
            events=(
                Event(
                    event_type="test.failed" if reason else "test.passed",
                    time=work.now,
                    reason=reason,
                    attributes={"tree": what.tree, **evidence},
                ),
            ),
        )
        if reason:
            return Failed(failure_class=self.failure_class, reason=reason, leaves=leaves)
        return Done(leaves=replace(leaves, facts=replace(cycle.facts, tested_tree=what.tree)))


def _with(end: Done | Failed, evidence: Mapping[str, str]) -> Done | Failed:
    leaves = replace(end.leaves, evidence={**end.leaves.evidence, **evidence})
    return replace(end, leaves=leaves)


def _names_ours(settings: TestSettings) -> bool:
    return any(JUNIT in word for word in settings.command)


def _counted(read: JUnitResults) -> dict[str, str]:
    counts = {
        "passed": read.passed_count,
        "failed": read.failed_count,
        "skipped": read.skipped_count,
    }
    told = {name: str(count) for name, count in counts.items()} if read.results else {}
    return {**told, "junit": read.problem} if read.problem else told


def _as_a_shell_says(result: CommandResult) -> int:
    """An exit code also for a command that had none."""
    if result.exit_code is not None:
        return result.exit_code
    if result.signal is not None:
        return 128 + result.signal
    return 124 if result.timed_out else 127

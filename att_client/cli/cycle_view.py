"""How a release cycle looks: its steps as a table, and what is shown at its end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import att_client
from att_client.cli import cycle_text
from att_client.cli.cycle_text import short, word
from att_client.cli.output import Output, duration_text, local_time, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

TAIL_LINES = 20
"""Of a failing step's output, at the end of a cycle."""
MOST_TESTS = 10
"""Failed tests that are named."""

_OF_COURSE = ("not_reached", "not_needed")
"""Why steps are skipped that nobody expects."""

STEP_COLUMNS = ("STEP", "STATE", "TIME", "WAITED", "WHAT")
_STYLES = {
    att_client.CycleStepState.RUNNING: "yellow",
    att_client.CycleStepState.WAITING: "yellow",
    att_client.CycleStepState.SUCCEEDED: "green",
    att_client.CycleStepState.FAILED: "bold red",
    att_client.CycleStepState.SKIPPED: "dim",
}


def step_rows(
    steps: Iterable[att_client.CycleStepStatus], now: datetime
) -> list[tuple[str, str, str, str, str]]:
    """The cells of each step, as in `STEP_COLUMNS`."""
    return [
        (word(s.step), word(s.state), *cycle_text.times(s, now), cycle_text.step_note(s))
        for s in steps
    ]


def live(cycle: att_client.Cycle, now: datetime) -> RenderableType:
    """The cycle as it is redrawn on a terminal, as of `now`."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for column in STEP_COLUMNS:
        last = column == STEP_COLUMNS[-1]
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=1 if last else None)
    for step, cells in zip(cycle.steps, step_rows(cycle.steps, now), strict=True):
        if _is_shown(cycle, step):
            style = _STYLES.get(step.state, "dim")
            table.add_row(
                *(Text(cell, style=style if i < 2 else "") for i, cell in enumerate(cells))
            )
    waits = [Text(line, style="bold yellow") for line in cycle_text.waits_for(cycle)]
    return Group(Text(headline(cycle, now), style="bold"), table, *waits)


def _is_shown(cycle: att_client.Cycle, step: att_client.CycleStepStatus) -> bool:
    """Whether a step belongs to the picture: those of the way back only once they are gone."""
    is_way_back = step.step in (att_client.CycleStep.ROLLBACK, att_client.CycleStep.REVERT)
    if is_way_back and step.reason in _OF_COURSE:
        return False
    return cycle_text.begun(step) or not (is_way_back or cycle.state is att_client.CycleState.ENDED)


def headline(cycle: att_client.Cycle, now: datetime) -> str:
    """Which cycle it is and how it stands, on one line."""
    took = ""
    if cycle.create_time is not None:
        took = f", {duration_text((cycle.end_time or now) - cycle.create_time)}"
    return printable(
        f"{word(cycle.kind)} of {cycle.project_id}, {cycle_text.state_word(cycle)}{took}  "
        f"(cycle {cycle.cycle_id})"
    )


class StepLines:
    """Tells the changes of a cycle as lines, each once, for output that is no terminal."""

    def __init__(self) -> None:
        self._told: dict[att_client.CycleStep, tuple[object, ...]] = {}
        self._waits: list[str] = []

    def news(self, cycle: att_client.Cycle, now: datetime) -> list[str]:
        """What is new in `cycle` since the last call."""
        lines = []
        for step, row in zip(cycle.steps, step_rows(cycle.steps, now), strict=True):
            told = _news_of(step)
            trying = cycle.state is _HELD and step.state is att_client.CycleStepState.RUNNING
            if _is_news(step) and not trying and self._told.get(step.step) != told:
                self._told[step.step] = told
                lines.append(_line(step, row))
        if cycle.state is _HELD and cycle_text.waiting_step(cycle) is None:
            # One of many tries, which most likely comes to what the one before did.
            return lines
        waits = cycle_text.waits_for(cycle)
        lines += [line for line in waits if _timeless(line) not in map(_timeless, self._waits)]
        self._waits = waits
        return lines


_HELD = att_client.CycleState.HELD


def _news_of(step: att_client.CycleStepStatus) -> tuple[object, ...]:
    waits = step.state is att_client.CycleStepState.WAITING
    return step.state, 0 if waits else step.attempt, step.reason


_LONG = (
    att_client.CycleStep.TEST,
    att_client.CycleStep.CI,
    att_client.CycleStep.STAGE,
    att_client.CycleStep.HEALTH,
    att_client.CycleStep.ROLLBACK,
)


def _is_news(step: att_client.CycleStepStatus) -> bool:
    """Whether a line is worth it: that it was begun only where it may take long, or again."""
    match step.state:
        case att_client.CycleStepState.RUNNING:
            return step.step in _LONG or step.attempt > 1
        case att_client.CycleStepState.SKIPPED:
            return step.reason not in _OF_COURSE
    return cycle_text.begun(step)


def _line(step: att_client.CycleStepStatus, row: Sequence[str]) -> str:
    name, state, worked, waited, note = row
    over = step.state not in (att_client.CycleStepState.RUNNING, att_client.CycleStepState.WAITING)
    parts = [f"{name:<13}", f"{state:<10}"]
    if over and worked:
        parts.append(f"{worked:>8}" + (f" (waited {waited})" if waited else ""))
    return "  ".join([*parts, note]).rstrip()


def _timeless(line: str) -> str:
    # The next try of a cycle that is held comes again and again.
    return re.sub(r"\d\d:\d\d:\d\d", "", line)


def show_steps(output: Output, cycle: att_client.Cycle) -> None:
    """Prints the steps as a table."""
    shown = [step for step in cycle.steps if _is_shown(cycle, step)]
    output.table(STEP_COLUMNS, step_rows(shown, datetime.now(UTC)))


def show_verdict(output: Output, verdict: att_client.RollbackVerdict) -> None:
    """Prints the verdict of the rollback policy, with every gate."""
    target = f" to release {short(verdict.target_release_id)}" if verdict.target_release_id else ""
    source = f" (named by {verdict.target_source})" if target and verdict.target_source else ""
    output.say(
        printable(f"Rollback{target}{source}: {word(verdict.status)}, {verdict.reason}"),
        style="bold",
    )
    output.table(
        ("GATE", "VERDICT", "REASON", "FACTS"), [_gate_row(gate) for gate in verdict.gates]
    )


def _gate_row(gate: att_client.RollbackGate) -> tuple[str, str, str, str]:
    status = gate.status
    if status is att_client.RollbackGateStatus.UNSPECIFIED:
        status = (
            att_client.RollbackGateStatus.PASSED
            if gate.allowed
            else att_client.RollbackGateStatus.DENIED
        )
    facts = ", ".join(
        f"{name} {short(value)}" for name, value in sorted(gate.facts.items()) if value
    )
    return gate.gate, word(status), printable(gate.reason), printable(facts)


def show_ending(
    output: Output,
    cycle: att_client.Cycle,
    *,
    report: att_client.TestReport | None = None,
    project: att_client.Project | None = None,
) -> None:
    """Prints why a cycle ended as it did: the failing step with its output, the gates, the outcome.

    report: of the tests, where they are what failed. project: as it is now.
    """
    failed = cycle_text.failed_step(cycle)
    if failed is not None:
        show_step(output, failed, lines=TAIL_LINES)
        if report is not None:
            _show_tests(output, report)
    good = cycle.outcome is att_client.CycleOutcome.SUCCEEDED
    verdict = cycle.result.rollback_verdict if cycle.result is not None else None
    if verdict is not None and verdict.gates and not good:
        output.say()
        show_verdict(output, verdict)
    output.say()
    first, *more = cycle_text.ending(cycle)
    output.say(printable(first), style="bold green" if good else "bold red")
    for line in [*more, *(cycle_text.blocked(project) if project is not None else ())]:
        output.say(printable(line))


def show_step(output: Output, step: att_client.CycleStepStatus, *, lines: int | None) -> None:
    """Prints a step with its evidence and the end of its output; lines: None is all of it."""
    reason = f": {step.reason}" if step.reason else ""
    output.say()
    output.say(printable(f"{word(step.step)} {word(step.state)}{reason}"), style="bold")
    output.facts({f"  {name}": printable(value) for name, value in sorted(step.evidence.items())})
    tail = step.log_tail.decode(errors="replace").splitlines()
    shown = tail if lines is None else tail[-lines:]
    if len(shown) < len(tail):
        output.say(f"  … the last {len(shown)} of {len(tail)} lines", style="dim")
    for line in shown:
        output.say(f"  | {printable(line)}")


def _show_tests(output: Output, report: att_client.TestReport) -> None:
    total = report.passed_count + report.failed_count + report.skipped_count
    if not total:
        return
    output.say(f"  {report.failed_count} of {total} tests failed")
    for test in report.results[:MOST_TESTS]:
        message = test.message.strip().partition("\n")[0]
        output.say(printable(f"  - {test.name}" + (f": {message}" if message else "")))
    if len(report.results) > MOST_TESTS:
        output.say(f"  … and {len(report.results) - MOST_TESTS} more")


def cycle_facts(cycle: att_client.Cycle) -> dict[str, str]:
    """What there is to say of a cycle beside its steps, as names and values."""
    result = cycle.result or att_client.CycleResult()
    request = cycle.request or att_client.CycleRequest()
    paths = [edit.path for edit in request.edits]
    change = f"commit {request.commit}" if request.commit else ", ".join(paths[:10])
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    message = request.commit_message.strip().partition("\n")[0]
    values = {
        "cycle": cycle.cycle_id,
        "project": cycle.project_id,
        "kind": word(cycle.kind),
        "state": cycle_text.state_word(cycle),
        "reason": cycle.outcome_reason,
        "asked for by": cycle.requested_by,
        "cancelled by": cycle.cancelled_by,
        "started": local_time(cycle.create_time),
        "ended": local_time(cycle.end_time),
        "message": message,
        "change": change + more,
        "branch": result.branch_name,
        "commit": result.commit_sha,
        "pull request": result.pr_url,
        "merged as": result.merge_commit_sha,
        "release": result.deployed_release_id,
        "reverted as": result.revert_commit_sha,
    }
    return {name: printable(value) for name, value in values.items()}

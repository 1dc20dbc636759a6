"""Follows a release cycle to its end and shows every change."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

import att_client
from att_client.cli import cycle_text, cycle_view
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType

OUTCOMES_HELP = (
    "Exit codes by outcome: 0 SUCCEEDED, 1 every other one: FAILED, ROLLED_BACK (the release "
    "before runs again), ROLLBACK_FAILED, CANCELLED, REJECTED. With --detach, 0 once the cycle has "
    "begun. With --json every line is the whole cycle as it is then, the last with the outcome. "
    + EXIT_CODES_HELP
)


async def follow(att: att_client.Client, cycle_id: str, output: Output) -> None:
    """Shows the cycle until it has ended, then why it ended so, and exits by its outcome.

    As JSON lines, as a live table on a terminal, else as a line for each change.
    Being interrupted leaves the cycle alone.
    """
    try:
        cycle = await _watch(att, cycle_id, output)
    except asyncio.CancelledError:
        if not output.as_json:
            output.note(f"The cycle goes on. {how_to_come_back(cycle_id)}")
        raise
    if not output.as_json:
        await show_ending(att, cycle, output)
    if cycle.outcome is not att_client.CycleOutcome.SUCCEEDED:
        raise typer.Exit(ExitCode.FAILED)


async def show_ending(att: att_client.Client, cycle: att_client.Cycle, output: Output) -> None:
    """Prints why an ended cycle ended as it did, with what the server says beside it."""
    cycle_view.show_ending(
        output,
        cycle,
        report=await _failed_tests(att, cycle),
        project=await _project(att, cycle),
    )


def how_to_come_back(cycle_id: str) -> str:
    """What to type to see a cycle again, or to end it."""
    return (
        f"Come back with `att cycle watch {cycle_id}`, end it with `att cycle cancel {cycle_id}`."
    )


async def find(att: att_client.Client, name: str) -> att_client.Cycle:
    """The cycle with this id, or the newest one of the project with this id."""
    # The ids of cycles are upper case, those of projects lower case.
    if name != name.lower():
        return await att.bootstrap.get(name)
    async for cycle in att.bootstrap.list(name, page_size=1):
        # A list leaves out what the steps printed.
        return await att.bootstrap.get(cycle.cycle_id)
    raise CommandError(
        "CYCLE_NOT_FOUND",
        f"Project {name} has had no cycle. Start one with `att cycle run {name} --edit PATH=FILE`.",
        metadata={"project_id": name},
    )


async def _watch(att: att_client.Client, cycle_id: str, output: Output) -> att_client.Cycle:
    """The ended cycle, after its changes were shown."""
    watch = att.bootstrap.watch(cycle_id)
    if output.as_json:
        return await _each(watch, output)
    if sys.stdout.isatty():
        return await _watch_live(watch)
    return await _watch_lines(watch, output)


async def _each(watch: att_client.CycleWatch, output: Output) -> att_client.Cycle:
    cycle = None
    async for state in watch:
        cycle = state
        output.item(cycle)
    return _ended(cycle)


async def _watch_lines(watch: att_client.CycleWatch, output: Output) -> att_client.Cycle:
    cycle, lines = None, cycle_view.StepLines()
    async for state in watch:
        now = datetime.now(UTC)
        if cycle is None:
            output.say(cycle_view.headline(state, now))
        cycle = state
        for line in lines.news(cycle, now):
            output.say(line)
        sys.stdout.flush()
    return _ended(cycle)


async def _watch_live(watch: att_client.CycleWatch) -> att_client.Cycle:
    from rich.live import Live

    cycle: att_client.Cycle | None = None

    def picture() -> RenderableType:
        return "" if cycle is None else cycle_view.live(cycle, datetime.now(UTC))

    with Live(get_renderable=picture, refresh_per_second=8) as shown:
        async for state in watch:
            cycle = state
            shown.refresh()
    return _ended(cycle)


def _ended(cycle: att_client.Cycle | None) -> att_client.Cycle:
    if cycle is None or cycle.state is not att_client.CycleState.ENDED:
        raise CommandError(
            "PROTOCOL_ERROR", "The server ended the watch of a cycle that has not ended."
        )
    return cycle


async def _failed_tests(
    att: att_client.Client, cycle: att_client.Cycle
) -> att_client.TestReport | None:
    step = cycle_text.failed_step(cycle)
    if step is None or step.step is not att_client.CycleStep.TEST:
        return None
    # What is said of the tests beside the step is an extra.
    with contextlib.suppress(att_client.AttError):
        return await att.code.test_report(
            cycle.project_id, cycle_id=cycle.cycle_id, failed_only=True
        )
    return None


async def _project(att: att_client.Client, cycle: att_client.Cycle) -> att_client.Project | None:
    if cycle.outcome is att_client.CycleOutcome.SUCCEEDED:
        return None
    with contextlib.suppress(att_client.ProjectNotFoundError):
        return await att.projects.get(cycle.project_id)
    return None

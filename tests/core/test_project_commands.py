"""Commands of projects take turns, and one that somebody else killed is run again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.project_commands import (
    OUTPUT_BYTES,
    ProjectCommands,
    command_evidence,
    command_failure,
)
from att_server.core.cycles.slots import Slots
from att_server.core.model import CommandResult
from att_server.testing import FakeClock
from att_server.testing.commands import FakeCommandRunner, RanCommand

MINUTE = timedelta(minutes=1)


async def place() -> Path:
    return Path("/srv")


async def test_as_many_run_at_once_as_there_are_slots_and_the_rest_in_their_order() -> None:
    runner = FakeCommandRunner()
    commands = ProjectCommands(runner=runner, slots=Slots(2), clock=FakeClock())
    runner.hold()
    calls = [
        asyncio.create_task(commands.run([f"{number}"], directory=place, env={}, timeout=MINUTE))
        for number in range(50)
    ]
    await runner.wait_for_runs(2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(runner.ran) == 2
    runner.release()
    await asyncio.gather(*calls)
    assert [ran.command[0] for ran in runner.ran] == [f"{number}" for number in range(50)]


async def test_who_is_cancelled_while_it_waits_or_runs_gives_its_slot_back() -> None:
    runner = FakeCommandRunner()
    commands = ProjectCommands(runner=runner, slots=Slots(1), clock=FakeClock())
    runner.hold()
    calls = [
        asyncio.create_task(commands.run(["x"], directory=place, env={}, timeout=MINUTE))
        for _ in range(3)
    ]
    await runner.wait_for_runs(1)
    for call in calls[:2]:
        call.cancel()
    runner.release()
    result, _ = await calls[2]
    assert result.exit_code == 0


def test_there_is_always_a_slot() -> None:
    with pytest.raises(ValueError, match="slot"):
        Slots(0)


@pytest.mark.parametrize(
    "killed",
    [
        CommandResult(signal=9),
        CommandResult(exit_code=137),
        CommandResult(start_error="the process that ran the command was killed"),
        CommandResult(start_error="no process could be started: Resource unavailable"),
    ],
)
async def test_what_was_killed_is_run_again_within_the_time_of_all_tries(
    killed: CommandResult,
) -> None:
    clock = FakeClock()
    results = [killed, killed, CommandResult(exit_code=0)]

    def answer(_: RanCommand) -> CommandResult:
        clock.advance(timedelta(seconds=10))
        return results.pop(0)

    runner = FakeCommandRunner(answer)
    commands = ProjectCommands(runner=runner, slots=Slots(1), clock=clock)
    result, took = await commands.run(["x"], directory=place, env={}, timeout=MINUTE)
    assert (result.exit_code, took) == (0, timedelta(seconds=30))
    assert [ran.timeout.total_seconds() for ran in runner.ran] == [60, 50, 40]
    assert {ran.output_bytes for ran in runner.ran} == {OUTPUT_BYTES}


async def test_what_is_killed_each_time_or_has_no_time_left_is_a_failure() -> None:
    clock = FakeClock()

    def answer(_: RanCommand) -> CommandResult:
        clock.advance(timedelta(seconds=10))
        return CommandResult(signal=9)

    runner = FakeCommandRunner(answer)
    commands = ProjectCommands(runner=runner, slots=Slots(1), clock=clock)
    assert (await commands.run(["x"], directory=place, env={}, timeout=MINUTE))[0].signal == 9
    assert len(runner.ran) == 3
    await commands.run(["x"], directory=place, env={}, timeout=timedelta(seconds=5))
    assert len(runner.ran) == 4


@pytest.mark.parametrize(
    ("result", "reason", "evidence"),
    [
        (CommandResult(exit_code=0), "", {"exit_code": "0"}),
        (CommandResult(exit_code=2), "exit_code", {"exit_code": "2"}),
        (CommandResult(signal=11), "signal", {"signal": "11"}),
        (CommandResult(timed_out=True), "timed_out", {"timed_out": "true"}),
        (
            CommandResult(start_error="x: not found"),
            "command_not_found",
            {"start_error": "x: not found"},
        ),
        (
            CommandResult(start_error="x: Permission denied"),
            "command_not_started",
            {"start_error": "x: Permission denied"},
        ),
        (
            CommandResult(start_error="the process that starts commands was killed"),
            "killed",
            {"start_error": "the process that starts commands was killed"},
        ),
    ],
)
def test_how_a_command_ended_is_told(
    result: CommandResult, reason: str, evidence: dict[str, str]
) -> None:
    assert command_failure(result) == reason
    assert command_evidence(result) == evidence


def test_settings_win_over_what_is_inherited_and_over_what_we_add() -> None:
    env = command_env(
        {"PATH": "/bin", "LANG": "C"},
        {"LANG": "de", "PYTHONUNBUFFERED": ""},
        project_id="web",
        cycle_id="C1",
    )
    assert env == {
        "PATH": "/bin",
        "LANG": "de",
        "PYTHONUNBUFFERED": "",
        "GIT_TERMINAL_PROMPT": "0",
        "ATT_PROJECT_ID": "web",
        "ATT_CYCLE_ID": "C1",
    }

"""Commands of a project: run in turn, and what became of them in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from att_server.core.cycles.slots import Slots
from att_server.core.model import CommandResult
from att_server.core.ports import Clock, CommandRunner

OUTPUT_BYTES = 64 * 1024
"""How much of the end of a command's output is kept as evidence."""

_TRIES = 3
_KILLED = 9
_SHELL_SAYS_KILLED = 128 + _KILLED


class ProjectCommands:
    """Runs commands of projects, each in a slot.

    A command that was killed from outside says nothing about the change: the
    host had no memory left, or somebody killed it. It is run again, at most twice.
    """

    def __init__(self, *, runner: CommandRunner, slots: Slots, clock: Clock) -> None:
        self._runner = runner
        self._slots = slots
        self._clock = clock

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Callable[[], Awaitable[Path]],
        env: Mapping[str, str],
        timeout: timedelta,
    ) -> tuple[CommandResult, timedelta]:
        """How it ended, and how long it ran.

        directory: makes the one to run in, anew for each try. timeout: of all tries,
        without waiting for slots. Cancelling ends the command.
        """
        left = timeout
        for last in (*[False] * (_TRIES - 1), True):
            async with self._slots.one():
                place = await directory()
                begun = self._clock.monotonic()
                result = await self._runner.run(
                    command,
                    directory=place,
                    env=env,
                    timeout=left,
                    output_bytes=OUTPUT_BYTES,
                )
                left -= timedelta(seconds=self._clock.monotonic() - begun)
            if last or not was_killed(result) or left <= timedelta():
                return result, timeout - left
        raise AssertionError("the last try returns")


def was_killed(result: CommandResult) -> bool:
    """Whether somebody else ended the command, or the process that kept it."""
    if result.start_error is not None:
        return result.start_error.startswith(("the process that", "no process could"))
    return result.signal == _KILLED or result.exit_code == _SHELL_SAYS_KILLED


def command_failure(result: CommandResult) -> str:
    """Why it did not succeed, in snake case; empty: it did."""
    if result.exit_code == 0:
        return ""
    if result.timed_out:
        return "timed_out"
    if result.exit_code is not None:
        return "exit_code"
    if result.signal is not None:
        return "signal"
    if "not found" in (result.start_error or ""):
        return "command_not_found"
    return "killed" if was_killed(result) else "command_not_started"


def command_evidence(result: CommandResult) -> dict[str, str]:
    """How it ended, for people."""
    facts: dict[str, object] = {
        "exit_code": result.exit_code,
        "signal": result.signal,
        "start_error": result.start_error,
        "timed_out": "true" if result.timed_out else None,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}

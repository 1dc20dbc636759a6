"""Commands of which a test says whether they are found, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.model import CommandResult


class FakeCommandFinder:
    """Finds every command but those in `missing`."""

    def __init__(self, *, missing: frozenset[str] = frozenset()) -> None:
        self._missing = missing

    async def check(
        self, command: Sequence[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        """Raises COMMAND_NOT_FOUND for a missing command."""
        if command[0] in self._missing:
            raise AttError(
                Reason.COMMAND_NOT_FOUND, f"There is no {command[0]!r}.", command=command[0]
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RanCommand:
    """A call of `FakeCommandRunner.run`."""

    command: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    timeout: timedelta
    input: bytes
    output_bytes: int = 4096
    run_as: str = ""


class FakeCommandRunner:
    """Implements `CommandRunner` and runs nothing.

    ran: all calls. result: how a command ends; may be changed at any time. hold,
    release: until released, calls wait.
    """

    def __init__(
        self, result: Callable[[RanCommand], CommandResult] = lambda _: CommandResult(exit_code=0)
    ) -> None:
        self.result = result
        self.ran: list[RanCommand] = []
        self._held = False
        self._changed = Bell()

    def hold(self) -> None:
        """Lets calls wait from now on."""
        self._held = True

    def release(self) -> None:
        """Lets all calls end."""
        self._held = False
        self._changed.ring()

    async def wait_for_runs(self, count: int) -> None:
        """Returns once there were `count` calls."""
        while len(self.ran) < count:
            await self._changed.wait(self._changed.count)

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        timeout: timedelta,
        input: bytes = b"",  # noqa: A002 - the port's name for what subprocess calls so too
        output_bytes: int = 4096,
        run_as: str = "",
    ) -> CommandResult:
        """Ends as `result` says."""
        ran = RanCommand(
            command=tuple(command),
            directory=directory,
            env=dict(env),
            timeout=timeout,
            input=input,
            output_bytes=output_bytes,
            run_as=run_as,
        )
        self.ran.append(ran)
        self._changed.ring()
        while self._held:
            await self._changed.wait(self._changed.count)
        return self.result(ran)

"""Helper commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from att_server.core.model import (
    CommandResult,
)


class CommandRunner(Protocol):
    """Runs helper commands: probes, notifications, tests and builds."""

    async def run(
        self,
        command: Sequence[str],
        *,
        directory: Path,
        env: Mapping[str, str],
        timeout: timedelta,
        input: bytes = b"",  # noqa: A002 - as subprocess.run calls it
        output_bytes: int = 4096,
        run_as: str = "",
    ) -> CommandResult:
        """Runs the command and ends whatever it leaves behind, also if the server dies.

        input: is its standard input, at most 64 KiB. output_bytes: how much of
        the end of what it prints is kept, at most 64 KiB. run_as: the user that it
        runs as, by name or number; empty: the server's own. Never raises for a
        failed command. Cancelling ends the command.
        """
        ...


class CommandFinder(Protocol):
    """Looks whether a command could be run, before anything is changed."""

    async def check(
        self, command: Sequence[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        """Returns if the command's file can be executed in `directory` with `env`.

        Raises COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or PROJECT_PATH_INVALID.
        """
        ...

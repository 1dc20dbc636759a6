"""A CommandFinder that finds what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from att_server.core.errors import AttError, Reason


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

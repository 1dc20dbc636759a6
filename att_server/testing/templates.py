"""FakeTemplateStore: templates and directories without files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from att_server.core.errors import AttError, Reason


class FakeTemplateStore:
    """Implements `TemplateStore`.

    filled: the template by directory; a test adds directories that hold
    something else as "".
    """

    def __init__(self, *names: str) -> None:
        self._names = sorted(names or ("nat", "other"))
        self.filled: dict[Path, str] = {}

    def names(self) -> Sequence[str]:
        """The names that it was made with."""
        return self._names

    async def fill(self, name: str, directory: Path) -> None:
        """Notes it. Raises PROJECT_PATH_INVALID where something else was noted."""
        if self.filled.setdefault(directory, name) != name:
            raise AttError(
                Reason.PROJECT_PATH_INVALID, f"{directory} is not empty.", path=directory
            )

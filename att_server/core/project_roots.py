"""Where the directories of projects may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ProjectRoots(Protocol):
    """Knows the directories that projects may lie in, and their files of variables."""

    async def check(self, path: Path, *, remote: bool = False, opened: int | None = None) -> None:
        """Returns if `path` is one of them or below one, with every link on the way followed.

        It need not be there. Where nobody has said which they are, all are; but none for
        a new place that a caller from the network asks for (remote). opened: the
        descriptor of what was opened at `path`, and is looked at in its stead.
        Raises PROJECT_PATH_NOT_ALLOWED, SETTINGS_INVALID.
        """
        ...


class _Anywhere:
    async def check(self, path: Path, *, remote: bool = False, opened: int | None = None) -> None:
        return


ANYWHERE: ProjectRoots = _Anywhere()
"""Allows all, to all."""

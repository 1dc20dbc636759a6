"""TomlProjectRoots: where projects may lie, by the server's own settings."""

from __future__ import annotations

import os
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from att_server.adapters.server_settings import SERVER_FILE, ServerSetting
from att_server.core.errors import AttError, Reason
from att_server.core.ports import Clock

_KEY = "project_roots"


class TomlProjectRoots:
    """Implements `ProjectRoots`: the key `project_roots` of `settings.toml`."""

    def __init__(self, state_dir: Path, clock: Clock, *, own: Path | None = None) -> None:
        """own: where the project lies that is this server itself, which is always allowed."""
        self._roots: ServerSetting[Sequence[str] | None] = ServerSetting(
            state_dir, clock, _parsed, None
        )
        self._file = state_dir / SERVER_FILE
        self._own = own

    async def check(self, path: Path, *, remote: bool = False, opened: int | None = None) -> None:
        """See `ProjectRoots`."""
        at = path if opened is None else Path(f"/proc/self/fd/{opened}")
        roots = await self._roots.value()
        if roots is None:
            if remote:
                raise self._refused(path, "and it names none")
        elif not await to_thread(self._holds, roots, at):
            raise self._refused(path, f"which are {', '.join(roots) or 'none'}")

    def _holds(self, roots: Sequence[str], path: Path) -> bool:
        # Both as they are now, with every link followed: what is compared is what is opened.
        real = Path(os.path.realpath(path))
        if self._own is not None and real == Path(os.path.realpath(self._own)):
            return True
        return any(real.is_relative_to(os.path.realpath(root)) for root in roots)

    def _refused(self, path: Path, which: str) -> AttError:
        return AttError(
            Reason.PROJECT_PATH_NOT_ALLOWED,
            f"{str(path)!r} lies below none of the directories that `{_KEY}` in {self._file} "
            f"names, {which}. Use a directory below one of them, or have one added.",
            path=path,
        )


def _parsed(document: Mapping[str, Any]) -> Sequence[str] | None:
    from att_server.adapters import project_roots_schema

    return project_roots_schema.project_roots(document)

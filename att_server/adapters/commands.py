"""CommandFinder on the file system of this host."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from att_server.core.errors import AttError, Reason


class PathCommandFinder:
    """Looks a command up as execvpe would: in `PATH`, or against the directory."""

    async def check(
        self, command: Sequence[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        """Raises COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE or PROJECT_PATH_INVALID."""
        if not directory.is_dir():
            raise AttError(
                Reason.PROJECT_PATH_INVALID,
                f"The project's directory {str(directory)!r} is gone. "
                "Restore it, or update the project's path.",
                path=directory,
            )
        name = command[0]
        if "/" in name:
            candidates = [directory / name]
        else:
            places = env.get("PATH", os.defpath).split(os.pathsep)
            candidates = [directory / place / name for place in places]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            where = "at this path" if "/" in name else "in the app's PATH"
            raise AttError(
                Reason.COMMAND_NOT_FOUND,
                f"There is no file {name!r} {where}. Install it, or correct `command`.",
                command=name,
            )
        if not any(os.access(candidate, os.X_OK) for candidate in found):
            raise AttError(
                Reason.COMMAND_NOT_EXECUTABLE,
                f"{str(found[0])!r} may not be executed. Make it executable (chmod +x), "
                "or run it by its interpreter.",
                command=name,
            )

"""Why a process could not be started."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence


class StartFailed(Exception):
    """The app could not be started.

    failure: `command_not_found`, `command_not_executable`, `directory_invalid`,
    `user_not_found`, `no_right`, `directory_unreachable` or `start_error`.
    """

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def start_failure(command: Sequence[str], error: Exception) -> StartFailed:
    """What an error of the system says of the command that was to be started."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        return StartFailed("command_not_found", f"{command[0]}: not found")
    if code in (errno.EACCES, errno.ENOEXEC, errno.EISDIR):
        return StartFailed("command_not_executable", f"{command[0]}: {os.strerror(code)}")
    cause = error.strerror if isinstance(error, OSError) else str(error)
    return StartFailed("start_error", f"{command[0]}: {cause}")

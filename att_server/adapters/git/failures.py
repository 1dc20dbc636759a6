"""What went wrong, from what git said in English on its standard error, and what the system did."""

from __future__ import annotations

import errno
import functools
import re
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from att_server.core.repository import RepositoryError, RepositoryFailure

_P = ParamSpec("_P")
_T = TypeVar("_T")
_F = RepositoryFailure
_Rule = tuple[RepositoryFailure, str]
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
# The first that fits decides: causes before what git says as a consequence.
_LOCAL: tuple[_Rule, ...] = (
    (_F.GIT_MISSING, "^timeout: failed to run command"),
    (_F.STORAGE_FULL, "No space left on device|Disk quota exceeded|File too large"),
    (_F.INTERRUPTED, "died of signal|abnormal exit|invalid index-pack output|index-pack failed"),
    (_F.LOCKED, r"\.lock': File exists|cannot lock ref|Unable to create '.*\.lock'"),
)
_OBJECTS: tuple[_Rule, ...] = (
    (_F.UNRELATED_HISTORIES, "unrelated histories"),
    (_F.DAMAGED, "object file .* is empty|loose object .* corrupt|inflate: data stream error"),
    (_F.DAMAGED, "bad (index|pack|tree) |is corrupt|bad signature|unable to read tree"),
    (_F.NOT_FOUND, "bad object|bad revision|[Nn]ot a valid (object|commit)|unknown revision"),
    (_F.NOT_FOUND, "does not exist|couldn't find remote ref|not our ref|not a tree"),
    (_F.NOT_FOUND, "invalid object|malformed object name|not a git repository|is not a commit"),
    (_F.NOT_FOUND, "Needed a single revision|unadvertised object"),
)
_REMOTE: tuple[_Rule, ...] = (
    (_F.PROTOCOL_NOT_ALLOWED, "transport '.*' not allowed|remote helper|is blocked"),
    (_F.REMOTE_AUTHENTICATION, "could not read (Username|Password)|Authentication failed"),
    (_F.REMOTE_AUTHENTICATION, r"terminal prompts disabled|Permission denied \(|Access denied"),
    (_F.REMOTE_AUTHENTICATION, "returned error: 40[13]|Host key verification|dubious ownership"),
    (_F.REMOTE_UNREACHABLE, "Could not resolve|unable to look up|Failed to connect|RPC failed"),
    (_F.REMOTE_UNREACHABLE, "Connection (refused|timed out|reset|closed)|unable to connect"),
    (_F.REMOTE_UNREACHABLE, "Network is unreachable|No route to host|Operation (too slow|timed)"),
    (_F.REMOTE_UNREACHABLE, r"returned error: (5\d\d|429|408)|SSL|TLS|certificate|Empty reply"),
    (_F.REMOTE_NOT_FOUND, "[Rr]epository .*not found|does not appear to be a git repository"),
    (_F.REMOTE_NOT_FOUND, "returned error: 404|not a git repository|No such file or directory"),
    (_F.NOT_FOUND, "not our ref|couldn't find remote ref|unadvertised object"),
    (_F.REMOTE_REFUSED, r"\[remote rejected\]|hook declined|deny updating"),
    (_F.REMOTE_UNREACHABLE, "unexpected disconnect|early EOF|hung up|Broken pipe"),
    (_F.REMOTE_UNREACHABLE, "Could not read from remote"),
)


def failure_of(text: str, *, network: bool) -> RepositoryFailure:
    """What standard error says failed. network: the command talked to a remote.

    What the remote says itself is not trusted with it.
    """
    ours = "\n".join(line for line in text.splitlines() if not line.startswith("remote:"))
    for failure, pattern in (*_LOCAL, *(_REMOTE if network else ()), *_OBJECTS):
        if re.search(pattern, ours):
            return failure
    return RepositoryFailure.OTHER


def redacted(text: str) -> str:
    """The text without passwords and tokens in addresses."""
    return _PASSWORD.sub("…@", text)


def told(
    operation: Callable[_P, Coroutine[Any, Any, _T]],
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """The operation, with what the file system refuses told as the port tells it."""

    @functools.wraps(operation)
    async def telling(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await operation(*args, **kwargs)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise RepositoryError(
                RepositoryFailure.STORAGE_FULL if full else RepositoryFailure.OTHER,
                f"The repository could not be used: {error.strerror} ({error.filename!a}).",
            ) from error

    return telling

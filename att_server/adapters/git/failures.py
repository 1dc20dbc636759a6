"""What went wrong, from what git said in English on its standard error."""

from __future__ import annotations

import re

from att_server.core.repository import RepositoryFailure

_F = RepositoryFailure
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
# The first that fits decides: causes before what git says as a consequence.
_LOCAL = (
    (_F.STORAGE_FULL, r"No space left on device|Disk quota exceeded|File too large"),
    (_F.LOCKED, r"\.lock': File exists|cannot lock ref|Unable to create '.*\.lock'"),
    (
        _F.DAMAGED,
        r"object file .* is empty|loose object .* corrupt|inflate: data stream error|index file "
        r"corrupt|bad (index|pack|tree|object) |is corrupt|bad signature|unable to read tree",
    ),
    (
        _F.NOT_FOUND,
        r"bad object|bad revision|[Nn]ot a valid (object|commit)|unknown revision|does not exist"
        r"|couldn't find remote ref|not our ref|not a tree|invalid object|malformed object name"
        r"|not a git repository|cannot find|is not a commit",
    ),
)
_REMOTE = (
    (_F.PROTOCOL_NOT_ALLOWED, r"transport '.*' not allowed|remote helper|is blocked"),
    (
        _F.REMOTE_AUTHENTICATION,
        r"could not read (Username|Password)|Authentication failed|terminal prompts disabled"
        r"|Permission denied \(|HTTP Basic: Access denied|returned error: 40[13]"
        r"|Host key verification failed|dubious ownership",
    ),
    (
        _F.REMOTE_UNREACHABLE,
        r"Could not resolve|unable to look up|Connection (refused|timed out|reset|closed)"
        r"|Failed to connect|Network is unreachable|No route to host|Operation (too slow|timed)"
        r"|returned error: (5\d\d|429|408)|SSL|TLS|certificate|RPC failed|unable to connect"
        r"|Empty reply|Broken pipe",
    ),
    (
        _F.REMOTE_NOT_FOUND,
        r"[Rr]epository .*not found|does not appear to be a git repository|returned error: 404"
        r"|not a git repository|No such (file or directory|remote)",
    ),
    (_F.NOT_FOUND, r"not our ref|couldn't find remote ref|upload-pack: .*not a valid"),
    (_F.REMOTE_REFUSED, r"\[remote rejected\]|hook declined|deny updating"),
    (_F.REMOTE_UNREACHABLE, r"unexpected disconnect|early EOF|hung up|Could not read from remote"),
)


def failure_of(text: str, *, network: bool) -> RepositoryFailure:
    """What standard error says failed. network: the command talked to a remote.

    What the remote says itself is not trusted with it.
    """
    ours = "\n".join(line for line in text.splitlines() if not line.startswith("remote:"))
    for failure, pattern in (*_LOCAL[:2], *_REMOTE, *_LOCAL[2:]) if network else _LOCAL:
        if re.search(pattern, ours):
            return failure
    return RepositoryFailure.OTHER


def redacted(text: str) -> str:
    """The text without passwords and tokens in addresses."""
    return _PASSWORD.sub("…@", text)

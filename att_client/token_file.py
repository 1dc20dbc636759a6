"""A token that says who calls, and the file that may hold it."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from att_client.errors import ConfigInvalidError

_log = logging.getLogger("att_client")

_LONGEST_FILE = 4096
# What gRPC takes in a header, less spaces.
_TOKEN = re.compile(r"[!-~]{1,1024}")


class TokenFile:
    """The token in a file that may be replaced while the client runs.

    Nothing of what the file holds is in a log or an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def token(self) -> str:
        """The token that the file holds now. Raises ConfigInvalidError if it never held one.

        A file that is gone, or holds none, leaves the token that was read last.
        """
        # First: what changes while it is read is read again.
        seen = self._stamp()
        if seen is None or seen != self._seen:
            try:
                token = read_token(self._path)
            except ConfigInvalidError as error:
                if not self._token:
                    raise
                if seen != self._seen:
                    _log.warning("the token before is used on: %s", error.message)
            else:
                if self._token and token != self._token:
                    _log.info("the token in %s was renewed", self._path)
                self._token = token
            self._seen = seen
        return self._token

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = os.stat(self._path)
        except (OSError, ValueError):
            return None
        # Of the inode, so that a mode that was mended is seen too.
        return status.st_ino, status.st_ctime_ns, status.st_size


def read_token(path: Path) -> str:
    """The token that a file holds now. Raises ConfigInvalidError, which never shows it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise ConfigInvalidError(
            f"The file {str(path)!r} (from ATT_TOKEN_FILE) cannot be read: {why}."
        ) from error
    if mode & 0o007:
        raise ConfigInvalidError(
            f"Every user may use the file {str(path)!r} (from ATT_TOKEN_FILE), which holds a "
            "token: `chmod 600` it."
        )
    if len(content) > _LONGEST_FILE or not content.strip():
        raise ConfigInvalidError(
            f"The file {str(path)!r} (from ATT_TOKEN_FILE) does not hold one token and nothing "
            "else."
        )
    token = content.decode("ascii", "replace").strip()
    check_token(token)
    return token


def check_token(token: str) -> None:
    """Raises ConfigInvalidError for what is none, without showing it."""
    if not _TOKEN.fullmatch(token):
        raise ConfigInvalidError(
            "The token is not one word of ASCII characters. Give it as `att token create` "
            "showed it, whole and without quotes."
        )

"""CommandFailed: how the commands of `python -m att_server` that need no server fail."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command cannot be done; what it began was taken back.

    reason: upper case with underscores. message: what happened and what to do next.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

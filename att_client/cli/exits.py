"""How a command ends: its exit code and the words for what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import att_client

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 the server is not reachable, "
    "4 denied, 130 interrupted. With --json a command prints one object a line on stdout, and an "
    'error as {"error": {"reason", "message", "metadata"}} on stderr; times are RFC 3339 in UTC, '
    "durations are seconds."
)


class ExitCode(IntEnum):
    """The exit codes of `att`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    INTERRUPTED = 130


class CommandError(Exception):
    """A command fails before or without a call to the server.

    reason: in the form of the server's reasons, upper case with underscores.
    message: what happened and what to do next.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        exit_code: ExitCode = ExitCode.FAILED,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.exit_code = exit_code
        self.metadata = dict(metadata or {})


def usage_error(message: str) -> CommandError:
    """The error for arguments that are wrong."""
    return CommandError("USAGE", message, exit_code=ExitCode.USAGE)


def from_call(error: att_client.AttError) -> CommandError:
    """The command's error for a failed call."""
    if isinstance(error, att_client.UnavailableError) and error.reason in _NO_SERVER:
        target = error.metadata.get("target")
        what = f"No ATT server answers at {target}." if target else error.message
        do = "Start one with `att serve`, or name another with --target or ATT_TARGET."
        # Over TLS there is more that can be wrong, and the message says what.
        message = error.message if "cause" in error.metadata else f"{what} {do}"
        return CommandError(
            error.reason or "SERVER_NOT_REACHABLE",
            message,
            exit_code=ExitCode.UNREACHABLE,
            metadata=error.metadata,
        )
    if isinstance(error, att_client.ConfigInvalidError):
        return usage_error(error.message)
    denied = isinstance(error, att_client.PermissionDeniedError | att_client.UnauthenticatedError)
    return CommandError(
        error.reason or (error.code.name if error.code else "CLIENT_ERROR"),
        error.message,
        exit_code=ExitCode.DENIED if denied else ExitCode.FAILED,
        metadata=error.metadata,
    )


# An UNAVAILABLE with another reason was sent by a server that does answer.
_NO_SERVER = frozenset({"", "SHUTTING_DOWN"})

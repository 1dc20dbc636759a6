"""What an `AttError` becomes on the wire: one code, one rich status, one trailer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from att_server.core.errors import AttError, Reason

DOMAIN = "att.v1"
REASON_TRAILER = "att-reason"
DETAILS_TRAILER = "grpc-status-details-bin"

MAX_MESSAGE_BYTES = 1024
MAX_TRAILER_BYTES = 6 * 1024
"""Clients drop the status of a call whose trailers exceed their limit, 8 KiB by default."""

# Of gRPC: a client that would repeat the call by itself does not. A supervisor or a
# remote that was silent for seconds will be so again, and the caller would only be
# told later.
_NOT_AGAIN = (("grpc-retry-pushback-ms", "-1"),)
_SLOW = (Reason.SUPERVISOR_UNREACHABLE, Reason.REPOSITORY_UNAVAILABLE)

_ELLIPSIS = "..."
_MAX_VIOLATIONS = 32
_MAX_METADATA = 16

CODES: Mapping[Reason, grpc.StatusCode] = MappingProxyType(
    {
        Reason.FIELD_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.MALFORMED_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
        Reason.PROJECT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.PROJECT_SPEC_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
        Reason.PROJECT_BUSY: grpc.StatusCode.ABORTED,
        Reason.PROJECT_NOT_STOPPED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PROJECT_PATH_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.PROJECT_PATH_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.SETTINGS_INVALID: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RUNTIME_NOT_RUNNING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RUNTIME_SPEC_CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RUNTIME_START_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RUNTIME_NOT_READY: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.COMMAND_NOT_FOUND: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.COMMAND_NOT_EXECUTABLE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.COMMAND_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.SUPERVISOR_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.LOG_CURSOR_AHEAD: grpc.StatusCode.OUT_OF_RANGE,
        Reason.PROJECT_NOT_REPOSITORY_ROOT: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PROJECT_HAS_NO_REMOTE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CYCLE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.CYCLE_ALREADY_RUNNING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.CYCLE_NOT_AWAITING_DECISION: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.APPROVAL_STALE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.REQUEST_ID_REUSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RELEASE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.ROLLBACK_DENIED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PROJECT_IN_SAFE_MODE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PROJECT_FROZEN: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.BASE_CONTAINS_BAD_CHANGE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.EDIT_PATH_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.PATCH_DOES_NOT_APPLY: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.AUDIT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
        Reason.STREAM_STALLED: grpc.StatusCode.UNAVAILABLE,
        Reason.NO_WORKING_RELEASE: grpc.StatusCode.UNAVAILABLE,
        Reason.PROJECT_IS_SERVER: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.RUN_AS_NOT_POSSIBLE: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.INTERNAL: grpc.StatusCode.INTERNAL,
        Reason.RELEASE_MARKED_BAD: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.REVISION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.FILE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.TEST_REPORT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.REPOSITORY_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.DECIDED_BY_REQUESTER: grpc.StatusCode.PERMISSION_DENIED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireError:
    """An error as a call ends with it. Fits every client's limits.

    message: at most 1 KiB of printable text. trailers: at most 6 KiB with it.
    """

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def wire_error(error: AttError) -> WireError:
    """The wire form of `error`; what does not fit is cut, never the code or the reason."""
    halvings = 0
    while True:
        built = _build(error, halvings)
        if _size(built) <= MAX_TRAILER_BYTES:
            return built
        halvings += 1


def escape(text: str, max_bytes: int = MAX_MESSAGE_BYTES) -> str:
    """`text` with all but printable characters and newlines escaped, cut in its middle.

    The result has at most `max_bytes` bytes of UTF-8 and no lone surrogate,
    which gRPC would never deliver.
    """
    # What is far too long is cut before it is looked at.
    text = _cut(text, 2 * max_bytes)
    shown = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    while len(shown.encode()) > max_bytes:
        excess = len(shown.encode()) - max_bytes
        shown = _cut(shown, len(shown) - max(1, excess // 4))
    return shown


def _build(error: AttError, halvings: int) -> WireError:
    text_bytes = MAX_MESSAGE_BYTES >> halvings
    value_bytes = text_bytes // 4
    message = escape(error.message, text_bytes)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={
                key: escape(value, value_bytes)
                for key, value in list(error.metadata.items())[:_MAX_METADATA]
            },
        )
    ]
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=escape(violation.field, value_bytes),
                description=escape(violation.description, value_bytes),
            )
            for violation in error.violations[: _MAX_VIOLATIONS >> halvings]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_delay is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_delay)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code = CODES[error.reason]
    status = status_pb2.Status(
        code=code.value[0], message=message, details=[_packed(d) for d in details]
    )
    return WireError(
        code=code,
        message=message,
        trailers=(
            (REASON_TRAILER, str(error.reason)),
            (DETAILS_TRAILER, status.SerializeToString()),
            *(_NOT_AGAIN if error.reason in _SLOW else ()),
        ),
    )


def _size(error: WireError) -> int:
    """The bytes that the error takes on the wire: the text percent-encoded, bytes in base64."""
    size = sum(1 if 0x20 <= b <= 0x7E and b != 0x25 else 3 for b in error.message.encode())
    for key, value in error.trailers:
        size += len(key) + (len(value) * 4 // 3 if isinstance(value, bytes) else len(value))
    return size


def _packed(detail: Message) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _cut(text: str, length: int) -> str:
    """`text` with its middle left out if it has more than `length` characters.

    Both ends say most: what happened, and an app's last words.
    """
    if len(text) <= length:
        return text
    tail = max(0, length - len(_ELLIPSIS)) // 2
    head = max(0, length - len(_ELLIPSIS) - tail)
    return (text[:head] + _ELLIPSIS + text[len(text) - tail :])[:length]

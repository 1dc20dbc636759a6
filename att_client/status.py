"""Turns a failed call into an `AttError`: the one place that reads a status."""

from __future__ import annotations

from datetime import timedelta

import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from att_client.errors import AttError, FieldViolation, UnavailableError, error_class

_DOMAIN = "att.v1"
_DETAILS_TRAILER = "grpc-status-details-bin"
_REASON_TRAILER = "att-reason"


def from_rpc(error: grpc.aio.AioRpcError, *, method: str, target: str) -> AttError:
    """The error for a call of `method` (`/package.Service/Method`) at `target`.

    The reason is that of the `google.rpc.ErrorInfo` in the trailers, else the
    trailer `att-reason`, else empty.
    """
    code = error.code()
    message = error.details() or ""
    trailers: dict[str, str | bytes] = {}
    for key, value in error.trailing_metadata() or ():
        trailers.setdefault(key, value)
    info, violations, retry_delay = _details(trailers.get(_DETAILS_TRAILER))
    reason = info.reason if info is not None else _text(trailers.get(_REASON_TRAILER, ""))
    if code is StatusCode.CANCELLED and not reason:
        # Not by us, that raises CancelledError: a server that goes resets what
        # it has not begun.
        code = StatusCode.UNAVAILABLE
    if not reason:
        message = _local_message(code, message, method.rpartition("/")[2], target)
    return error_class(code, reason)(
        message,
        code=code,
        reason=reason,
        metadata=dict(info.metadata) if info is not None else {},
        violations=violations,
        retry_delay=retry_delay,
    )


def unreachable(why: str, *, method: str, target: str) -> UnavailableError:
    """The error for a call that was not tried, as nobody is there to answer it."""
    code = StatusCode.UNAVAILABLE
    message = _local_message(code, why, method.rpartition("/")[2], target)
    return UnavailableError(message, code=code)


def _details(
    value: str | bytes | None,
) -> tuple[error_details_pb2.ErrorInfo | None, list[FieldViolation], timedelta | None]:
    info, retry_delay = None, None
    violations: list[FieldViolation] = []
    if not isinstance(value, bytes):
        return info, violations, retry_delay
    try:
        for detail in status_pb2.Status.FromString(value).details:
            found = error_details_pb2.ErrorInfo()
            request = error_details_pb2.BadRequest()
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(found):
                if found.domain == _DOMAIN:
                    info = found
            elif detail.Unpack(request):
                violations += [
                    FieldViolation(field=v.field, description=v.description)
                    for v in request.field_violations
                ]
            elif detail.Unpack(retry):
                retry_delay = retry.retry_delay.ToTimedelta()
    except DecodeError:
        # Something between here and the server mangled it; code and text remain.
        pass
    return info, violations, retry_delay


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")


def _local_message(code: StatusCode, message: str, method: str, target: str) -> str:
    # Without a reason the status is gRPC's own, and its text speaks of sockets.
    if code is StatusCode.UNAVAILABLE:
        return f"{method}: the server at {target} cannot be reached ({message})."
    if code is StatusCode.DEADLINE_EXCEEDED:
        return f"{method}: the server at {target} did not answer in time; the call may have acted."
    if code is StatusCode.UNIMPLEMENTED:
        return f"{method}: the server at {target} does not know this call ({message})."
    return f"{method}: {message or code.name}"

"""How many bytes a request may have: only one that carries a change may be large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from google.protobuf.descriptor import MethodDescriptor

from att_server.core.errors import AttError, Reason, field_invalid

MAX_REQUEST_BYTES = 4 << 20
MAX_CHANGE_BYTES = 32 << 20
"""gRPC itself refuses more, with RESOURCE_EXHAUSTED and without a reason of ours."""

_MAX_LARGE_BYTES = 64 << 20
_LARGE = 1 << 20
_SOON = timedelta(seconds=1)
_CHANGES = frozenset({"att.v1.BootstrapService.PlanCycle", "att.v1.BootstrapService.StartCycle"})


def max_request_bytes(method: MethodDescriptor) -> int:
    """The most bytes that a request of this rpc may have."""
    return MAX_CHANGE_BYTES if method.full_name in _CHANGES else MAX_REQUEST_BYTES


def too_large(size: int, limit: int) -> AttError:
    """The error for a request of `size` bytes."""
    return field_invalid(
        "request",
        f"has {size:,} bytes, and at most {limit:,} are taken; divide it into several",
    )


class LargeRequests:
    """Bounds the memory that large requests take together while they are worked on."""

    def __init__(self, max_bytes: int = _MAX_LARGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Counts a request of `size` bytes while the context is open.

        Raises RATE_LIMITED where too many are worked on; one of at most 1 MiB never waits
        for others.
        """
        if size <= _LARGE:
            yield
            return
        if self._bytes + size > self._max_bytes:
            raise AttError(
                Reason.RATE_LIMITED,
                f"Large changes of {self._bytes:,} bytes are worked on, and at most "
                f"{self._max_bytes:,} are at once. Call again in a second.",
                retry_delay=_SOON,
                limit=self._max_bytes,
            )
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

"""Collects everything that is wrong with a request, so that one answer names it all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from att_server.core.errors import FieldViolation, fields_invalid, not_implemented
from att_server.core.violations import span_text
from att_server.rpc import convert_time

MAX_PAGE_SIZE = 1000
MAX_REQUEST_ID = 128
MAX_TOKEN = 1024

_PROJECT_ID = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")
_MAX_DURATION_SECONDS = 315_576_000_000
_MIN_TIMESTAMP_SECONDS = -62_135_596_800
_MAX_TIMESTAMP_SECONDS = 253_402_300_799


class Checks:
    """The checks of one request; `done` raises what they found.

    A field of a capability that this server lacks is refused too, with
    NOT_IMPLEMENTED: a pretended success would be worse.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._lacking = ""

    def done(self) -> None:
        """Raises FIELD_INVALID with every violation, else NOT_IMPLEMENTED with the first lack."""
        if self._violations:
            raise fields_invalid(self._violations)
        if self._lacking:
            raise not_implemented(self._lacking)

    def broken(self, field: str, rule: str) -> None:
        """Notes that `field` breaks the rule, which reads on from the field's name."""
        self._violations.append(FieldViolation(field=field, description=rule))

    def lacking(self, capability: str) -> None:
        """Notes that the request needs a capability that this server does not offer."""
        self._lacking = self._lacking or capability

    def project_id(self, value: str, field: str = "project_id") -> None:
        """An id of 2 to 63 characters, as ProjectService defines it."""
        if _PROJECT_ID.fullmatch(value) is None:
            self.broken(
                field,
                "must have 2 to 63 characters a-z, 0-9 and -, begin with a letter "
                "and not end with -",
            )

    def request_id(self, value: str) -> None:
        """Empty, or an id that a client made."""
        self.text("request_id", value, MAX_REQUEST_ID)

    def text(self, field: str, value: str, max_length: int) -> None:
        """Printable text of up to `max_length` characters, empty included."""
        if len(value) > max_length:
            self.broken(field, f"must have at most {max_length:,} characters")
        elif not value.isprintable():
            self.broken(field, "must have printable characters only")

    def page(self, page_size: int, page_token: str) -> None:
        """What every List takes. The token itself is checked where it is used."""
        if page_size < 0:
            self.broken("page_size", f"must be 0 to {MAX_PAGE_SIZE:,}")
        if len(page_token) > MAX_TOKEN:
            self.broken("page_token", "is not a token that a page gave")

    def range(self, field: str, value: int, low: int, high: int) -> None:
        """A number from `low` to `high`, both allowed."""
        if not low <= value <= high:
            self.broken(field, f"must be {low:,} to {high:,}")

    def enum(self, field: str, value: int, names: Mapping[int, Any]) -> None:
        """A value that this server knows."""
        if value not in names:
            self.broken(field, f"has the unknown value {value}")

    def duration(self, field: str, value: Duration, low: timedelta, high: timedelta) -> None:
        """A span from `low` to `high`, both allowed."""
        if not is_duration(value):
            self.broken(field, "is not a valid duration")
        elif not low <= convert_time.to_timedelta(value) <= high:
            self.broken(field, f"must be {span_text(low)} to {span_text(high)}")

    def timestamp(self, field: str, value: Timestamp) -> None:
        """A time from year 1 to 9999."""
        seconds_fit = _MIN_TIMESTAMP_SECONDS <= value.seconds <= _MAX_TIMESTAMP_SECONDS
        if not seconds_fit or not 0 <= value.nanos < 1_000_000_000:
            self.broken(field, "is not a valid time")


def is_duration(value: Duration) -> bool:
    """Whether the message is one that its definition allows."""
    nanos_fit = abs(value.nanos) < 1_000_000_000 and value.seconds * value.nanos >= 0
    return abs(value.seconds) <= _MAX_DURATION_SECONDS and nanos_fit

"""Times and spans from messages and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_MAX_SECONDS = 315_576_000_000
"""The bound of a Duration, either way: 10,000 years, which a timedelta holds."""


def timestamp(time: datetime) -> Timestamp:
    """From an aware time, to the microsecond."""
    seconds, rest = divmod(time - _EPOCH, timedelta(seconds=1))
    return Timestamp(seconds=seconds, nanos=rest // _MICROSECOND * 1000)


def to_datetime(value: Timestamp) -> datetime:
    """In UTC, cut to the microsecond; the message is taken as validated."""
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def duration(span: timedelta) -> Duration:
    """To the microsecond."""
    value = Duration()
    value.FromTimedelta(span)
    return value


def to_timedelta(value: Duration) -> timedelta:
    """Of any message: cut to the microsecond, and to 10,000 years either way."""
    seconds = max(-_MAX_SECONDS, min(value.seconds, _MAX_SECONDS))
    return timedelta(seconds=seconds, microseconds=value.nanos // 1000)

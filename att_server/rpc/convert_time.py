"""Times and spans from messages and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400

_MAX_SECONDS = 315_576_000_000
"""The bound of a Duration, either way: 10,000 years, which a timedelta holds."""


def timestamp(time: datetime) -> Timestamp:
    """From an aware time, to the microsecond."""
    made = Timestamp()
    set_timestamp(made, time)
    return made


def set_timestamp(to: Timestamp, time: datetime) -> None:
    """Has `to` be an aware time, to the microsecond."""
    since = time - _EPOCH
    to.seconds = since.days * _DAY + since.seconds
    to.nanos = since.microseconds * 1000


def optional_timestamp(time: datetime | None) -> Timestamp | None:
    """From an aware time; None stays unset."""
    return None if time is None else timestamp(time)


def to_datetime(value: Timestamp) -> datetime:
    """In UTC, cut to the microsecond; the message is taken as validated."""
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def duration(span: timedelta) -> Duration:
    """To the microsecond."""
    value = Duration()
    value.FromTimedelta(span)
    return value


def optional_duration(span: timedelta | None) -> Duration | None:
    """To the microsecond; None stays unset."""
    return None if span is None else duration(span)


def to_timedelta(value: Duration) -> timedelta:
    """Of any message: cut to the microsecond, and to 10,000 years either way."""
    seconds = max(-_MAX_SECONDS, min(value.seconds, _MAX_SECONDS))
    return timedelta(seconds=seconds, microseconds=value.nanos // 1000)

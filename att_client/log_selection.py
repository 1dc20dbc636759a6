"""What of a log is asked for: where to begin, and which records."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, TypedDict

from att_client._proto.att.v1 import LogAnchor, LogFilter, LogPosition, LogSeverity, LogStream


class LogSelection(TypedDict, total=False):
    """Which records of a log are given: those for which everything that is set holds.

    Gaps are always given. A cursor moves past what is not selected, too.
    """

    streams: Collection[LogStream]
    """Lines of these streams."""

    run_id: str
    """Lines and markers of this run."""

    min_severity: LogSeverity
    """Lines of at least this severity, recognised from their text; a line that states
    none, such as those of a traceback, has that of the line before it."""

    pattern: str
    """Lines in which this RE2 pattern is found, such as `timeout|refused`; at most
    4,096 bytes. `(?i)` in front of it makes it one for both cases."""

    start_time: datetime | None
    """What arrived at or after this time, which has a time zone."""

    end_time: datetime | None
    """What arrived before this time; a follow ends when something later arrives."""


def position(
    cursor: int | None = None,
    tail: int | None = None,
    since: datetime | None = None,
    anchor: LogAnchor | None = None,
    log_id: str = "",
) -> LogPosition:
    """The place that at most one of the first four names; see `Logs.read`."""
    if sum(place is not None for place in (cursor, tail, since, anchor)) > 1:
        raise TypeError("Give at most one of cursor, tail, since and anchor.")
    check_time("since", since)
    return LogPosition(cursor=cursor, tail=tail, since=since, anchor=anchor, log_id=log_id)


def log_filter(selection: LogSelection) -> LogFilter | None:
    """The filter of a request; None for one that selects all."""
    streams = selection.get("streams", ())
    if isinstance(streams, str | LogStream):
        raise TypeError("`streams` is a list of streams, such as [LogStream.STDERR].")
    check_time("start_time", selection.get("start_time"))
    check_time("end_time", selection.get("end_time"))
    fields: dict[str, Any] = {**selection, "streams": sorted(streams)}
    found = LogFilter(**fields)
    return None if found == LogFilter() else found


def check_time(name: str, time: datetime | None) -> None:
    """Raises ValueError for a time without a time zone."""
    if time is not None and time.tzinfo is None:
        raise ValueError(f"`{name}` has no time zone. Use datetime.now(UTC) or astimezone().")

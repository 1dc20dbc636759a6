"""A page of a log between the wire and the user: light, and read once.

A user is given batches of the contract's generated classes, or lines. Those
classes take longer to make than everything else on the way of a line, so a
page holds its lines in `Chunk`s, and what else it has, which is rare, as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from att.v1 import log_pb2, log_service_pb2
from att_client._proto.att.v1 import LogChunk, LogGap, RunMarker

_EPOCH = datetime.fromtimestamp(0, UTC)


def to_datetime(microseconds: int | None) -> datetime | None:
    """The time that was so long after the begin of 1970; None for None."""
    return None if microseconds is None else _EPOCH + timedelta(0, 0, microseconds)


class Chunk:
    """Lines of one stream of one run that arrived together, as in `source`.

    arrived: µs since the begin of 1970, the time itself, or None for unknown.
    offsets: `sequence_offsets` of the source.
    """

    __slots__ = (
        "arrived",
        "first_sequence",
        "line_count",
        "lines",
        "offsets",
        "partial",
        "run_id",
        "stream",
        "unterminated",
    )

    def __init__(
        self,
        source: LogChunk | log_pb2.LogChunk,
        arrived: datetime | int | None,
        offsets: list[int],
    ) -> None:
        self.first_sequence = source.first_sequence
        self.line_count = source.line_count
        self.arrived = arrived
        self.stream: int = source.stream
        self.run_id = source.run_id
        self.lines = source.lines
        self.partial = source.partial
        self.unterminated = source.unterminated
        self.offsets = offsets

    def time(self) -> datetime | None:
        """When the lines arrived, aware, in UTC."""
        # Made when it is asked for: few ask, and then often for every line.
        arrived = self.arrived
        if isinstance(arrived, int):
            arrived = self.arrived = to_datetime(arrived)
        return arrived

    def end(self) -> int:
        """The cursor behind the chunk."""
        return self.first_sequence + (self.offsets[-1] + 1 if self.offsets else self.line_count)


Part: TypeAlias = Chunk | RunMarker | LogGap | None
"""A record; None for a kind of a later server, whose numbers show in the cursor."""


class Page:
    """What a message of a follow says, and the records in it."""

    __slots__ = ("bound_run_id", "cursor", "end_cursor", "log_id", "parts", "start_cursor")

    def __init__(self, message: log_service_pb2.FollowLogsResponse, parts: list[Part]) -> None:
        self.parts = parts
        self.cursor = message.cursor
        self.start_cursor = message.start_cursor
        self.end_cursor = message.end_cursor
        self.log_id = message.log_id
        self.bound_run_id = message.bound_run_id

"""What a log holds, item by item: lines as text, markers and gaps as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import TypeAlias

from att.v1 import log_pb2
from att_client._proto.att.v1 import LogChunk, LogGap, LogRecord, LogStream, RunMarker
from att_client.errors import ProtocolError
from att_client.log_messages import (
    Page,
    arrival,
    log_gap,
    page_records,
    run_marker,
    sequence_offsets,
    to_datetime,
)


class LogLine(str):
    """A line that an app printed: its text, without the newline.

    Text is UTF-8; bytes that are not are shown as U+FFFD, and `data` has the
    line as it was. A line of more than 65,535 bytes comes in parts.
    """

    __slots__ = ("_data", "_index", "_origin")

    _origin: _Origin
    _index: int
    _data: bytes

    @property
    def sequence(self) -> int:
        """The line's sequence number."""
        origin = self._origin
        offsets = origin.offsets
        return origin.first_sequence + (offsets[self._index] if offsets else self._index)

    @property
    def cursor(self) -> int:
        """Where to go on after this line."""
        return self.sequence + 1

    @property
    def time(self) -> datetime | None:
        """When the line arrived, aware, in UTC."""
        return self._origin.arrival()

    @property
    def stream(self) -> LogStream:
        """The output stream that it was printed on."""
        return LogStream(self._origin.stream)

    @property
    def run_id(self) -> str:
        """The run that printed it."""
        return self._origin.run_id

    @property
    def data(self) -> bytes:
        """The bytes as the app wrote them, without the newline."""
        try:
            return self._data
        except AttributeError:
            return self.encode()

    @property
    def partial(self) -> bool:
        """Whether the line goes on in the next line of its stream."""
        return self._origin.partial and self._index + 1 == self._origin.line_count

    @property
    def unterminated(self) -> bool:
        """Whether the app has not ended the line: it paused, or its output ended."""
        return self._origin.unterminated and self._index + 1 == self._origin.line_count


class _Origin:
    """What the lines of a chunk share; without their bytes, so that a line that
    is kept does not keep its neighbours."""

    __slots__ = (
        "first_sequence",
        "line_count",
        "offsets",
        "partial",
        "run_id",
        "stream",
        "time",
        "unterminated",
    )

    def __init__(
        self,
        chunk: LogChunk | log_pb2.LogChunk,
        time: datetime | int | None,
        offsets: list[int],
    ) -> None:
        self.first_sequence = chunk.first_sequence
        self.line_count = chunk.line_count
        self.offsets = offsets
        self.time = time
        self.stream: int = chunk.stream
        self.run_id = chunk.run_id
        self.partial = chunk.partial
        self.unterminated = chunk.unterminated

    def arrival(self) -> datetime | None:
        """When the lines arrived."""
        # Made when it is asked for: few ask, and all lines of the chunk share it.
        time = self.time
        if isinstance(time, int):
            time = self.time = to_datetime(time)
        return time


LogItem: TypeAlias = LogLine | LogGap | RunMarker
"""What a follow yields: a line, a gap, or with `markers=True` a run marker."""


def log_items(records: Iterable[LogRecord], *, markers: bool = False) -> Iterator[LogItem]:
    """The items of a page or batch in order. Raises ProtocolError for a broken chunk.

    markers: whether run markers are among them.
    """
    return chain.from_iterable(_parts(records, markers))


def page_items(page: Page, *, markers: bool) -> Iterator[LogItem]:
    """`log_items` of a page as it was decoded."""
    return chain.from_iterable(_page_parts(page_records(page), markers))


def _parts(records: Iterable[LogRecord], markers: bool) -> Iterator[Iterable[LogItem]]:
    for record in records:
        if (chunk := record.chunk) is not None:
            yield _lines(_Origin(chunk, chunk.time, chunk.sequence_offsets), chunk.lines)
        elif record.gap is not None:
            yield (record.gap,)
        elif markers and record.run is not None:
            yield (record.run,)


def _page_parts(records: Iterable[log_pb2.LogRecord], markers: bool) -> Iterator[Iterable[LogItem]]:
    for record in records:
        if record.HasField("chunk"):
            chunk = record.chunk
            origin = _Origin(chunk, arrival(chunk), sequence_offsets(chunk))
            yield _lines(origin, chunk.lines)
        elif record.HasField("gap"):
            yield (log_gap(record.gap),)
        elif markers and record.HasField("run"):
            yield (run_marker(record.run),)


def _lines(origin: _Origin, blob: bytes) -> Iterator[LogLine]:
    try:
        texts = blob.decode().split("\n")
    except UnicodeDecodeError:
        yield from _undecodable_lines(origin, blob)
        return
    _check(origin, len(texts), texts[-1])
    del texts[-1]
    for index, text in enumerate(texts):
        line = LogLine(text)
        line._origin = origin
        line._index = index
        yield line


def _undecodable_lines(origin: _Origin, blob: bytes) -> Iterator[LogLine]:
    parts = blob.split(b"\n")
    _check(origin, len(parts), parts[-1])
    del parts[-1]
    for index, data in enumerate(parts):
        line = LogLine(data, "utf-8", "replace")
        line._origin = origin
        line._index = index
        line._data = data
        yield line


def _check(origin: _Origin, parts: int, rest: str | bytes) -> None:
    # A wrong count would give every line behind it a wrong sequence number.
    count, offsets = origin.line_count, origin.offsets
    if rest or parts - 1 != count or (offsets and len(offsets) != count):
        raise ProtocolError(
            f"The chunk at {origin.first_sequence} does not hold the {count} lines that it says."
        )

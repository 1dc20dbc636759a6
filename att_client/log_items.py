"""What a log holds, item by item: lines as text, markers and gaps as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeAlias

from att_client._proto.att.v1 import LogGap, LogRecord, LogStream, RunMarker
from att_client.errors import ProtocolError
from att_client.log_page import Chunk, Part


class LogLine(str):
    """A line that an app printed: its text, without the newline.

    Text is UTF-8; bytes that are not are shown as U+FFFD, and `data` has the
    line as it was. A line of more than 65,535 bytes comes in parts.
    """

    __slots__ = ("_chunk", "_data", "_index")

    _chunk: Chunk
    _index: int
    _data: bytes

    @property
    def sequence(self) -> int:
        """The line's sequence number."""
        chunk = self._chunk
        offsets = chunk.offsets
        return chunk.first_sequence + (offsets[self._index] if offsets else self._index)

    @property
    def cursor(self) -> int:
        """Where to go on after this line."""
        return self.sequence + 1

    @property
    def time(self) -> datetime | None:
        """When the line arrived, aware, in UTC."""
        return self._chunk.time()

    @property
    def stream(self) -> LogStream:
        """The output stream that it was printed on."""
        return LogStream(self._chunk.stream)

    @property
    def run_id(self) -> str:
        """The run that printed it."""
        return self._chunk.run_id

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
        return self._chunk.partial and self._index + 1 == self._chunk.line_count

    @property
    def unterminated(self) -> bool:
        """Whether the app has not ended the line: it paused, or its output ended."""
        return self._chunk.unterminated and self._index + 1 == self._chunk.line_count


LogItem: TypeAlias = LogLine | LogGap | RunMarker
"""What a follow yields: a line, a gap, or with `markers=True` a run marker."""


def log_items(records: Iterable[LogRecord], *, markers: bool = False) -> Iterator[LogItem]:
    """The items of a page or batch in order. Raises ProtocolError for a broken chunk.

    markers: whether run markers are among them.
    """
    return part_items(map(_part, records), markers=markers)


def part_items(parts: Iterable[Part], *, markers: bool) -> Iterator[LogItem]:
    """`log_items` of what a page holds. Takes the bytes out of its chunks."""
    for part in parts:
        if isinstance(part, Chunk):
            # A line that is kept keeps the chunk: it must not keep its neighbours.
            blob, part.lines = part.lines, b""
            try:
                texts = blob.decode().split("\n")
            except UnicodeDecodeError:
                yield from _undecodable_lines(part, blob)
                continue
            _check(part, len(texts), texts.pop())
            for index, line in enumerate(map(LogLine, texts)):
                line._chunk = part
                line._index = index
                yield line
        elif isinstance(part, LogGap) or (markers and isinstance(part, RunMarker)):
            yield part


def _part(record: LogRecord) -> Part:
    if (chunk := record.chunk) is not None:
        return Chunk(chunk, chunk.time, chunk.sequence_offsets)
    return record.gap if record.gap is not None else record.run


def _undecodable_lines(chunk: Chunk, blob: bytes) -> Iterator[LogLine]:
    parts = blob.split(b"\n")
    _check(chunk, len(parts), parts.pop())
    for index, data in enumerate(parts):
        line = LogLine(data, "utf-8", "replace")
        line._chunk = chunk
        line._index = index
        line._data = data
        yield line


def _check(chunk: Chunk, parts: int, rest: str | bytes) -> None:
    # A wrong count would give every line behind it a wrong sequence number.
    count, offsets = chunk.line_count, chunk.offsets
    if rest or parts - 1 != count or (offsets and len(offsets) != count):
        raise ProtocolError(
            f"The chunk at {chunk.first_sequence} does not hold the {count} lines that it says."
        )

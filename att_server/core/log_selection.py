"""What a reader asks of a log: where to begin, and which records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from att.severity import HEAD, Severity, hint_of, severity_of
from att_server.core.model import (
    LogChunk,
    LogGap,
    LogRecord,
    LogStream,
    RunEnded,
    RunStarted,
)

if TYPE_CHECKING:
    import re2

Buffer = bytes | memoryview

MAX_PATTERN_MEMORY = 4 << 20
"""Bytes that one compiled pattern may take; a larger one is refused."""

# A pattern that looks at where the text begins and ends, and not where its lines do.
_ABOUT_THE_TEXT = re.compile(r"\\[AzC]|\(\?[A-Za-z]*-[A-Za-z]*m")
_CHARACTER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """A place in a log: at most one of the first three, else the beginning or `at_end`."""

    cursor: int | None = None
    tail: int | None = None
    since: datetime | None = None
    at_end: bool = False
    log_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Selects records of a log; fields that are unset select all.

    streams, min_severity, pattern (RE2, found anywhere in the line): are about
    lines. run_id: is about lines and markers, as are the times of arrival, from
    `start_time` to before `end_time`. Gaps are always selected.
    """

    streams: frozenset[LogStream] = frozenset()
    run_id: str = ""
    min_severity: Severity = Severity.UNSPECIFIED
    pattern: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


class LineSelection:
    """Tells of the records of one log, taken in order, what a filter selects of each.

    markers: all run markers are selected, whatever the filter says of them.
    cursor: the sequence number up to which the records were looked at, None if
    `look_back` has to be given what lies before the next one.
    past: whether no record behind can be selected, for its time.
    """

    def __init__(self, selected: LogFilter, *, markers: bool = False) -> None:
        """Raises ValueError for a pattern that is not RE2."""
        self.selected = selected
        self.cursor: int | None = None
        self.past = False
        self._markers = markers
        self._before: dict[LogStream, _Before] = {}
        self._pattern = LinePattern(selected.pattern) if selected.pattern else None
        self._least = selected.min_severity
        self._hint = compiled(hint_of(self._least)).search if self.inherits else None

    @property
    def inherits(self) -> bool:
        """Whether what is selected of a record depends on those before."""
        return self._least > Severity.UNSPECIFIED

    def look_back(self, records: Sequence[LogRecord], cursor: int) -> bool:
        """Takes what lies before `cursor`, last part first; returns whether that is enough.

        records: consecutive, up to `cursor` or the first of the part before.
        """
        if self.cursor != cursor:
            self._before.clear()
            self.cursor = cursor
        began = False
        chunks: dict[LogStream, list[LogChunk]] = {stream: [] for stream in LogStream}
        for record in records:
            if isinstance(record, RunStarted):
                chunks = {stream: [] for stream in LogStream}
                began = True
            elif isinstance(record, LogChunk):
                chunks[record.stream].append(record)
        for stream, found in chunks.items():
            before = self._before.get(stream)
            if before is None and found:
                last = found[-1]
                before = self._before[stream] = _Before(last.run_id, None, last.partial)
            if before is not None and before.high is None:
                before.high = self._stated_last(found, before.run_id)
        wanted = self.selected.streams or frozenset(LogStream)
        known = {stream for stream, before in self._before.items() if before.high is not None}
        return began or wanted <= known

    def select(self, record: LogRecord) -> LogRecord | None:
        """What is selected of the next record: all, some of its lines, or None."""
        self.cursor = record.next_sequence
        if isinstance(record, LogChunk):
            return self._select_lines(record)
        if isinstance(record, LogGap):
            return record
        return record if self._markers or self.takes(record) else None

    def takes(self, marker: RunStarted | RunEnded) -> bool:
        """Whether the filter selects a run marker."""
        time = marker.time if isinstance(marker, RunStarted) else marker.exit.time
        return self.selected.run_id in ("", marker.run_id) and self._in_time(time)

    def ends_before(self, time: datetime) -> bool:
        """Notes in `past` whether records that arrived at or after `time` come too late."""
        end = self.selected.end_time
        self.past = self.past or (end is not None and time >= end)
        return self.past

    def wants(self, *, stream: LogStream, run_id: str, time: datetime, lines: Buffer) -> bool:
        """Whether something may be selected of a chunk; if not it need not be made.

        What it may be is then for `select` to say.
        """
        if self.inherits:
            return True
        selected = self.selected
        return (
            (not selected.streams or stream in selected.streams)
            and selected.run_id in ("", run_id)
            and self._in_time(time)
            and (self._pattern is None or self._pattern.may_match(lines))
        )

    @property
    def among(self) -> bool:
        """Whether `next_wanted` takes lines among other bytes.

        Each line is followed by its newline, and has another byte before it that is no
        part of a word or of a character.
        """
        return self._pattern is None or self._pattern.among

    def next_wanted(self, stretch: Buffer, start: int = 0) -> int | None:
        """Where, from `start`, is the first line of which something may be selected.

        stretch: lines, of which one begins at `start`. Returns a place in that line, or,
        with lines among other bytes, in those right before it; None: there is no such line.
        """
        return start if self._pattern is None else self._pattern.next_match(stretch, start)

    def _in_time(self, time: datetime) -> bool:
        start, end = self.selected.start_time, self.selected.end_time
        return (start is None or time >= start) and (end is None or time < end)

    def _select_lines(self, chunk: LogChunk) -> LogChunk | None:
        selected = self.selected
        high = self._severe(chunk) if self.inherits else None
        if (
            (selected.streams and chunk.stream not in selected.streams)
            or selected.run_id not in ("", chunk.run_id)
            or not self._in_time(chunk.time)
            or (high is not None and not high)
        ):
            return None
        if self._pattern is None:
            return chunk if high is None else _only(chunk, high)
        found = self._pattern.matching(chunk.lines)
        if high is not None and len(high) < chunk.line_count:
            kept = set(high)
            found = [index for index in found if index in kept]
        return _only(chunk, found)

    def _severe(self, chunk: LogChunk) -> list[int]:
        """The lines that are severe enough, by their place in the chunk."""
        before = self._before.get(chunk.stream)
        if before is None or before.run_id != chunk.run_id:
            before = self._before[chunk.stream] = _Before(chunk.run_id, None, False)
        goes_on, before.goes_on = before.goes_on, chunk.partial
        assert self._hint is not None, "made with the severity"
        if not before.high and self._hint(chunk.lines) is None:
            return []
        high = bool(before.high)
        found: list[int] = []
        for index, line in enumerate(chunk.lines.split(b"\n")[:-1]):
            # The rest of a line that was cut begins anywhere in its text.
            if index or not goes_on:
                stated = _stated(line)
                if stated:
                    high = stated >= self._least
            if high:
                found.append(index)
        before.high = high
        return found

    def _stated_last(self, chunks: list[LogChunk], run_id: str) -> bool | None:
        """Whether the severity that a line of the run stated last is selected; None: none did."""
        for number in range(len(chunks) - 1, -1, -1):
            chunk = chunks[number]
            if chunk.run_id != run_id:
                return None
            goes_on = number > 0 and chunks[number - 1].partial
            for line in reversed(chunk.lines.split(b"\n")[goes_on:-1]):
                stated = _stated(line)
                if stated:
                    return stated >= self._least
        return None


@dataclass(slots=True)
class _Before:
    """What the lines before mean for the next one of a stream.

    high: whether the severity that was stated last is selected; None: none was.
    goes_on: the next line is the rest of one.
    """

    run_id: str
    high: bool | None
    goes_on: bool


def _stated(line: bytes) -> Severity:
    return severity_of(line[: HEAD * _CHARACTER_BYTES].decode(errors="replace"))


class LinePattern:
    """An RE2 pattern that is looked for in many lines at once.

    Raises ValueError for one that is not RE2.
    """

    def __init__(self, pattern: str) -> None:
        self._line = compiled(pattern).search
        # `^` and `$` are about lines, and no match goes over the end of one.
        about_lines = _ABOUT_THE_TEXT.search(pattern) is None
        self._lines = compiled(f"(?m){pattern}", within_lines=True).search if about_lines else None
        self.among = about_lines and "^" not in pattern.replace("[^", "")

    def may_match(self, lines: Buffer) -> bool:
        """Whether one of the lines may match: a quick look."""
        return self._lines is None or self._lines(lines) is not None

    def next_match(self, stretch: Buffer, start: int) -> int | None:
        """`LineSelection.next_wanted`."""
        if self._lines is None:
            return start
        found = self._lines(stretch, start)
        return None if found is None else int(found.start())

    def matching(self, lines: bytes) -> list[int]:
        """The lines that match, by their place in `lines`, each of which ends with a newline."""
        if self._lines is None:
            parts = lines.split(b"\n")[:-1]
            return [index for index, line in enumerate(parts) if self._line(line) is not None]
        found: list[int] = []
        position = index = 0
        while match := self._lines(lines, position):
            first, last = match.span()
            if first == len(lines):
                break
            start = lines.rfind(b"\n", position, first) + 1 or position
            end = lines.index(b"\n", first)
            index += lines.count(b"\n", position, start)
            if last <= end or self._line(lines[start:end]) is not None:
                found.append(index)
            position = end + 1
            index += 1
        return found


@lru_cache(maxsize=64)
def compiled(pattern: str, *, within_lines: bool = False) -> re2._Regexp:
    """The pattern, for bytes. Raises ValueError for one that is not RE2 or takes too much memory.

    within_lines: no match holds a newline.
    """
    # Costs memory that a server without patterns does not need.
    import re2

    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    options.never_nl = within_lines
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        raise ValueError("not an RE2 pattern that can be used") from error


class Gathering:
    """The page that comes of a selection: up to `max_lines` lines and `max_bytes` bytes of them.

    cursor: behind the last record that was looked at, or the last line that fitted.
    bytes_left: of lines that it still takes. ended: whether no more is taken: it is
    full, or the selection is past its time.
    """

    def __init__(
        self, selection: LineSelection, *, cursor: int, max_lines: int, max_bytes: int
    ) -> None:
        self.selection = selection
        self.records: list[LogRecord] = []
        self.cursor = cursor
        self.ended = selection.past
        self._lines_left = max_lines
        self.bytes_left = max_bytes

    def add(self, record: LogRecord) -> None:
        """Looks at the next record, unless it has ended."""
        if self.ended:
            return
        selection = self.selection
        if not isinstance(record, LogGap) and selection.ends_before(
            record.exit.time if isinstance(record, RunEnded) else record.time
        ):
            self.ended = True
            return
        found = selection.select(record)
        if isinstance(found, LogChunk):
            fitting = _fitting(found, self._lines_left, self.bytes_left, first=not self.records)
            if fitting is not found:
                # Whoever goes on looks at the rest once more.
                selection.cursor = None
                self.ended = True
                if fitting is not None:
                    self.records.append(fitting)
                    self.cursor = fitting.next_sequence
                return
            self._lines_left -= found.line_count
            self.bytes_left -= len(found.lines)
            self.ended = self._lines_left <= 0 or self.bytes_left <= 0
        if found is not None:
            self.records.append(found)
        self.cursor = record.next_sequence

    def add_all(self, records: Iterable[LogRecord]) -> None:
        """Looks at the next records, as far as it takes any."""
        for record in records:
            self.add(record)

    def skip(self, cursor: int) -> None:
        """Goes on behind records of which the selection wants nothing."""
        self.cursor = self.selection.cursor = cursor


def _fitting(chunk: LogChunk, lines_left: int, bytes_left: int, *, first: bool) -> LogChunk | None:
    """The first lines of `chunk` within the bounds; the first line of a page always fits."""
    count = min(chunk.line_count, lines_left)
    if len(chunk.lines) > bytes_left:
        count = min(count, max(chunk.lines.count(b"\n", 0, bytes_left), 1 if first else 0))
    return _only(chunk, list(range(count)))


def _only(chunk: LogChunk, indexes: list[int]) -> LogChunk | None:
    """The lines of `chunk` at these places, ascending."""
    count = len(indexes)
    if count == chunk.line_count:
        return chunk
    if not count:
        return None
    lines = chunk.lines.split(b"\n")
    places = [chunk.offsets[index] for index in indexes] if chunk.offsets else indexes
    first = places[0]
    contiguous = places[-1] - first + 1 == count
    last = indexes[-1] + 1 == chunk.line_count
    return replace(
        chunk,
        first_sequence=chunk.first_sequence + first,
        line_count=count,
        lines=b"\n".join([*(lines[index] for index in indexes), b""]),
        partial=chunk.partial and last,
        unterminated=chunk.unterminated and last,
        offsets=() if contiguous else tuple(place - first for place in places),
    )

"""One project's log as a reader sees it: its segments in order, and pages of them."""

from __future__ import annotations

import os
from bisect import bisect_right
from datetime import datetime
from pathlib import Path
from time import monotonic

from att_server.adapters.segment_reader import READ_BYTES, OpenSegments, SegmentReader, Spot
from att_server.adapters.segment_records import damaged, decode_frames, from_time
from att_server.core.model import GapReason, LogBounds, LogChunk, LogGap, LogPage, LogRecord
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameKind,
    Head,
    segment_name,
    segment_sequences,
)

# A page that does not reach the end may say an end that is this old.
_END_SECONDS = 0.25
_TAIL_STRIDE = 1 << 16
_FRESH_BYTES = 16 << 10


class ProjectLog:
    """Reads one log. Nothing is opened or looked for before the first call."""

    def __init__(self, directory: Path, log_id: str, opened: OpenSegments) -> None:
        self._directory = directory
        # Looked at with every page: text joins quicker than paths.
        self._prefix = f"{directory}/"
        self._log_id = log_id
        self._opened = opened
        self._segments: list[SegmentReader] = []
        self._firsts: list[int] = []
        self._empty_end = 0
        self._bounds = LogBounds(log_id=log_id, start=0, end=0)
        self._looked_at = 0.0

    def close(self) -> None:
        """Closes all files."""
        for segment in self._segments:
            segment.close()
        self._segments, self._firsts = [], []

    # Bounds ----------------------------------------------------------------

    @property
    def known(self) -> LogBounds:
        """The bounds as of the last look; the same object as long as they are the same."""
        start = end = self._empty_end
        if self._segments:
            start, end = self._firsts[0], self._segments[-1].end.sequence
        if self._bounds.end != end or self._bounds.start != start:
            self._bounds = LogBounds(log_id=self._log_id, start=start, end=end)
        return self._bounds

    @property
    def grown(self) -> bool:
        """Whether there may be more than `known` says."""
        if not self._segments:
            return True
        last = self._segments[-1]
        return last.unread or self._has_next(last)

    async def look(self) -> LogBounds:
        """The bounds now."""
        if not self._segments:
            self._list()
        while self._segments:
            last = self._segments[-1]
            if last.unread:
                await last.extend()
            # Bytes that are no frame may be torn, or the broken end of a
            # segment that is complete, whose name then says where the next begins.
            if not (last.stuck or self._has_next(last)):
                break
            self._list()
            if self._segments and last is self._segments[-1]:
                break
        self._looked_at = monotonic()
        return self.known

    def _has_next(self, last: SegmentReader) -> bool:
        end = last.end.sequence
        if end == last.first_sequence:
            return False
        return os.access(self._prefix + segment_name(end), os.F_OK)

    def _list(self) -> None:
        """Takes the segments that are there now."""
        try:
            firsts = segment_sequences(os.listdir(self._directory))
        except FileNotFoundError:
            firsts = []
        old = dict(zip(self._firsts, self._segments, strict=True))
        head = Head.load(self._directory)
        if head is not None and head.log_id != self._log_id:
            firsts = []
        segments = [
            old.pop(first)
            if first in old
            else SegmentReader(self._directory, self._log_id, first, self._opened)
            for first in firsts
        ]
        for gone in old.values():
            gone.close()
        for segment, following in zip(segments, firsts[1:], strict=False):
            segment.ceiling = following
        self._segments, self._firsts = segments, firsts
        if not segments:
            if head is not None and head.log_id == self._log_id:
                self._empty_end = head.next
            return
        last = segments[-1]
        at_start = last.end.offset == SEGMENT_HEADER_BYTES
        if head is not None and head.segment == last.first_sequence and at_start:
            last.start_at(Spot(head.offset, head.next), head.time_ns)

    # Pages -----------------------------------------------------------------

    def fresh_page(self, cursor: int, max_bytes: int) -> LogPage | None:
        """What is new behind the end as it was known, if `cursor` is there and it is little.

        The short way for who follows: one read, and a look that no other segment
        has begun. None where `page` has to look properly.
        """
        if not self._segments:
            return None
        last = self._segments[-1]
        if cursor != last.end.sequence:
            return None
        view = last.read_behind_end(min(_FRESH_BYTES, max_bytes))
        if not view:
            return None
        spot = last.end
        decoded = decode_frames(view, spot, max_bytes=max_bytes)
        if not decoded.records or decoded.end.offset - spot.offset < len(view):
            return None
        last.index(spot, decoded.time_ns)
        last.advance(decoded.end)
        if self._has_next(last):
            return None
        records, after = tuple(decoded.records), decoded.end.sequence
        return LogPage(records=records, cursor=after, bounds=self.known)

    async def page(self, cursor: int, max_bytes: int) -> tuple[LogPage, bool]:
        """The page from `cursor` on, and whether it stays as it is when the log grows."""
        if not self._segments or not self._firsts[0] <= cursor <= self.known.end:
            await self.look()
        bounds = self.known
        if cursor < 0 or cursor > bounds.end:
            raise ValueError(f"cursor {cursor} is not within 0 to {bounds.end}")
        records: list[LogRecord] = []
        if cursor < bounds.start:
            count = bounds.start - cursor
            records.append(LogGap(first_sequence=cursor, count=count, reason=GapReason.RETENTION))
            cursor = bounds.start
        whole = False
        while self._segments:
            at = bisect_right(self._firsts, cursor) - 1
            found, cursor, whole = await self._read(self._segments[at], cursor, max_bytes)
            records += found
            if cursor >= self.known.end or monotonic() - self._looked_at > _END_SECONDS:
                await self.look()
            # At the end of a segment there may be another one only now.
            if records or cursor >= self.known.end:
                break
        return LogPage(records=tuple(records), cursor=cursor, bounds=self.known), whole

    async def _read(
        self, segment: SegmentReader, cursor: int, max_bytes: int
    ) -> tuple[list[LogRecord], int, bool]:
        """Records of a segment from `cursor` on, the cursor behind, whether these stay all."""
        last = segment.ceiling is None
        spot = await segment.locate(cursor)
        length = max(min(max_bytes, READ_BYTES), MAX_PAYLOAD_BYTES) + 64 * FRAME_HEADER_BYTES
        for _ in range(2):
            view = await segment.read(spot.offset, length)
            decoded = decode_frames(view, spot, max_bytes=max_bytes)
            missing = decoded.broken or segment.stop > cursor
            if decoded.records or not missing:
                break
            found = await segment.search(spot)
            if found != spot:
                stop = found.sequence if found is not None else segment.stop
                if found is not None:
                    segment.hint(found)
                    segment.advance(found)
                if stop <= cursor:
                    return [], cursor, False
                return [damaged(cursor, stop)], stop, True
        if decoded.records:
            segment.index(spot, decoded.time_ns)
            segment.hint(decoded.end)
            segment.advance(decoded.end)
            records = decoded.records
            first = records[0]
            if first.first_sequence < cursor:
                records[0] = _from(first, cursor)
            whole = decoded.full or not last
            return records, decoded.end.sequence, whole
        if segment.stop > cursor:
            # The segment ends before the next one begins, or before what was seen of it.
            return [damaged(cursor, segment.stop)], segment.stop, not last
        return [], cursor, False

    # Places ----------------------------------------------------------------

    async def seek_tail(self, lines: int) -> int:
        """The cursor before the last `lines` lines."""
        bounds = await self.look()
        stop = bounds.end
        while lines > 0 and stop > bounds.start:
            # Markers and gaps take numbers too, so each stride may fall short.
            stride = min(lines, _TAIL_STRIDE)
            start = max(bounds.start, stop - stride)
            frames = await self._line_frames(start, stop)
            for first, after in reversed(frames):
                if after - first >= lines:
                    return after - lines
                lines -= after - first
            stop = start
        return stop

    async def seek_time(self, moment: datetime) -> int:
        """The cursor before the first record at or after a time."""
        bounds = await self.look()
        time_ns = from_time(moment)
        low, high = 0, len(self._segments)
        while low < high:
            middle = (low + high) // 2
            self._segments[middle].open()
            if self._segments[middle].created_ns < time_ns:
                low = middle + 1
            else:
                high = middle
        # The segment before the first that was made at or after the time.
        for segment in self._segments[max(0, low - 1) :]:
            found = await segment.locate_time(time_ns)
            if found is not None:
                return max(found, bounds.start)
        return self.known.end

    async def _line_frames(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The lines within `start` to `stop`: first sequence number and the one after, by frame."""
        result: list[tuple[int, int]] = []
        at = bisect_right(self._firsts, start) - 1
        for segment in self._segments[at:]:
            if segment.first_sequence >= stop:
                break
            spot = await segment.locate(max(start, segment.first_sequence))
            async for frames in segment.walk(spot):
                for _, frame in frames:
                    first = max(frame.first_sequence, start)
                    after = min(frame.next_sequence, stop)
                    if frame.kind == FrameKind.LINES and first < after:
                        result.append((first, after))
                if frames[-1][1].next_sequence >= stop:
                    break
        return result


def _from(record: LogRecord, cursor: int) -> LogRecord:
    """The part of a record from `cursor` on, which lies inside it."""
    if isinstance(record, LogChunk):
        return record.slice(cursor, record.next_sequence)
    assert isinstance(record, LogGap), "a marker has one sequence number"
    return LogGap(
        first_sequence=cursor,
        count=record.next_sequence - cursor,
        reason=record.reason,
        lost_lines=None,
    )

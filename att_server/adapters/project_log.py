"""One project's log as a reader sees it: its segments in order, and pages of them."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from time import monotonic

from att_server.adapters.log_removals import Removals, remove_segments
from att_server.adapters.open_segments import READ_BYTES, OpenSegments
from att_server.adapters.segment_index import make_index
from att_server.adapters.segment_reader import SegmentReader, Spot
from att_server.adapters.segment_records import (
    damaged,
    decode_frames,
    from_time,
    part_from,
    to_time,
)
from att_server.adapters.segment_sweep import sweep
from att_server.core.log_facts import LogInfo, LogSegment
from att_server.core.log_selection import Gathering
from att_server.core.model import GapReason, LogBounds, LogPage, LogRecord
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameKind,
    Head,
    frame_at,
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
        self._kept_from = 0
        self._bounds = LogBounds(log_id=log_id, start=0, end=0)
        self._removals: Removals | None = None
        self._looked_at = 0.0
        self._newest: tuple[int, int, LogPage] | None = None

    def close(self) -> None:
        """Closes all files; what is asked next looks for them anew."""
        for segment in self._segments:
            segment.retire()
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
        return self._segments[-1].unread or self.goes_on

    async def look(self) -> LogBounds:
        """The bounds now."""
        if not self._segments:
            self.list_segments()
        while self._segments:
            last = self._segments[-1]
            if last.unread:
                await last.extend()
            # Bytes that are no frame may be torn, or the broken end of a
            # segment that is complete, whose name then says where the next begins.
            if not (last.stuck or self.goes_on):
                break
            self.list_segments()
            if self._segments and last is self._segments[-1]:
                break
        self._looked_at = monotonic()
        return self.known

    @property
    def goes_on(self) -> bool:
        """Whether a segment has begun behind the last that is known."""
        if not self._segments:
            return False
        last = self._segments[-1]
        end = last.end.sequence
        if end == last.first_sequence:
            return False
        return os.access(self._prefix + segment_name(end), os.F_OK)

    def list_segments(self) -> None:
        """Takes the segments that are there now."""
        try:
            found = segment_sequences(os.listdir(self._directory))
            firsts = [first for first in found if first >= self._kept_from]
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
            gone.retire()
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

        The short way for who follows: one read. It does not look whether another segment
        has begun, which `goes_on` says. None where `page` has to look properly.
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
        records, after = tuple(decoded.records), decoded.end.sequence
        page = LogPage(records=records, cursor=after, bounds=self.known)
        self._newest = cursor, max_bytes, page
        return page

    def newest_page(self, cursor: int, max_bytes: int) -> LogPage | None:
        """The last fresh page, if it was that one and nothing came since."""
        if self._newest is None or self._newest[:2] != (cursor, max_bytes) or self.grown:
            return None
        page = self._newest[2]
        return page if page.bounds == self.known else None

    async def page(
        self, cursor: int, max_bytes: int, *, until: int | None = None
    ) -> tuple[LogPage, bool]:
        """The page from `cursor` on, and whether it stays as it is when the log grows.

        until: where it ends, if it comes so far and a frame begins there.
        """
        if not self._segments or not self._firsts[0] <= cursor <= self.known.end:
            await self.look()
        bounds = self.known
        if cursor < 0 or cursor > bounds.end:
            raise ValueError(f"cursor {cursor} is not within 0 to {bounds.end}")
        records: list[LogRecord] = []
        if cursor < bounds.start:
            records += self._removed.gaps(cursor, bounds.start)
            cursor = bounds.start
        whole = False
        while self._segments:
            at = bisect_right(self._firsts, cursor) - 1
            found, cursor, whole = await self._read(self._segments[at], cursor, max_bytes, until)
            records += found
            if cursor >= self.known.end or monotonic() - self._looked_at > _END_SECONDS:
                await self.look()
            # At the end of a segment there may be another one only now.
            if records or cursor >= self.known.end:
                break
        return LogPage(records=tuple(records), cursor=cursor, bounds=self.known), whole

    async def _read(
        self, segment: SegmentReader, cursor: int, max_bytes: int, until: int | None
    ) -> tuple[list[LogRecord], int, bool]:
        """Records of a segment from `cursor` on, the cursor behind, whether these stay all."""
        last = segment.ceiling is None
        spot = await segment.locate(cursor)
        length = max(min(max_bytes, READ_BYTES), MAX_PAYLOAD_BYTES) + 64 * FRAME_HEADER_BYTES
        for _ in range(2):
            view = await segment.read(spot.offset, length)
            decoded = decode_frames(view, spot, max_bytes=max_bytes, until=until)
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
                records[0] = part_from(first, cursor)
            whole = decoded.full or not last
            return records, decoded.end.sequence, whole
        if segment.stop > cursor:
            # The segment ends before the next one begins, or before what was seen of it.
            return [damaged(cursor, segment.stop)], segment.stop, not last
        return [], cursor, False

    async def sweep(self, page: Gathering, threads: Executor, *, max_bytes: int) -> int:
        """Gathers, in a thread, from as many intact frames of one segment as there are.

        Begins at the page's cursor, if a frame begins there. Returns how many bytes
        were looked at, about `max_bytes` at most.
        """
        if not self._segments or not self._firsts[0] <= page.cursor < self.known.end:
            return 0
        segment = self._segments[bisect_right(self._firsts, page.cursor) - 1]
        spot = await segment.locate(page.cursor)
        if spot.sequence != page.cursor:
            return 0
        index = segment.index_file
        behind = await segment.in_thread(
            threads, lambda fd: sweep(fd, spot, page, max_bytes=max_bytes, index=index)
        )
        segment.hint(behind)
        segment.advance(behind)
        return behind.offset - spot.offset

    # Segments --------------------------------------------------------------

    async def segments(self) -> Sequence[LogSegment]:
        """The segments, in order. What the writer may still need is not removable."""
        await self.look()
        self.list_segments()
        removable = self._removable_before()
        found: list[LogSegment] = []
        for segment in self._segments:
            if not segment.created_ns:
                segment.open()
            following = self.known.end if segment.ceiling is None else segment.ceiling
            found.append(
                LogSegment(
                    first_sequence=segment.first_sequence,
                    next_sequence=following,
                    size_bytes=segment.size,
                    first_time=to_time(segment.created_ns) if segment.created_ns else None,
                    removable=segment.ceiling is not None and following <= removable,
                )
            )
        return found

    async def remove(self, before: int, reason: GapReason) -> LogBounds:
        """Removes the removable segments that lie before a sequence number as a whole."""
        gone = [
            segment
            for segment in await self.segments()
            if segment.removable and segment.next_sequence <= before
        ]
        if not gone:
            return self.known
        removals = None
        if reason is GapReason.TRIMMED:
            removals = self._removed.with_trim(gone[0].first_sequence, gone[-1].next_sequence)
            self._removals = removals
        # They are gone for readers before they go, one by one.
        kept_from, self._kept_from = self._kept_from, gone[-1].next_sequence
        self.list_segments()
        try:
            await asyncio.to_thread(
                remove_segments,
                self._directory,
                self._log_id,
                [segment.first_sequence for segment in gone],
                removals,
            )
        except OSError:
            self._kept_from = kept_from
            raise
        finally:
            self.list_segments()
        return self.known

    async def make_index(self, threads: Executor) -> bool:
        """Makes the index of one complete segment that has none; returns whether there was one."""
        await self.look()
        for segment in reversed(self._segments[:-1]):
            ceiling = segment.ceiling
            if ceiling is None or segment.damaged or segment.index_file is not None:
                continue
            made = await asyncio.get_running_loop().run_in_executor(
                threads, make_index, segment.path, self._log_id, ceiling
            )
            segment.damaged = made is None
            segment.look_for_index()
            return True
        return False

    async def info(self, since: datetime) -> LogInfo:
        """What there is to say of the log; rates are those since a time."""
        segments = await self.segments()
        bounds = self.known
        recent = await self.seek_time(since)
        return LogInfo(
            bounds=bounds,
            size_bytes=sum(segment.size_bytes for segment in segments),
            segment_count=len(segments),
            first_time=segments[0].first_time if segments else None,
            last_time=await self._last_time(),
            recent_records=bounds.end - recent,
            recent_bytes=await self._bytes_from(recent),
        )

    @property
    def _removed(self) -> Removals:
        if self._removals is None:
            self._removals = Removals.load(self._directory, self._log_id)
        return self._removals

    def _removable_before(self) -> int:
        """Segments that lie before this as a whole are not needed to go on writing."""
        head = Head.load(self._directory)
        return 0 if head is None or head.log_id != self._log_id else head.segment

    async def _last_time(self) -> datetime | None:
        for segment in reversed(self._segments):
            if segment.end.sequence > segment.first_sequence:
                spot = await segment.locate(segment.end.sequence - 1)
                frame = frame_at(await segment.read(spot.offset, FRAME_HEADER_BYTES), 0)
                return None if frame is None else to_time(frame.time_ns)
        return None

    async def _bytes_from(self, cursor: int) -> int:
        """The bytes on disk from a record on."""
        total = 0
        for segment in reversed(self._segments):
            total += segment.size
            if segment.first_sequence <= cursor:
                spot = await segment.locate(cursor)
                return max(0, total - spot.offset)
        return total

    # Places ----------------------------------------------------------------

    async def seek_tail(self, lines: int) -> int:
        """The cursor before the last `lines` lines."""
        bounds = await self.look()
        stop = bounds.end
        if lines >= bounds.end - bounds.start:
            return bounds.start
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

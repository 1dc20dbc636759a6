"""One segment of a log, read while it is written.

Everything here runs on the event loop. Reads take what is in the page cache at
once and go through a thread otherwise.
"""

from __future__ import annotations

import asyncio
import errno
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from att_server.adapters.open_segments import SCRATCH_BYTES, OpenSegments
from att_server.adapters.segment_index import SegmentIndex, load_index
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    Frame,
    SegmentHeader,
    find_frame,
    frame_at,
    frames_in,
    segment_name,
)

_WALK_BYTES = 16 << 10
_WALK_TURN = 16
_INDEX_BYTES = 64 << 10
_SEARCH_BYTES = 1 << 20
_HINTS = 64
_AHEAD_BYTES = 2 << 20
_T = TypeVar("_T")
_NOT_NOW = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL})


class Spot(NamedTuple):
    """A place between two frames of a segment."""

    offset: int
    sequence: int


class SegmentReader:
    """Finds and reads frames of one segment.

    end: the place behind the last frame known. Only the last segment of a log
    still grows; `ceiling` is the first sequence number of the next one, None
    for the last. damaged: whether it is known that not all of it is intact.
    """

    def __init__(
        self, directory: Path, log_id: str, first_sequence: int, opened: OpenSegments
    ) -> None:
        self.first_sequence = first_sequence
        self.ceiling: int | None = None
        self.end = Spot(SEGMENT_HEADER_BYTES, first_sequence)
        self.created_ns = 0
        self.damaged = False
        self._log_id = log_id
        self._readable = False
        self._retired = False
        self._complete_size = 0
        self._path = directory / segment_name(first_sequence)
        self._opened = opened
        self._fd = -1
        self._reads: set[asyncio.Future[Any]] = set()
        self._close_after_reads = False
        # The file's size and time of change when nothing was found behind `end`.
        self._searched = (0, 0)
        # The same, when the last frame was not whole.
        self._torn = (0, 0)
        # A sparse index: frames about every 64 KiB, where somebody walked, or all of
        # those that the file beside a complete segment names.
        self._sequences = array("q", [first_sequence])
        self._offsets = array("q", [SEGMENT_HEADER_BYTES])
        self._times = array("q", [0])
        self._index: SegmentIndex | None = None
        self._index_looked_for = False
        self._hints: dict[int, int] = {}

    # Files -----------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no thread reads from the file."""
        return not self._reads

    def open(self) -> None:
        """Opens the file and reads its header. Raises FileNotFoundError if it is gone."""
        if self._retired:
            raise FileNotFoundError(errno.ENOENT, "not a segment of the log any more", self._path)
        if not self._readable and self._fd >= 0 and self.idle:
            # Its writer was stopped before the header was whole: the next one makes it anew.
            os.close(self._fd)
            self._fd = -1
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if not self._readable:
            # A new segment is seen before its header is written.
            header = SegmentHeader.decode(os.pread(self._fd, SEGMENT_HEADER_BYTES, 0))
            if header is not None and header.log_id == self._log_id:
                self.created_ns = header.created_ns
                self._readable = True
        self._opened.used(self)

    def close(self) -> None:
        """Closes the file, when the last thread that reads from it is done."""
        self._opened.closed(self)
        if self._index is not None:
            self._sequences = array("q", [self.first_sequence])
            self._offsets = array("q", [SEGMENT_HEADER_BYTES])
            self._times = array("q", [0])
            self._index, self._index_looked_for = None, False
        if self._reads:
            self._close_after_reads = True
        elif self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def retire(self) -> None:
        """Closes the file for good: a reader on its way does not open it once more.

        A file that is removed keeps its room on the disk for as long as it is open.
        """
        self._retired = True
        self.close()

    @property
    def path(self) -> Path:
        """The segment's file."""
        return self._path

    @property
    def size(self) -> int:
        """The bytes of the file. Raises FileNotFoundError if it is gone."""
        # Looked at with every pass of retention: a complete one stays as it is.
        if self.ceiling is None or not self._complete_size:
            self._complete_size = self._path.stat().st_size
        return self._complete_size

    @property
    def index_file(self) -> SegmentIndex | None:
        """What the file beside a complete segment says, None if there is none."""
        if self.ceiling is not None and not self._index_looked_for:
            self._index_looked_for = True
            index = load_index(self._path, self._log_id, self.ceiling)
            if index is not None and len(index):
                self._index = index
                self._sequences, self._offsets = index.sequences, index.offsets
                self._times = index.times
                self.open()
        return self._index

    def look_for_index(self) -> None:
        """Notes that the file may have been made since."""
        self._index_looked_for = self._index is not None

    @property
    def _status(self) -> tuple[int, int]:
        """Size and time of change; with a damaged header the segment holds nothing."""
        self.open()
        status = os.fstat(self._fd)
        return (status.st_size if self._readable else 0, status.st_mtime_ns)

    @property
    def unread(self) -> bool:
        """Whether there are bytes behind `end`."""
        return self._status[0] > self.end.offset

    @property
    def stuck(self) -> bool:
        """Whether the bytes behind `end` were looked at and are no frame."""
        return self.unread and self._status == self._searched

    async def read(self, offset: int, length: int) -> memoryview:
        """Up to `length` (≤ 256 KiB and a frame) bytes at `offset`; fewer at the end of the file.

        The view is only good until the next await of anybody.
        """
        self.open()
        view = self._opened.scratch[: min(length, SCRATCH_BYTES)]
        try:
            count = os.preadv(self._fd, [view], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            count = 0
        if count == len(view) or offset + count >= os.fstat(self._fd).st_size:
            return view[:count]
        return memoryview(await self._read_in_thread(offset, len(view)))

    def read_behind_end(self, length: int) -> memoryview:
        """What lies behind `end`, if that is less than `length` bytes and can be had at once.

        Empty otherwise. The view is only good until the next read of anybody.
        """
        if self._fd < 0 or not self._readable:
            return memoryview(b"")
        view = self._opened.scratch[:length]
        try:
            count = os.preadv(self._fd, [view], self.end.offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            count = 0
        return view[: count if count < length else 0]

    async def in_thread(self, threads: Executor | None, work: Callable[[int], _T]) -> _T:
        """Has a thread do work on the open file; None: one of the event loop's."""
        self.open()
        loop = asyncio.get_running_loop()
        read = loop.run_in_executor(threads, work, self._fd)
        self._reads.add(read)
        read.add_done_callback(self._read_done)
        # When the caller is cancelled the thread still reads, and the file must stay open.
        return await asyncio.shield(read)

    async def _read_in_thread(self, offset: int, length: int) -> bytes:
        return await self.in_thread(None, lambda fd: _fetch(fd, offset, length))

    def _read_done(self, read: asyncio.Future[Any]) -> None:
        self._reads.discard(read)
        if not read.cancelled():
            read.exception()
        if self._close_after_reads and not self._reads:
            self._close_after_reads = False
            self.close()

    # Places ----------------------------------------------------------------

    @property
    def stop(self) -> int:
        """The sequence number after the segment's last, as far as that is known."""
        return self.end.sequence if self.ceiling is None else self.ceiling

    def start_at(self, spot: Spot, time_ns: int) -> None:
        """Takes a place known from elsewhere for `end`, if the file reaches so far.

        time_ns: of the record before.
        """
        if SEGMENT_HEADER_BYTES <= spot.offset <= self._status[0]:
            self.advance(spot)
            self.index(spot, time_ns)

    def advance(self, spot: Spot) -> None:
        """Notes that there are intact frames up to `spot`."""
        if spot.sequence > self.end.sequence:
            self.end = spot

    def hint(self, spot: Spot) -> None:
        """Notes a place where a reader is likely to go on."""
        if len(self._hints) >= _HINTS:
            self._hints.clear()
        self._hints[spot.sequence] = spot.offset

    async def extend(self) -> None:
        """Moves `end` behind everything that is there now."""
        if self._status == self._searched:
            return
        async for frames in self.walk(self.end):
            offset, frame = frames[-1]
            self.advance(Spot(offset + frame.total_size, frame.next_sequence))

    async def locate(self, sequence: int) -> Spot:
        """The frame that holds `sequence`, or what is in its place: broken bytes, or the end.

        sequence: at least the segment's first.
        """
        if sequence == self.end.sequence:
            return self.end
        if sequence in self._hints:
            return Spot(self._hints[sequence], sequence)
        _ = self.index_file
        at = bisect_right(self._sequences, sequence) - 1
        spot = Spot(self._offsets[at], self._sequences[at])
        async for frames in self.walk(spot):
            if frames[0][1].first_sequence > sequence:
                break
            for offset, frame in frames:
                if sequence < frame.next_sequence:
                    return Spot(offset, frame.first_sequence)
                spot = Spot(offset + frame.total_size, frame.next_sequence)
        return spot

    async def locate_time(self, time_ns: int) -> int | None:
        """The sequence number of the first frame at or after a time, None if all are before."""
        _ = self.index_file
        at = max(0, bisect_left(self._times, time_ns) - 1)
        async for frames in self.walk(Spot(self._offsets[at], self._sequences[at])):
            if frames[-1][1].time_ns >= time_ns:
                return next(f.first_sequence for _, f in frames if f.time_ns >= time_ns)
        return None

    async def walk(self, spot: Spot) -> AsyncIterator[list[tuple[int, Frame]]]:
        """All frames from `spot` on, in lists, with their offsets. Skips what is broken.

        Looks at headers only.
        """
        offset, sequence = spot
        status = self._status
        size = status[0]
        turn = 0
        while offset + FRAME_HEADER_BYTES <= size:
            turn += 1
            if turn % _WALK_TURN == 0:
                await asyncio.sleep(0)
            view = await self.read(offset, min(_WALK_BYTES, size - offset))
            base = offset
            frames: list[tuple[int, Frame]] = []
            while frame := frame_at(view, offset - base):
                if frame.first_sequence != sequence:
                    break
                if offset + frame.total_size > size:
                    # Most likely it is being written now.
                    torn, self._torn = self._torn, status
                    if torn != status and self.ceiling is None:
                        size = offset
                    break
                frames.append((offset, frame))
                offset += frame.total_size
                sequence = frame.next_sequence
            if frames:
                first = frames[0][1]
                self.index(Spot(base, first.first_sequence), first.time_ns)
                yield frames
                continue
            if size == offset:
                return
            found = await self.search(Spot(offset, sequence))
            if found is None:
                self._searched = status
                return
            offset, sequence = found
        if offset < size:
            self._searched = status

    async def search(self, spot: Spot) -> Spot | None:
        """The next intact frame from `spot` on, where there should be one; None: there is none.

        It is `spot` itself if that was only read at a bad moment.
        """
        size = self._status[0]
        offset = spot.offset
        while offset < size:
            length = min(_SEARCH_BYTES + FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES, size - offset)
            data = await self._read_in_thread(offset, length)
            if offset == spot.offset and any(True for _ in frames_in(data, 0, spot.sequence)):
                return spot
            # A frame that repeats a number is of another life of these bytes.
            found = find_frame(data, 0, spot.sequence)
            if found is not None:
                first = Frame.unpack(data, found).first_sequence
                if self.ceiling is None or first < self.ceiling:
                    return Spot(offset + found, first)
            offset += _SEARCH_BYTES
        return None

    def index(self, spot: Spot, time_ns: int) -> None:
        """Notes a place to find others from; nothing before it is later than `time_ns`."""
        if self._index is not None:
            return
        at = bisect_left(self._offsets, spot.offset)
        if spot.offset - self._offsets[at - 1] < _INDEX_BYTES:
            return
        if at < len(self._offsets) and self._offsets[at] - spot.offset < _INDEX_BYTES:
            return
        self._offsets.insert(at, spot.offset)
        self._sequences.insert(at, spot.sequence)
        self._times.insert(at, time_ns)


def _fetch(fd: int, offset: int, length: int) -> bytes:
    # Who misses the page cache once reads on, most likely.
    os.posix_fadvise(fd, offset, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return os.pread(fd, length, offset)

"""The end of a log: records wait here and go into segments, frame by frame."""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from att_server.supervisor.log_files import Files
from att_server.supervisor.log_recovery import Place, Recovered
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    NO_RUN,
    SEGMENT_HEADER_BYTES,
    STREAM_NONE,
    FrameKind,
    SegmentHeader,
    encode_frame,
    segment_name,
)

# A vector of writes takes 1,024 buffers; a frame is two.
_FRAMES_A_WRITE = 512
# The count of a frame has 32 bits.
_GAP_NUMBERS = 1 << 31
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What becomes one frame. lost_lines: for a gap in place of lines, how many."""

    kind: int
    payload: bytes
    first_sequence: int
    count: int
    time_ns: int
    run: bytes = NO_RUN
    stream: int = STREAM_NONE
    flags: int = 0
    lost_lines: int | None = None

    @property
    def size(self) -> int:
        """The bytes of the frame."""
        return FRAME_HEADER_BYTES + len(self.payload)

    @property
    def next_sequence(self) -> int:
        """The sequence number after the record."""
        return self.first_sequence + self.count

    def header(self) -> bytes:
        """The frame without its payload."""
        return encode_frame(
            self.kind,
            self.payload,
            first_sequence=self.first_sequence,
            count=self.count,
            time_ns=self.time_ns,
            run=self.run,
            stream=self.stream,
            flags=self.flags,
        )


class Appender:
    """Writes records to segments, in the order in which they are given.

    failure: why the last write failed; None: all is written. Then the lines that
    wait are lost and only counted, and markers are kept, until `write` succeeds.
    unsynced, sealed, directory_changed: what the disk has not been made to keep:
    the open segment, complete ones (their files, open), the directory.
    Not safe for several threads: its owner holds a lock around every call.
    """

    def __init__(
        self,
        directory: Path,
        *,
        log_id: str,
        recovered: Recovered,
        files: Files,
        segment_bytes: int,
    ) -> None:
        self.directory = directory
        self.place: Place = recovered.place
        self.segment_start: Place = recovered.place
        self.fd: int | None = None
        self.failure: OSError | None = None
        self.unsynced = recovered.place != recovered.synced
        self.directory_changed = self.unsynced
        self.sealed: list[int] = []
        self._log_id = log_id
        self._files = files
        self._segment_bytes = segment_bytes
        self._queue: deque[Record] = deque()
        try:
            for sequence in recovered.unsynced_segments:
                self.sealed.append(self._open(sequence))
            if self.place.segment is not None:
                self.fd = self._open(self.place.segment)
        except OSError:
            self.close()
            raise

    @property
    def next_sequence(self) -> int:
        """The sequence number after all that was given, written or not."""
        return self._queue[-1].next_sequence if self._queue else self.place.next_sequence

    def add(self, records: Iterable[Record]) -> None:
        """Takes records, each of which follows the one before without a hole."""
        self._queue.extend(records)
        if self.failure is not None:
            self._drop_lines(self.failure)

    def write(self, limit: int) -> None:
        """Writes what waits. Sets `failure` if that is not possible.

        limit: every sequence number that waits is below it.
        """
        assert self.next_sequence <= limit, "a sequence number that is not reserved"
        try:
            while self._queue:
                fd = self._open_segment()
                batch = list(islice(self._queue, _FRAMES_A_WRITE))
                buffers: list[bytes] = []
                for record in batch:
                    buffers += (record.header(), record.payload)
                self.unsynced = True
                self._advance(batch, self._files.write(fd, buffers, self.place.offset))
        except OSError as error:
            self.fail(error)
        else:
            self.failure = None

    def fail(self, error: OSError) -> None:
        """Gives up what waits for now, because of `error`."""
        self.failure = error
        if self.fd is not None and self.place.segment is not None:
            # Readers and the next writer stop before a torn frame as well.
            with suppress(OSError):
                self._files.truncate(self.fd, self.place.offset)
        self._drop_lines(error)

    def close(self) -> None:
        """Closes the files. Nothing is written."""
        for fd in (*self.sealed, self.fd):
            if fd is not None:
                self._files.close(fd)
        self.sealed, self.fd = [], None

    def _advance(self, batch: list[Record], written: int) -> None:
        """Moves behind the frames of which nothing is missing."""
        place = self.place
        left = written
        for record in batch:
            if left < record.size:
                break
            left -= record.size
            self._queue.popleft()
            place = place.after(record, place.offset + record.size)
        if place is self.place:
            raise OSError(errno.ENOSPC, "no frame fits")
        self.place = place

    def _open_segment(self) -> int:
        if self.fd is not None and self.place.offset < self._segment_bytes:
            return self.fd
        return self._new_segment()

    def _open(self, sequence: int) -> int:
        return self._files.open(self.directory / segment_name(sequence), os.O_WRONLY)

    def _new_segment(self) -> int:
        first = self.place.next_sequence
        path = self.directory / segment_name(first)
        header = SegmentHeader(
            log_id=self._log_id, first_sequence=first, created_ns=self._queue[0].time_ns
        )
        # What could be there has no frame: then its name would not be the next number.
        fd = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            if self._files.write(fd, [header.encode()], 0) < SEGMENT_HEADER_BYTES:
                raise OSError(errno.ENOSPC, "no segment header fits")
        except OSError:
            self._files.close(fd)
            self._files.remove(path)
            raise
        if self.fd is not None:
            self.sealed.append(self.fd)
        self.fd = fd
        self.directory_changed = True
        self.place = replace(self.place, segment=first, offset=SEGMENT_HEADER_BYTES)
        self.segment_start = self.place
        return fd

    def _drop_lines(self, error: OSError) -> None:
        """Puts gaps in the place of the lines that wait."""
        reason = "storage_full" if error.errno in _FULL else "damaged"
        kept: deque[Record] = deque()
        for record in self._queue:
            lost = record.count if record.kind == FrameKind.LINES else record.lost_lines
            last = kept[-1] if kept else None
            if lost is None:
                kept.append(record)
            elif last is None or last.lost_lines is None or last.count + lost > _GAP_NUMBERS:
                kept.append(_lost(record, record.count, lost, reason))
            else:
                kept[-1] = _lost(last, last.count + record.count, last.lost_lines + lost, reason)
        self._queue = kept


def gap(
    first_sequence: int, count: int, *, reason: str, lost_lines: int | None, time_ns: int
) -> Record:
    """The record of a gap; `reason` is one of those in `GapReason`."""
    return Record(
        kind=FrameKind.GAP,
        payload=json.dumps({"reason": reason, "lost_lines": lost_lines}).encode(),
        first_sequence=first_sequence,
        count=count,
        time_ns=time_ns,
        lost_lines=lost_lines,
    )


def _lost(record: Record, count: int, lines: int, reason: str) -> Record:
    return gap(
        record.first_sequence, count, reason=reason, lost_lines=lines, time_ns=record.time_ns
    )

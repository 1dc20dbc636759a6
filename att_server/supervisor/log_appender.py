"""The end of a log: records wait here and go into segments, frame by frame."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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
# On the way of every line, and in Python 3.11 a member is looked up by a call.
_LINES = int(FrameKind.LINES)


class Record(NamedTuple):
    """What becomes one frame.

    taken: how many sequence numbers. lost_lines: for a gap in place of lines, how many.
    """

    kind: int
    payload: bytes
    first_sequence: int
    taken: int
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
        return self.first_sequence + self.taken

    def header(self) -> bytes:
        """The frame without its payload."""
        return encode_frame(
            self.kind,
            self.payload,
            first_sequence=self.first_sequence,
            count=self.taken,
            time_ns=self.time_ns,
            run=self.run,
            stream=self.stream,
            flags=self.flags,
        )


class Appender:
    """Writes records to segments, in the order in which they are given.

    next_sequence: the sequence number after all that was given, written or not.
    failure: why the last write failed; None: all is written. Then the lines that
    wait are lost and only counted, and markers are kept, until `write` succeeds.
    unsynced, sealed, directory_changed: what the disk has not been made to keep:
    the open segment, complete ones (their files, open), the directory.
    segment_start: up to where the disk keeps the log once it keeps those complete ones.
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
        self.next_sequence = recovered.place.next_sequence
        self.segment_start: Place = recovered.synced
        self.fd: int | None = None
        self.failure: OSError | None = None
        self.unsynced = recovered.place != recovered.synced
        self.directory_changed = self.unsynced
        self.sealed: list[int] = []
        self._log_id = log_id
        self._files = files
        self._segment_bytes = segment_bytes
        self._queue: list[Record] = []
        # A place is made when one is asked for, which is seldom: behind `_last`,
        # which ends at `_offset` and has only lines between it and `_place`.
        self._place: Place = recovered.place
        self._last: Record | None = None
        self._offset = recovered.place.offset
        try:
            for sequence in recovered.unsynced_segments:
                self.sealed.append(self._open(sequence))
            if recovered.place.segment is not None:
                self.fd = self._open(recovered.place.segment)
        except OSError:
            self.close()
            raise

    @property
    def place(self) -> Place:
        """Behind all that is written."""
        if self._last is None:
            return self._place
        return self._place.after(self._last, self._offset)

    def add(self, records: Sequence[Record]) -> None:
        """Takes records, one or more, each of which follows the one before without a hole."""
        self._queue += records
        self.next_sequence = records[-1].next_sequence
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
                buffers: list[bytes] = []
                for record in self._queue[:_FRAMES_A_WRITE]:
                    buffers += (record.header(), record.payload)
                self.unsynced = True
                self._advance(self._files.write(fd, buffers, self._offset))
        except OSError as error:
            self.fail(error)
        else:
            self.failure = None

    def fail(self, error: OSError) -> None:
        """Gives up what waits for now, because of `error`."""
        self.failure = error
        if self.fd is not None:
            # Readers and the next writer stop before a torn frame as well.
            with suppress(OSError):
                self._files.truncate(self.fd, self._offset)
        self._drop_lines(error)

    def close(self) -> None:
        """Closes the files. Nothing is written."""
        for fd in (*self.sealed, self.fd):
            if fd is not None:
                self._files.close(fd)
        self.sealed, self.fd = [], None

    def _advance(self, written: int) -> None:
        """Moves behind the frames of which nothing is missing."""
        end = self._offset + written
        whole = 0
        for record in self._queue:
            offset = self._offset + record.size
            if offset > end:
                break
            if record.kind != _LINES:
                self._place = self._place.after(record, offset)
            self._last, self._offset = record, offset
            whole += 1
        if not whole:
            raise OSError(errno.ENOSPC, "no frame fits")
        del self._queue[:whole]

    def _open_segment(self) -> int:
        if self.fd is not None and self._offset < self._segment_bytes:
            return self.fd
        return self._new_segment()

    def _open(self, sequence: int) -> int:
        return self._files.open(self.directory / segment_name(sequence), os.O_WRONLY)

    def _new_segment(self) -> int:
        place = self.place
        first = place.next_sequence
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
        self._place = replace(place, segment=first, offset=SEGMENT_HEADER_BYTES)
        self._last, self._offset = None, SEGMENT_HEADER_BYTES
        self.segment_start = self._place
        return fd

    def _drop_lines(self, error: OSError) -> None:
        """Puts gaps in the place of the lines that wait."""
        reason = "storage_full" if error.errno in _FULL else "damaged"
        kept: list[Record] = []
        for record in self._queue:
            lost = record.taken if record.kind == _LINES else record.lost_lines
            last = kept[-1] if kept else None
            if lost is None:
                kept.append(record)
            elif last is None or last.lost_lines is None or last.taken + lost > _GAP_NUMBERS:
                kept.append(_lost(record, record.taken, lost, reason))
            else:
                kept[-1] = _lost(last, last.taken + record.taken, last.lost_lines + lost, reason)
        self._queue = kept


def gap(
    first_sequence: int, count: int, *, reason: str, lost_lines: int | None, time_ns: int
) -> Record:
    """The record of a gap; `reason` is one of those in `GapReason`."""
    return Record(
        kind=FrameKind.GAP,
        payload=json.dumps({"reason": reason, "lost_lines": lost_lines}).encode(),
        first_sequence=first_sequence,
        taken=count,
        time_ns=time_ns,
        lost_lines=lost_lines,
    )


def _lost(record: Record, count: int, lines: int, reason: str) -> Record:
    return gap(
        record.first_sequence, count, reason=reason, lost_lines=lines, time_ns=record.time_ns
    )

"""Where writing goes on in a log that an earlier writer left, whatever became of it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from att_server.supervisor.log_files import Files
from att_server.supervisor.segment import (
    HEAD_NAME,
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameKind,
    Head,
    SegmentError,
    SegmentHeader,
    find_frame,
    frames_in,
    run_to_bytes,
    segment_name,
    segment_sequences,
)

# Without a readable head nobody knows how far the numbers went beyond what is
# left. This is more than any writer reserves ahead and writes between two syncs.
_UNKNOWN_NUMBERS = 1 << 24


class Entry(Protocol):
    """What a place moves behind: a frame, or a record that becomes one."""

    @property
    def kind(self) -> int: ...
    @property
    def run(self) -> bytes: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def next_sequence(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place between two frames: where the next one goes.

    segment: first sequence number of the segment; None: a new one is needed.
    time_ns: of the record before. run: that has no end marker yet, or None.
    """

    next_sequence: int
    segment: int | None
    offset: int
    time_ns: int
    run: bytes | None

    def after(self, entry: Entry, end_offset: int) -> Place:
        """The place behind `entry`, which ends at `end_offset`."""
        run = self.run
        if entry.kind == FrameKind.RUN_STARTED:
            run = entry.run
        elif entry.kind == FrameKind.RUN_ENDED and entry.run == run:
            run = None
        return Place(
            next_sequence=entry.next_sequence,
            segment=self.segment,
            offset=end_offset,
            time_ns=max(self.time_ns, entry.time_ns),
            run=run,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A log made ready for writing.

    start: the first sequence number kept. resume_at: the number to go on with;
    what lies between `place` and it may have been given out before a crash of
    the machine. synced: up to where the disk is known to keep the log.
    unsynced_segments: those that begin after `synced`, without the one of `place`.
    """

    place: Place
    start: int
    resume_at: int
    synced: Place
    unsynced_segments: tuple[int, ...] = ()


def recover(directory: Path, *, log_id: str, boot_id: str, files: Files) -> Recovered:
    """Cuts a torn tail and returns where to go on. Raises SegmentError for another log's files."""
    head = Head.load(directory)
    if head is not None and head.log_id != log_id:
        raise SegmentError(f"{directory} holds the log {head.log_id}, not {log_id}.")
    damaged = head is None and (directory / HEAD_NAME).exists()
    sequences = segment_sequences(os.listdir(directory))
    lost_segment = False
    while sequences and _header(directory, sequences[-1], log_id) is None:
        # Its maker was stopped before the header was whole, or lost it with the machine.
        path = directory / segment_name(sequences.pop())
        if path.stat().st_size <= SEGMENT_HEADER_BYTES:
            files.remove(path)
        else:
            files.rename(path, path.with_suffix(".damaged"))
            lost_segment = True
    if head is None and not sequences and not damaged and not lost_segment:
        place = Place(next_sequence=0, segment=None, offset=0, time_ns=0, run=None)
        return Recovered(place=place, start=0, resume_at=0, synced=place)
    synced = _checkpoint(head, sequences)
    later = [sequence for sequence in sequences if head is None or sequence >= head.segment]
    same_boot = head is not None and head.boot_id == boot_id
    place = _scan(directory, later, synced, log_id=log_id, resync=same_boot)
    if place.segment is not None:
        _cut(directory / segment_name(place.segment), place.offset, files)
    reserved = place.next_sequence + _UNKNOWN_NUMBERS if head is None else head.reserved
    # On the same boot all that was written is there, unless somebody took it away.
    complete = (
        same_boot
        and not lost_segment
        and place.next_sequence >= synced.next_sequence
        and (synced.segment is not None or synced.offset == 0)
    )
    return Recovered(
        place=place,
        start=sequences[0] if sequences else place.next_sequence,
        resume_at=place.next_sequence if complete else max(reserved, place.next_sequence),
        synced=synced,
        unsynced_segments=() if place == synced else tuple(later[:-1]),
    )


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """The content of a segment, which nobody cuts meanwhile."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        # A mapping is not closed here: an exception on its way may still hold a view of it.
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _header(directory: Path, sequence: int, log_id: str) -> SegmentHeader | None:
    path = directory / segment_name(sequence)
    with path.open("rb") as file:
        header = SegmentHeader.decode(file.read(SEGMENT_HEADER_BYTES))
    if header is not None and header.log_id != log_id:
        raise SegmentError(f"{path} belongs to the log {header.log_id}, not {log_id}.")
    return header if header is not None and header.first_sequence == sequence else None


def _checkpoint(head: Head | None, sequences: list[int]) -> Place:
    if head is None:
        first = sequences[0] if sequences else 0
        return Place(next_sequence=first, segment=None, offset=0, time_ns=0, run=None)
    # A head from before the first record names a segment that was not made yet.
    known = head.segment in sequences and head.offset >= SEGMENT_HEADER_BYTES
    return Place(
        next_sequence=head.next,
        segment=head.segment if known else None,
        offset=head.offset,
        time_ns=head.time_ns,
        run=run_to_bytes(head.run) if head.run else None,
    )


def _scan(
    directory: Path, sequences: list[int], synced: Place, *, log_id: str, resync: bool
) -> Place:
    """The end of what is there, looked for in these segments from `synced` on."""
    place = synced
    for sequence in sequences:
        header = _header(directory, sequence, log_id)
        if header is None:
            continue
        path = directory / segment_name(sequence)
        if sequence != synced.segment or path.stat().st_size < synced.offset:
            place = replace(
                place,
                next_sequence=sequence,
                segment=sequence,
                offset=SEGMENT_HEADER_BYTES,
                time_ns=max(place.time_ns, header.created_ns),
            )
        with mapped(path) as data:
            place = _scan_segment(data, place, resync=resync)
    return place


def _scan_segment(data: mmap.mmap | bytes, place: Place, *, resync: bool) -> Place:
    while True:
        for offset, frame in frames_in(data, place.offset, place.next_sequence):
            place = place.after(frame, offset + frame.total_size)
        # On the same boot nothing that was written is missing. Frames behind
        # broken bytes were shown, so their numbers are taken.
        found = find_frame(data, place.offset, place.next_sequence) if resync else None
        if found is None:
            return place
        first = Frame.unpack(data, found).first_sequence
        place = replace(place, offset=found, next_sequence=first)


def _cut(path: Path, size: int, files: Files) -> None:
    if path.stat().st_size == size:
        return
    fd = files.open(path, os.O_WRONLY)
    try:
        files.truncate(fd, size)
        files.sync(fd)
    finally:
        files.close(fd)

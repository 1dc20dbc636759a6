"""The sparse index of a complete segment, in a file beside it: where its frames are.

Made of the segment alone, so it may be removed at any time. It is kept only for a
segment whose every frame is intact, and names the checksum of each stretch of it:
what has that checksum still is what was looked at then.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from pathlib import Path
from time import sleep

from att_server.supervisor.checksum import crc32
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    FrameKind,
    SegmentHeader,
    frame_at,
    frame_intact,
)

INDEX_SUFFIX = ".idx"
STRETCH_BYTES = 64 << 10

_HEADER = struct.Struct("<8s32sqqqII")
_MAGIC = b"ATTIDX\0\1"
_ENTRY = struct.Struct("<qqqIB3x")
_READ_BYTES = 1 << 20
_LINES = int(FrameKind.LINES)

OTHERS = 1 << 7
"""In `kinds`: the stretch holds markers or gaps."""


class SegmentIndex:
    """Stretches of about 64 KiB of whole frames, by position.

    offsets, sequences, times: of the first frame of each. checksums: of its bytes.
    kinds: 1 << the number of each stream that has lines in it, and `OTHERS`.
    size: of the segment. next_sequence: the number after its last.
    """

    def __init__(self, log_id: str, size: int, next_sequence: int) -> None:
        self.log_id = log_id
        self.size = size
        self.next_sequence = next_sequence
        self.offsets = array("q")
        self.sequences = array("q")
        self.times = array("q")
        self.checksums = array("L")
        self.kinds = array("B")

    def __len__(self) -> int:
        return len(self.offsets)

    def end(self, number: int) -> tuple[int, int]:
        """Offset and sequence number behind a stretch."""
        if number + 1 < len(self.offsets):
            return self.offsets[number + 1], self.sequences[number + 1]
        return self.size, self.next_sequence

    def at(self, sequence: int) -> int:
        """The stretch that holds a sequence number of the segment."""
        return bisect_right(self.sequences, sequence) - 1

    def add(self, offset: int, sequence: int, time_ns: int, checksum: int, kinds: int) -> None:
        """Takes the next stretch."""
        self.offsets.append(offset)
        self.sequences.append(sequence)
        self.times.append(time_ns)
        self.checksums.append(checksum)
        self.kinds.append(kinds)

    def encode(self) -> bytes:
        """The file's content."""
        rows = zip(
            self.offsets, self.sequences, self.times, self.checksums, self.kinds, strict=True
        )
        body = b"".join(_ENTRY.pack(*row) for row in rows)
        head = (_MAGIC, self.log_id.encode("ascii"), self.size, self.next_sequence, len(self))
        checksum = crc32(body, crc32(_HEADER.pack(*head, 0, 0)))
        return _HEADER.pack(*head, checksum, 0) + body

    @staticmethod
    def decode(data: bytes) -> SegmentIndex | None:
        """The index in `data`, None if it is damaged or of a later version."""
        if len(data) < _HEADER.size:
            return None
        magic, log_id, size, following, count, checksum, _ = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != _MAGIC or len(body) != count * _ENTRY.size:
            return None
        if crc32(body, crc32(_HEADER.pack(*_HEADER.unpack_from(data)[:5], 0, 0))) != checksum:
            return None
        index = SegmentIndex(log_id.rstrip(b"\0").decode("ascii", "replace"), size, following)
        for row in _ENTRY.iter_unpack(body):
            index.add(*row)
        return index


def load_index(segment: Path, log_id: str, next_sequence: int) -> SegmentIndex | None:
    """The index beside a complete segment, None if there is none that fits it.

    next_sequence: the first number of the segment behind.
    """
    try:
        index = SegmentIndex.decode(segment.with_suffix(INDEX_SUFFIX).read_bytes())
        size = segment.stat().st_size
    except OSError:
        return None
    fits = index is not None and (index.log_id, index.size, index.next_sequence) == (
        log_id,
        size,
        next_sequence,
    )
    return index if fits else None


def make_index(segment: Path, log_id: str, next_sequence: int) -> SegmentIndex | None:
    """Makes the index of a complete segment and keeps it; None for a damaged segment.

    Takes its time, so as not to take it from others. Raises OSError.
    """
    with segment.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        header = SegmentHeader.decode(file.read(SEGMENT_HEADER_BYTES))
        if header is None or header.log_id != log_id:
            return None
        index = SegmentIndex(log_id, size, next_sequence)
        reached = _look_through(file.fileno(), index, header.first_sequence)
    if reached != (size, next_sequence):
        return None
    path = segment.with_suffix(INDEX_SUFFIX)
    draft = path.with_suffix(".idx.tmp")
    draft.write_bytes(index.encode())
    draft.chmod(0o600)
    draft.replace(path)
    return index


def _look_through(fd: int, index: SegmentIndex, sequence: int) -> tuple[int, int]:
    """Adds the stretches of intact frames, and returns the place behind them."""
    offset = SEGMENT_HEADER_BYTES
    buffer = memoryview(bytearray(_READ_BYTES + FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES))
    while view := buffer[: os.preadv(fd, [buffer], offset)]:
        at = 0
        while at < min(len(view), _READ_BYTES):
            end, following, kinds = _stretch(view, at, sequence)
            if end == at:
                return offset + at, sequence
            first = frame_at(view, at)
            assert first is not None, "a stretch begins with a frame"
            checksum = crc32(view[at:end])
            index.add(offset + at, sequence, first.time_ns, checksum, kinds)
            at, sequence = end, following
        offset += at
        sleep(0.001)
    return offset, sequence


def _stretch(view: memoryview, start: int, sequence: int) -> tuple[int, int, int]:
    """Where a stretch of intact frames ends, the number behind it, and its kinds."""
    offset, kinds = start, 0
    while offset - start < STRETCH_BYTES and (frame := frame_at(view, offset)):
        end = offset + FRAME_HEADER_BYTES + frame.size
        if end > len(view) or frame.first_sequence != sequence:
            break
        if not frame_intact(view, offset, frame):
            break
        kinds |= 1 << frame.stream if frame.kind == _LINES and frame.stream < 7 else OTHERS
        offset, sequence = end, frame.next_sequence
    return offset, sequence, kinds

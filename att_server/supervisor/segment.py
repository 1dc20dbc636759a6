"""The format of a log on disk: segments of frames, and the `head.json` beside them.

A segment file is a 64-byte header and frames. A frame is a 52-byte header and a
payload: lines, a run marker, or a gap. Integers are little endian, times are
nanoseconds since 1970. Frames of one segment follow each other without a hole
in their sequence numbers; the name of a segment is its first sequence number.

A segment is closed for ever as soon as a later one exists.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from att_server.supervisor.checksum import crc32

SEGMENT_SUFFIX = ".seg"
SEGMENT_BYTES = 32 << 20
HEAD_NAME = "head.json"

SEGMENT_HEADER_BYTES = 64
FRAME_HEADER_BYTES = 52
MAX_PAYLOAD_BYTES = 65_536
MAX_LINE_BYTES = 65_535

FLAG_PARTIAL = 1
FLAG_UNTERMINATED = 2

STREAM_NONE = 0
STREAM_STDOUT = 1
STREAM_STDERR = 2

NO_RUN = bytes(16)

FRAME_MAGIC = b"ATf1"
# magic, checksum, payload bytes, count, first sequence, time, run, kind, stream, flags
FRAME = struct.Struct("<4sIIIqq16sBBBx")
_FRAME_AFTER_CHECKSUM = struct.Struct("<IIqq16sBBBx")
_CHECKED_FROM = 8
# The checksum counts its own four bytes as zero, so this beginning is always the same.
_CHECKSUM_SEED = crc32(FRAME_MAGIC + bytes(4))

_SEGMENT_MAGIC = b"ATTSEG\0\1"
_SEGMENT = struct.Struct("<8s32sqqI4x")
_SEGMENT_CHECKED_BYTES = 56

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_BASE_32 = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")

Buffer = bytes | bytearray | memoryview | mmap.mmap


class SegmentError(Exception):
    """A log on disk cannot be used: it belongs to another log or is of a later version."""


class FrameKind(IntEnum):
    """What a frame holds."""

    LINES = 1
    RUN_STARTED = 2
    RUN_ENDED = 3
    GAP = 4


# On the way of every line, and in Python 3.11 a member is looked up by a call.
_LINES = int(FrameKind.LINES)


class Frame(NamedTuple):
    """The header of a frame.

    size: of the payload in bytes. taken: how many sequence numbers, at least 1.
    kind, stream, flags: as on disk; a later version may have added values.
    """

    magic: bytes
    checksum: int
    size: int
    taken: int
    first_sequence: int
    time_ns: int
    run: bytes
    kind: int
    stream: int
    flags: int

    @staticmethod
    def unpack(buffer: Buffer, offset: int) -> Frame:
        """The 52 bytes at `offset`, whatever they are; see `frame_at`."""
        return Frame._make(FRAME.unpack_from(buffer, offset))

    @property
    def next_sequence(self) -> int:
        """The sequence number after the frame."""
        return self.first_sequence + self.taken

    @property
    def total_size(self) -> int:
        """The bytes of header and payload."""
        return FRAME_HEADER_BYTES + self.size


def encode_frame(
    kind: int,
    payload: bytes,
    *,
    first_sequence: int,
    count: int,
    time_ns: int,
    run: bytes = NO_RUN,
    stream: int = STREAM_NONE,
    flags: int = 0,
) -> bytes:
    """The header of the frame with this payload."""
    rest = _FRAME_AFTER_CHECKSUM.pack(
        len(payload), count, first_sequence, time_ns, run, kind, stream, flags
    )
    checksum = crc32(payload, crc32(rest, _CHECKSUM_SEED))
    return FRAME_MAGIC + checksum.to_bytes(4, "little") + rest


def frame_intact(view: memoryview, offset: int, frame: Frame) -> bool:
    """Whether the checksum holds; the whole frame lies in `view` from `offset` on."""
    end = offset + FRAME_HEADER_BYTES + frame.size
    return crc32(view[offset + _CHECKED_FROM : end], _CHECKSUM_SEED) == frame.checksum


def intact_lines(view: memoryview, offset: int, sequence: int) -> tuple[int, int]:
    """Where a stretch of intact frames of lines, of both outputs, ends: offset, sequence number.

    It begins at `offset` with the line `sequence`. As `frames_in`, for a frame may be a line.
    """
    unpack, length = FRAME.unpack_from, len(view)
    while offset + FRAME_HEADER_BYTES <= length:
        magic, checksum, size, taken, first, _, _, kind, stream, _ = unpack(view, offset)
        end = offset + FRAME_HEADER_BYTES + size
        if (
            magic != FRAME_MAGIC
            or kind != _LINES
            or not STREAM_STDOUT <= stream <= STREAM_STDERR
            or first != sequence
            or not taken
            or size > MAX_PAYLOAD_BYTES
            or end > length
            or crc32(view[offset + _CHECKED_FROM : end], _CHECKSUM_SEED) != checksum
        ):
            break
        offset, sequence = end, first + taken
    return offset, sequence


def frame_at(buffer: Buffer, offset: int) -> Frame | None:
    """The frame header at `offset`, None where there is none (checksum not looked at)."""
    if offset + FRAME_HEADER_BYTES > len(buffer):
        return None
    frame = Frame.unpack(buffer, offset)
    if frame.magic != FRAME_MAGIC or frame.size > MAX_PAYLOAD_BYTES or frame.taken == 0:
        return None
    return frame


def frames_in(data: Buffer, start: int, sequence: int) -> Iterator[tuple[int, Frame]]:
    """The intact frames of `data` from `start` on with their offsets, up to the first other thing.

    sequence: the first frame's; each next one must follow it without a hole.
    """
    view = memoryview(data)
    offset = start
    while frame := frame_at(view, offset):
        end = offset + FRAME_HEADER_BYTES + frame.size
        if end > len(view) or frame.first_sequence != sequence:
            return
        if not frame_intact(view, offset, frame):
            return
        yield offset, frame
        sequence += frame.taken
        offset = end


def find_frame(data: bytes | mmap.mmap, start: int, sequence: int) -> int | None:
    """Where in `data`, from `start` on, the first intact frame at or above `sequence` begins."""
    view = memoryview(data)
    offset = data.find(FRAME_MAGIC, start)
    while offset >= 0:
        frame = frame_at(view, offset)
        if (
            frame is not None
            and frame.first_sequence >= sequence
            and offset + FRAME_HEADER_BYTES + frame.size <= len(view)
            and frame_intact(view, offset, frame)
        ):
            return offset
        offset = data.find(FRAME_MAGIC, offset + 1)
    return None


# Segment files --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """The first 64 bytes of a segment. `log_id`: at most 26 ASCII characters."""

    log_id: str
    first_sequence: int
    created_ns: int

    def encode(self) -> bytes:
        """The header as on disk."""
        log_id = self.log_id.encode("ascii")
        body = _SEGMENT.pack(_SEGMENT_MAGIC, log_id, self.first_sequence, self.created_ns, 0)
        checksum = crc32(body[:_SEGMENT_CHECKED_BYTES])
        return _SEGMENT.pack(_SEGMENT_MAGIC, log_id, self.first_sequence, self.created_ns, checksum)

    @staticmethod
    def decode(data: Buffer) -> SegmentHeader | None:
        """The header at the beginning of `data`, None if it is damaged or not whole."""
        if len(data) < SEGMENT_HEADER_BYTES:
            return None
        magic, log_id, first, created, checksum = _SEGMENT.unpack_from(data)
        if magic != _SEGMENT_MAGIC or crc32(data[:_SEGMENT_CHECKED_BYTES]) != checksum:
            return None
        return SegmentHeader(
            log_id=log_id.rstrip(b"\0").decode("ascii", "replace"),
            first_sequence=first,
            created_ns=created,
        )


def segment_name(first_sequence: int) -> str:
    """The file name of the segment that begins at `first_sequence`."""
    return f"{first_sequence:020d}{SEGMENT_SUFFIX}"


def segment_sequences(names: Iterable[str]) -> list[int]:
    """The first sequence numbers of the segments among `names`, ascending."""
    return sorted(
        int(name[:20])
        for name in names
        if len(name) == 24 and name.endswith(SEGMENT_SUFFIX) and name[:20].isdecimal()
    )


# The head -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What `head.json` says; it outlives every segment.

    start: the first sequence number kept. next, segment, offset, time_ns, run:
    the checkpoint, a place between two frames at the time of writing: the next
    sequence number, the segment (its first sequence number) and the offset
    there, the time of the record before, and the run without an end marker (""
    if none). reserved: nothing at or above it has been written.
    """

    log_id: str
    start: int
    next: int
    reserved: int
    boot_id: str
    segment: int
    offset: int
    time_ns: int = 0
    run: str = ""

    def encode(self) -> bytes:
        """The file's content."""
        form = {
            "version": 1,
            "log_id": self.log_id,
            "start": self.start,
            "next": self.next,
            "reserved": self.reserved,
            "boot_id": self.boot_id,
            "segment": self.segment,
            "offset": self.offset,
            "time_ns": self.time_ns,
            "run": self.run,
        }
        return json.dumps(form).encode() + b"\n"

    @staticmethod
    def decode(data: bytes) -> Head | None:
        """The head in `data`, None if that is damaged. Fields of later versions are ignored."""
        try:
            form: dict[str, Any] = json.loads(data)
            log_id = str(form["log_id"])
            run = str(form.get("run", ""))
            if run:
                run_to_bytes(run)
            return Head(
                log_id=log_id,
                start=int(form["start"]),
                next=int(form["next"]),
                reserved=int(form["reserved"]),
                boot_id=str(form["boot_id"]),
                segment=int(form["segment"]),
                offset=int(form["offset"]),
                time_ns=int(form.get("time_ns", 0)),
                run=run,
            )
        except (ValueError, TypeError, KeyError):
            return None

    @staticmethod
    def load(directory: Path) -> Head | None:
        """The head of the log in `directory`, None if there is none or it is damaged."""
        try:
            return Head.decode((directory / HEAD_NAME).read_bytes())
        except FileNotFoundError:
            return None


# Run ids --------------------------------------------------------------------


def run_to_bytes(run_id: str) -> bytes:
    """A run id of 26 Crockford characters as 16 bytes. Raises ValueError for other text."""
    if len(run_id) != 26 or not set(run_id) <= set(_CROCKFORD) or run_id[0] > "7":
        raise ValueError(f"not a run id: {run_id!r}")
    return int(run_id.translate(_TO_BASE_32), 32).to_bytes(16, "big")


@lru_cache(maxsize=256)
def run_to_text(run: bytes) -> str:
    """The run id of 16 bytes as 26 Crockford characters; "" for no run."""
    if run == NO_RUN:
        return ""
    value = int.from_bytes(run, "big")
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))

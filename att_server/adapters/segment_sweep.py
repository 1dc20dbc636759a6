"""Looking through a long stretch of a segment for what a selection wants, in a thread."""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from time import monotonic

from att_server.adapters.segment_index import OTHERS, SegmentIndex
from att_server.adapters.segment_reader import Spot
from att_server.adapters.segment_records import STREAMS, record_of, to_time
from att_server.core.log_selection import Gathering, LineSelection
from att_server.supervisor.checksum import crc32
from att_server.supervisor.segment import (
    FRAME_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameKind,
    frame_at,
    frame_intact,
    intact_lines,
    run_to_text,
)

SWEEP_BYTES = 1 << 20
MAX_SECONDS = 1.0

_LINES = int(FrameKind.LINES)
_SIZE_AND_TAKEN = struct.Struct("<II")
_SIZE_AT = 8


def sweep(
    fd: int, spot: Spot, gathering: Gathering, *, max_bytes: int, index: SegmentIndex | None = None
) -> Spot:
    """Gathers from the frames behind `spot`, and returns the place behind the last.

    Ends with the gathering, after about `max_bytes` bytes or a second, and before
    whatever is no intact frame. index: of the segment; None: it has none.
    """
    buffer = memoryview(bytearray(SWEEP_BYTES + FRAME_HEADER_BYTES + MAX_PAYLOAD_BYTES))
    stop, deadline = spot.offset + max_bytes, monotonic() + MAX_SECONDS
    while not gathering.ended and spot.offset < stop and monotonic() < deadline:
        behind, room = spot, len(buffer)
        if index is not None:
            behind = _pass_over(fd, spot, gathering, index, buffer)
            # From the end of this stretch on, whole ones may be passed over.
            room = min(room, index.end(index.at(spot.sequence))[0] - spot.offset)
        if behind == spot and not gathering.ended:
            view = buffer[: os.preadv(fd, [buffer[:room]], spot.offset)]
            behind = _gather(view, spot, gathering)
        if behind == spot:
            break
        spot = behind
    return spot


def _pass_over(
    fd: int, spot: Spot, gathering: Gathering, index: SegmentIndex, buffer: memoryview
) -> Spot:
    """Gathers from whole stretches of the index, as many as are read at once.

    A stretch that is what it was when it was indexed need not be taken apart to see
    that nothing in it is wanted. Returns `spot` if it is no beginning of a stretch,
    or the stretch is not what it was.
    """
    selection = gathering.selection
    number = index.at(spot.sequence)
    if index.offsets[number] != spot.offset or selection.inherits:
        return spot
    # One more than is read: the end of the last.
    last = number
    while last + 1 < len(index) and index.end(last + 1)[0] - spot.offset <= len(buffer):
        last += 1
    streams = sum(1 << number for number in _numbers(selection))
    view = buffer[: index.end(last)[0] - spot.offset]
    read = False
    for at in range(number, last + 1):
        if selection.ends_before(to_time(index.times[at])):
            gathering.ended = True
            break
        end, following = index.end(at)
        if not index.kinds[at] & (streams | OTHERS):
            gathering.skip(following)
            spot = Spot(end, following)
            continue
        if not read:
            if os.preadv(fd, [view], index.offsets[number]) < len(view):
                break
            read = True
        part = view[index.offsets[at] - index.offsets[number] : end - index.offsets[number]]
        if crc32(part) != index.checksums[at]:
            break
        if index.kinds[at] & OTHERS:
            spot = _gather(part, spot, gathering)
        else:
            _gather_lines(part, spot.sequence, following, gathering)
            spot = Spot(end, following)
        if gathering.ended:
            break
    return spot


def _numbers(selection: LineSelection) -> Iterable[int]:
    wanted = selection.selected.streams
    return (number for number, stream in STREAMS.items() if not wanted or stream in wanted)


def _gather_lines(part: memoryview, sequence: int, following: int, gathering: Gathering) -> None:
    """Gathers from a stretch of frames of lines that are known to be intact."""
    selection = gathering.selection
    if selection.among:
        _gather_among(part, sequence, following, gathering)
        return
    starts: list[int] = []
    pieces: list[memoryview] = []
    offset = 0
    while offset < len(part):
        size, _ = _SIZE_AND_TAKEN.unpack_from(part, offset + _SIZE_AT)
        starts.append(offset)
        offset += FRAME_HEADER_BYTES + size
        pieces.append(part[offset - size : offset])
    lines = b"".join(pieces)
    ends = [*accumulate(map(len, pieces))]
    position = 0
    while (wanted := selection.next_wanted(lines, position)) is not None and wanted < ends[-1]:
        at = bisect_right(ends, wanted)
        frame = Frame.unpack(part, starts[at])
        gathering.skip(frame.first_sequence)
        gathering.add(record_of(frame, bytes(pieces[at])))
        position = ends[at]
        if gathering.ended or position == ends[-1]:
            return
    gathering.skip(following)


def _gather_among(part: memoryview, sequence: int, following: int, gathering: Gathering) -> None:
    """`_gather_lines`, of which what is wanted is found among the headers of the frames."""
    offset = 0
    while (wanted := gathering.selection.next_wanted(part, offset)) is not None:
        size, taken = _SIZE_AND_TAKEN.unpack_from(part, offset + _SIZE_AT)
        while offset + FRAME_HEADER_BYTES + size <= wanted:
            offset += FRAME_HEADER_BYTES + size
            sequence += taken
            size, taken = _SIZE_AND_TAKEN.unpack_from(part, offset + _SIZE_AT)
        gathering.skip(sequence)
        frame = Frame.unpack(part, offset)
        offset += frame.total_size
        sequence = frame.next_sequence
        gathering.add(record_of(frame, bytes(part[offset - frame.size : offset])))
        if gathering.ended or offset == len(part):
            return
    gathering.skip(following)


def _gather(view: memoryview, spot: Spot, gathering: Gathering) -> Spot:
    """Gathers from the intact frames in `view`, and returns the place behind the last."""
    selection = gathering.selection
    selected = selection.selected
    # What matters of each frame is more than whether a line in it matches.
    singly = selection.inherits or selected.end_time is not None or not selected.pattern
    offset, sequence = 0, spot.sequence
    while not gathering.ended:
        if not singly:
            end, following = intact_lines(view, offset, sequence)
            if end > offset:
                _gather_lines(view[offset:end], sequence, following, gathering)
                if gathering.ended:
                    return Spot(spot.offset + offset, sequence)
                offset, sequence = end, following
        frame = frame_at(view, offset)
        if frame is None or frame.first_sequence != sequence:
            break
        end = offset + frame.total_size
        if end > len(view) or not frame_intact(view, offset, frame):
            break
        sequence += frame.taken
        if frame.kind == _LINES and not _wanted(view, offset, frame, selection):
            gathering.skip(sequence)
        else:
            gathering.add(record_of(frame, bytes(view[offset + FRAME_HEADER_BYTES : end])))
        offset = end
    return Spot(spot.offset + offset, sequence)


def _wanted(view: memoryview, offset: int, frame: Frame, selection: LineSelection) -> bool:
    """Whether to look at a frame of lines: for what it may hold, or for its time."""
    stream, time = STREAMS.get(frame.stream), to_time(frame.time_ns)
    start = offset + FRAME_HEADER_BYTES
    return (
        stream is None
        or selection.ends_before(time)
        or selection.wants(
            stream=stream,
            run_id=run_to_text(frame.run),
            time=time,
            lines=view[start : start + frame.size],
        )
    )

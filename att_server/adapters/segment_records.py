"""From frames on disk to records of the core."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from att_server.adapters.segment_reader import Spot
from att_server.core.model import (
    GapReason,
    LogChunk,
    LogGap,
    LogRecord,
    LogStream,
    RunEnded,
    RunExit,
    RunStarted,
)
from att_server.supervisor.segment import (
    FLAG_PARTIAL,
    FLAG_UNTERMINATED,
    FRAME_HEADER_BYTES,
    STREAM_STDERR,
    STREAM_STDOUT,
    Frame,
    FrameKind,
    frame_at,
    frame_intact,
    run_to_text,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# On the way of every line, and in Python 3.11 a member is looked up by a call.
_LINES = int(FrameKind.LINES)
STREAMS = {STREAM_STDOUT: LogStream.STDOUT, STREAM_STDERR: LogStream.STDERR}


class Decoded:
    """The records of consecutive frames.

    end: the place behind the last. broken: what follows there is no intact
    frame. full: more would have gone beyond what was asked for. time_ns: of the
    first.
    """

    __slots__ = ("broken", "end", "full", "records", "time_ns")

    def __init__(self, spot: Spot) -> None:
        self.records: list[LogRecord] = []
        self.end = spot
        self.broken = False
        self.full = False
        self.time_ns = 0


def decode_frames(
    view: memoryview, spot: Spot, *, max_bytes: int, until: int | None = None
) -> Decoded:
    """The records of the frames in `view`, whose first byte is at `spot`.

    At least one if there is an intact frame, up to `max_bytes` bytes of lines, and up to
    a frame that begins with the sequence number `until`.
    """
    result = Decoded(spot)
    records = result.records
    length = len(view)
    offset = size = 0
    sequence = spot.sequence
    while frame := frame_at(view, offset):
        end = offset + FRAME_HEADER_BYTES + frame.size
        if end > length:
            break
        if frame.first_sequence != sequence or not frame_intact(view, offset, frame):
            result.broken = True
            break
        if records and (size + frame.size > max_bytes or sequence == until):
            result.full = True
            break
        if not records:
            result.time_ns = frame.time_ns
        records.append(record_of(frame, bytes(view[offset + FRAME_HEADER_BYTES : end])))
        size += frame.size
        sequence += frame.taken
        offset = end
    else:
        result.broken = length - offset >= FRAME_HEADER_BYTES
    result.end = Spot(spot.offset + offset, sequence)
    return result


def record_of(frame: Frame, payload: bytes) -> LogRecord:
    """The record of an intact frame."""
    if frame.kind == _LINES and frame.stream in STREAMS:
        return LogChunk(
            first_sequence=frame.first_sequence,
            line_count=frame.taken,
            time=to_time(frame.time_ns),
            stream=STREAMS[frame.stream],
            run_id=run_to_text(frame.run),
            lines=payload,
            partial=frame.flags & FLAG_PARTIAL != 0,
            unterminated=frame.flags & FLAG_UNTERMINATED != 0,
        )
    try:
        return _marker(frame, payload)
    except (ValueError, KeyError, TypeError):
        # An intact frame of a later version: its numbers are counted.
        return damaged(frame.first_sequence, frame.next_sequence)


def damaged(first_sequence: int, stop: int) -> LogGap:
    """The gap in place of what cannot be read."""
    return LogGap(
        first_sequence=first_sequence, count=stop - first_sequence, reason=GapReason.DAMAGED
    )


def part_from(record: LogRecord, cursor: int) -> LogRecord:
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


def to_time(time_ns: int) -> datetime:
    """A time on disk as the core's, to the microsecond below."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def from_time(time: datetime) -> int:
    """A time of the core's as on disk."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _marker(frame: Frame, payload: bytes) -> LogRecord:
    form = json.loads(payload)
    if frame.kind == FrameKind.RUN_STARTED:
        return RunStarted(
            sequence=frame.first_sequence,
            time=to_time(frame.time_ns),
            run_id=run_to_text(frame.run),
            command=tuple(map(str, form["command"])),
            pid=int(form["pid"]),
            release_id=str(form.get("release_id", "")),
        )
    if frame.kind == FrameKind.RUN_ENDED:
        return RunEnded(
            sequence=frame.first_sequence,
            run_id=run_to_text(frame.run),
            exit=RunExit(
                exit_code=form.get("exit_code"),
                signal=form.get("signal"),
                start_error=form.get("start_error"),
                supervisor_lost=bool(form.get("supervisor_lost", False)),
                time=to_time(frame.time_ns),
                duration=timedelta(seconds=float(form.get("duration", 0))),
                reason=str(form.get("reason", "")),
            ),
        )
    if frame.kind == FrameKind.GAP:
        return LogGap(
            first_sequence=frame.first_sequence,
            count=frame.taken,
            reason=GapReason(form["reason"]),
            lost_lines=form.get("lost_lines"),
        )
    raise ValueError(f"unknown kind of frame {frame.kind}")

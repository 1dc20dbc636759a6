"""Reads pages of a log from the wire, and makes of them what a user is given.

The generated classes of the SDK take 60 µs a record to parse themselves, the C
decoder of the contract's own package with this conversion 4 µs. A test compares
both ways. A message that cannot be read raises DecodeError or OverflowError.
"""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from att.v1 import log_pb2, log_service_pb2
from att_client._proto.att.v1 import (
    LogChunk,
    LogGap,
    LogGapReason,
    LogRecord,
    LogStream,
    RunEnded,
    RunMarker,
    RunStarted,
)
from att_client.log_batch import LogBatch, LogPage
from att_client.log_page import Chunk, Page, Part, to_datetime

# The years 1 to 9999, which a timestamp of the contract can be, and a datetime too.
_FIRST_TIME = -62_135_596_800_000_000
_LAST_TIME = 253_402_300_799_999_999


def parse_page(data: bytes) -> Page:
    """The page in a FollowLogsResponse."""
    message = log_service_pb2.FollowLogsResponse.FromString(data)
    # A slice is a list. A loop over the container itself ends with an
    # IndexError, which takes as long as everything else here.
    return Page(message, [_part(record) for record in message.records[:]])


def parse_read_response(data: bytes) -> LogPage:
    """The message in `data`."""
    message = log_service_pb2.ReadLogsResponse.FromString(data)
    return LogPage(
        records=[_record(_part(record)) for record in message.records[:]],
        cursor=message.cursor,
        start_cursor=message.start_cursor,
        end_cursor=message.end_cursor,
        truncated=message.truncated,
        skipped=message.skipped,
        has_more=message.has_more,
        log_id=message.log_id,
    )


def follow_response(page: Page) -> LogBatch:
    """The page as a user is given it."""
    return LogBatch(
        records=[_record(part) for part in page.parts],
        cursor=page.cursor,
        start_cursor=page.start_cursor,
        end_cursor=page.end_cursor,
        log_id=page.log_id,
        bound_run_id=page.bound_run_id,
    )


def _record(part: Part) -> LogRecord:
    if isinstance(part, Chunk):
        return LogRecord(
            chunk=LogChunk(
                first_sequence=part.first_sequence,
                line_count=part.line_count,
                time=part.time(),
                stream=LogStream(part.stream),
                run_id=part.run_id,
                lines=part.lines,
                partial=part.partial,
                unterminated=part.unterminated,
                sequence_offsets=part.offsets,
            )
        )
    if isinstance(part, RunMarker):
        return LogRecord(run=part)
    return LogRecord(gap=part)


def _part(record: log_pb2.LogRecord) -> Part:
    if record.HasField("chunk"):
        return _chunk(record.chunk)
    if record.HasField("run"):
        return _marker(record.run)
    if record.HasField("gap"):
        return _gap(record.gap)
    return None


def _chunk(chunk: log_pb2.LogChunk) -> Chunk:
    offsets = chunk.sequence_offsets
    return Chunk(chunk, _arrived(chunk), offsets[:] if offsets else [])


def _marker(marker: log_pb2.RunMarker) -> RunMarker:
    return RunMarker(
        sequence=marker.sequence,
        time=to_datetime(_arrived(marker)),
        run_id=marker.run_id,
        started=_started(marker.started) if marker.HasField("started") else None,
        ended=_ended(marker.ended) if marker.HasField("ended") else None,
    )


def _started(started: log_pb2.RunStarted) -> RunStarted:
    return RunStarted(command=list(started.command), pid=started.pid, release_id=started.release_id)


def _ended(ended: log_pb2.RunEnded) -> RunEnded:
    cause = ended.WhichOneof("cause")
    return RunEnded(
        exit_code=ended.exit_code if cause == "exit_code" else None,
        signal=ended.signal if cause == "signal" else None,
        start_error=ended.start_error if cause == "start_error" else None,
        supervisor_lost=ended.supervisor_lost if cause == "supervisor_lost" else None,
        duration=_duration(ended.duration) if ended.HasField("duration") else None,
        reason=ended.reason,
    )


def _gap(gap: log_pb2.LogGap) -> LogGap:
    return LogGap(
        first_sequence=gap.first_sequence,
        count=gap.count,
        reason=LogGapReason(gap.reason),
        lost_lines=gap.lost_lines if gap.HasField("lost_lines") else None,
    )


def _arrived(part: log_pb2.LogChunk | log_pb2.RunMarker) -> int | None:
    if not part.HasField("time"):
        return None
    time = part.time
    microseconds = time.seconds * 1_000_000 + time.nanos // 1000
    if not _FIRST_TIME <= microseconds <= _LAST_TIME:
        raise OverflowError(f"time {microseconds} µs")
    return microseconds


def _duration(duration: Duration) -> timedelta:
    return timedelta(0, duration.seconds, duration.nanos / 1000)

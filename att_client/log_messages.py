"""Reads pages of a log from the wire.

The generated classes of the SDK take 60 µs a record to parse themselves, the C
decoder of the contract's own package with this conversion 4 µs. So the two
messages that carry a log are read here. A test compares both ways.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from att.v1 import log_pb2, log_service_pb2
from att_client._proto.att.v1 import (
    FollowLogsResponse,
    LogChunk,
    LogGap,
    LogGapReason,
    LogRecord,
    LogStream,
    ReadLogsResponse,
    RunEnded,
    RunMarker,
    RunStarted,
)

_EPOCH = datetime.fromtimestamp(0, UTC)


def parse_follow_response(data: bytes) -> FollowLogsResponse:
    """The message in `data`; raises DecodeError."""
    message = log_service_pb2.FollowLogsResponse.FromString(data)
    return FollowLogsResponse(
        records=_records(message.records),
        cursor=message.cursor,
        start_cursor=message.start_cursor,
        end_cursor=message.end_cursor,
        log_id=message.log_id,
        bound_run_id=message.bound_run_id,
    )


def parse_read_response(data: bytes) -> ReadLogsResponse:
    """The message in `data`; raises DecodeError."""
    message = log_service_pb2.ReadLogsResponse.FromString(data)
    return ReadLogsResponse(
        records=_records(message.records),
        cursor=message.cursor,
        start_cursor=message.start_cursor,
        end_cursor=message.end_cursor,
        truncated=message.truncated,
        skipped=message.skipped,
        has_more=message.has_more,
        log_id=message.log_id,
    )


def _records(records: Iterable[log_pb2.LogRecord]) -> list[LogRecord]:
    return [_record(record) for record in records]


def _record(record: log_pb2.LogRecord) -> LogRecord:
    match record.WhichOneof("record"):
        case "chunk":
            return LogRecord(chunk=_chunk(record.chunk))
        case "run":
            return LogRecord(run=_marker(record.run))
        case "gap":
            return LogRecord(gap=_gap(record.gap))
        case _:
            # A kind of a later server: its numbers show in the cursor.
            return LogRecord()


def _chunk(chunk: log_pb2.LogChunk) -> LogChunk:
    return LogChunk(
        first_sequence=chunk.first_sequence,
        line_count=chunk.line_count,
        time=_time(chunk.time) if chunk.HasField("time") else None,
        stream=LogStream(chunk.stream),
        run_id=chunk.run_id,
        lines=chunk.lines,
        partial=chunk.partial,
        unterminated=chunk.unterminated,
        sequence_offsets=list(chunk.sequence_offsets),
    )


def _marker(marker: log_pb2.RunMarker) -> RunMarker:
    return RunMarker(
        sequence=marker.sequence,
        time=_time(marker.time) if marker.HasField("time") else None,
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
    )


def _gap(gap: log_pb2.LogGap) -> LogGap:
    return LogGap(
        first_sequence=gap.first_sequence,
        count=gap.count,
        reason=LogGapReason(gap.reason),
        lost_lines=gap.lost_lines if gap.HasField("lost_lines") else None,
    )


def _time(time: Timestamp) -> datetime:
    # Five times faster than Timestamp.ToDatetime.
    return _EPOCH + timedelta(0, time.seconds, time.nanos // 1000)


def _duration(duration: Duration) -> timedelta:
    return timedelta(0, duration.seconds, duration.nanos / 1000)

"""Reads pages of a log from the wire.

The generated classes of the SDK take 60 µs a record to parse themselves, the C
decoder of the contract's own package with this conversion 4 µs. So a page is
decoded by the latter, and what a user is given is made from that here. A test
compares both ways.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

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
from att_client.errors import ProtocolError

_EPOCH = datetime.fromtimestamp(0, UTC)
# What the contract's timestamps can be, and a datetime too.
_FIRST_SECOND = -62_135_596_800
_LAST_SECOND = 253_402_300_799


Page: TypeAlias = log_service_pb2.FollowLogsResponse
"""A message of a follow as it was decoded."""


def page_records(page: Page | log_service_pb2.ReadLogsResponse) -> list[log_pb2.LogRecord]:
    """The page's records."""
    # A loop over the container itself would end with an IndexError: 10 µs.
    return page.records[:]


def follow_response(page: Page) -> FollowLogsResponse:
    """What a user is given for the page. Raises ProtocolError."""
    return FollowLogsResponse(
        records=[_record(record) for record in page_records(page)],
        cursor=page.cursor,
        start_cursor=page.start_cursor,
        end_cursor=page.end_cursor,
        log_id=page.log_id,
        bound_run_id=page.bound_run_id,
    )


def parse_read_response(data: bytes) -> ReadLogsResponse:
    """The message in `data`. Raises DecodeError and ProtocolError."""
    message = log_service_pb2.ReadLogsResponse.FromString(data)
    return ReadLogsResponse(
        records=[_record(record) for record in page_records(message)],
        cursor=message.cursor,
        start_cursor=message.start_cursor,
        end_cursor=message.end_cursor,
        truncated=message.truncated,
        skipped=message.skipped,
        has_more=message.has_more,
        log_id=message.log_id,
    )


def _record(record: log_pb2.LogRecord) -> LogRecord:
    if record.HasField("chunk"):
        return LogRecord(chunk=_chunk(record.chunk))
    if record.HasField("run"):
        return LogRecord(run=run_marker(record.run))
    if record.HasField("gap"):
        return LogRecord(gap=log_gap(record.gap))
    # A kind of a later server: its numbers show in the cursor.
    return LogRecord()


def sequence_offsets(chunk: log_pb2.LogChunk) -> list[int]:
    """The chunk's `sequence_offsets`, mostly none."""
    offsets = chunk.sequence_offsets
    return offsets[:] if offsets else []


def _chunk(chunk: log_pb2.LogChunk) -> LogChunk:
    return LogChunk(
        first_sequence=chunk.first_sequence,
        line_count=chunk.line_count,
        time=to_datetime(arrival(chunk)),
        stream=LogStream(chunk.stream),
        run_id=chunk.run_id,
        lines=chunk.lines,
        partial=chunk.partial,
        unterminated=chunk.unterminated,
        sequence_offsets=sequence_offsets(chunk),
    )


def run_marker(marker: log_pb2.RunMarker) -> RunMarker:
    """What a user is given for the marker. Raises ProtocolError."""
    return RunMarker(
        sequence=marker.sequence,
        time=to_datetime(arrival(marker)),
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


def log_gap(gap: log_pb2.LogGap) -> LogGap:
    """What a user is given for the gap."""
    return LogGap(
        first_sequence=gap.first_sequence,
        count=gap.count,
        reason=LogGapReason(gap.reason),
        lost_lines=gap.lost_lines if gap.HasField("lost_lines") else None,
    )


def arrival(part: log_pb2.LogChunk | log_pb2.RunMarker) -> int | None:
    """When the part of the log arrived: µs since 1970, as `to_datetime` takes them.

    Raises ProtocolError.
    """
    if not part.HasField("time"):
        return None
    time = part.time
    seconds = time.seconds
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ProtocolError(f"The server sent a time out of range: {seconds} s since 1970.")
    return seconds * 1_000_000 + time.nanos // 1000


def to_datetime(microseconds: int | None) -> datetime | None:
    """The time that was so long after the begin of 1970."""
    # Five times faster than Timestamp.ToDatetime.
    return None if microseconds is None else _EPOCH + timedelta(0, 0, microseconds)


def _duration(duration: Duration) -> timedelta:
    try:
        return timedelta(0, duration.seconds, duration.nanos / 1000)
    except OverflowError as error:
        raise ProtocolError(f"The server sent a duration of {duration.seconds} s.") from error

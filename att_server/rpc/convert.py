"""Messages of `att.v1` from the core's objects and back: pure and total.

Messages are taken as validated (`validate.py`): a conversion never fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from att.severity import Severity
from att.v1 import (
    event_pb2,
    event_service_pb2,
    log_pb2,
    log_service_pb2,
    project_pb2,
    runtime_pb2,
)
from att_server.core.log_facts import LogInfo
from att_server.core.log_keeper import RECENT
from att_server.core.log_selection import LogFilter, LogPosition
from att_server.core.model import (
    DesiredState,
    Event,
    EventFilter,
    GapReason,
    LogChunk,
    LogGap,
    LogRecord,
    LogStream,
    ProbeResult,
    Project,
    ProjectMode,
    RunEnded,
    RunExit,
    RunStarted,
    Runtime,
    RuntimeState,
    Usage,
)
from att_server.core.settings import RuntimeSettings
from att_server.rpc.convert_settings import runtime_settings
from att_server.rpc.convert_text import text
from att_server.rpc.convert_time import duration, set_timestamp, timestamp, to_datetime

PROJECT_MODES: Mapping[ProjectMode, project_pb2.ProjectMode.ValueType] = {
    mode: project_pb2.ProjectMode.Value(f"PROJECT_MODE_{mode.name}") for mode in ProjectMode
}
RUNTIME_STATES: Mapping[RuntimeState, runtime_pb2.RuntimeState.ValueType] = {
    state: runtime_pb2.RuntimeState.Value(f"RUNTIME_STATE_{state.name}") for state in RuntimeState
}
DESIRED_STATES: Mapping[DesiredState, runtime_pb2.DesiredState.ValueType] = {
    state: runtime_pb2.DesiredState.Value(f"DESIRED_STATE_{state.name}") for state in DesiredState
}
LOG_STREAMS: Mapping[LogStream, log_pb2.LogStream.ValueType] = {
    stream: log_pb2.LogStream.Value(f"LOG_STREAM_{stream.name}") for stream in LogStream
}
_STREAMS_SENT = {value: stream for stream, value in LOG_STREAMS.items()}
GAP_REASONS: Mapping[GapReason, log_pb2.LogGapReason.ValueType] = {
    reason: log_pb2.LogGapReason.Value(f"LOG_GAP_REASON_{reason.name}") for reason in GapReason
}

# Projects -------------------------------------------------------------------


def to_project_mode(sent: project_pb2.ProjectMode.ValueType) -> ProjectMode:
    """The mode of a request, of which it is known that there is such a one."""
    return next(mode for mode, value in PROJECT_MODES.items() if value == sent)


def project(
    kept: Project, *, effective: RuntimeSettings | None, settings_error: str
) -> project_pb2.Project:
    """effective: what a start would use; None: `settings_error` says why there is none."""
    return project_pb2.Project(
        project_id=kept.project_id,
        path=str(kept.path),
        runtime=runtime_settings(kept.runtime),
        effective_runtime=None if effective is None else runtime_settings(effective),
        settings_error=settings_error,
        mode=PROJECT_MODES[kept.mode],
        mode_reason=text(kept.mode_reason),
        release_id=text(kept.release_id),
        log_id=kept.log_id,
        create_time=timestamp(kept.create_time),
        update_time=timestamp(kept.update_time),
    )


# Runtimes -------------------------------------------------------------------


def runtime(state: Runtime, *, log_end_cursor: int) -> runtime_pb2.Runtime:
    """The app of a project as it is now."""
    message = runtime_pb2.Runtime(
        project_id=state.project_id,
        state=RUNTIME_STATES[state.state],
        desired_state=DESIRED_STATES[state.desired],
        revision=state.revision,
        log_end_cursor=log_end_cursor,
    )
    status = state.status
    if status is not None:
        message.run_id = status.run_id
        # Between two runs the number may be that of a stranger already.
        message.pid = status.pid if state.state.alive and status.exit is None else 0
        message.command.extend(status.command)
        if status.start_time is not None:
            message.start_time.CopyFrom(timestamp(status.start_time))
        if status.ready_time is not None:
            message.ready_time.CopyFrom(timestamp(status.ready_time))
        if status.exit is not None:
            message.exit.CopyFrom(runtime_exit(status.exit))
        if status.next_restart_time is not None:
            message.next_restart_time.CopyFrom(timestamp(status.next_restart_time))
        message.restarts = status.restarts
        message.reason = status.reason
        message.release_id = status.release_id
        message.supervisor_id = status.supervisor_id
    health = state.health
    # Why a run failed is told until the next one; that it was well once is not.
    if health is not None and (message.pid or not health.healthy):
        message.healthy = health.healthy
        message.health_probe = health.probe
        message.health_reason = health.reason
        message.health_checked_at.CopyFrom(timestamp(health.checked_at))
    if state.usage is not None:
        message.usage.CopyFrom(runtime_usage(state.usage))
    return message


@lru_cache(maxsize=1000)
def runtime_usage(used: Usage) -> runtime_pb2.RuntimeUsage:
    """What an app's processes use. Made once for all who ask within a second; not to be changed."""
    return runtime_pb2.RuntimeUsage(
        cpu_percent=used.cpu_percent,
        resident_memory_bytes=used.resident_bytes,
        process_count=used.process_count,
        open_file_count=used.open_file_count,
        cpu_time=duration(used.cpu_time),
        measure_time=timestamp(used.time),
    )


def health_check(result: ProbeResult) -> runtime_pb2.HealthCheck:
    """The outcome of a check."""
    return runtime_pb2.HealthCheck(
        healthy=result.healthy,
        health_probe=result.probe,
        health_reason=result.reason,
        health_checked_at=timestamp(result.checked_at),
        exit_code=result.exit_code,
        http_status=result.http_status,
        command=result.command,
        duration=duration(result.duration),
    )


def runtime_exit(ended: RunExit) -> runtime_pb2.RuntimeExit:
    """How the last run ended."""
    message = runtime_pb2.RuntimeExit(
        exit_time=timestamp(ended.time), duration=duration(ended.duration), reason=ended.reason
    )
    _set_cause(message, ended)
    return message


def _set_cause(message: runtime_pb2.RuntimeExit | log_pb2.RunEnded, ended: RunExit) -> None:
    if ended.exit_code is not None:
        message.exit_code = ended.exit_code
    elif ended.signal is not None:
        message.signal = ended.signal
    elif ended.start_error is not None:
        message.start_error = ended.start_error
    else:
        message.supervisor_lost = True


# Logs -----------------------------------------------------------------------


def to_log_position(message: log_pb2.LogPosition) -> LogPosition:
    """Unset is the beginning."""
    match message.WhichOneof("position"):
        case "cursor":
            return LogPosition(cursor=message.cursor, log_id=message.log_id)
        case "tail":
            return LogPosition(tail=message.tail, log_id=message.log_id)
        case "since":
            return LogPosition(since=to_datetime(message.since), log_id=message.log_id)
        case _:
            at_end = message.anchor == log_pb2.LOG_ANCHOR_END
            return LogPosition(at_end=at_end, log_id=message.log_id)


def to_log_filter(message: log_pb2.LogFilter) -> LogFilter:
    """Fields that are unset select all."""
    return LogFilter(
        streams=frozenset(_STREAMS_SENT[stream] for stream in message.streams),
        run_id=message.run_id,
        min_severity=Severity(message.min_severity),
        pattern=message.pattern,
        start_time=to_datetime(message.start_time) if message.HasField("start_time") else None,
        end_time=to_datetime(message.end_time) if message.HasField("end_time") else None,
    )


def log_chunk(record: LogChunk, lines: bytes) -> log_pb2.LogChunk:
    """A chunk as readers and followers get it, with `lines` for its lines."""
    # Field by field, which takes half as long as by keywords: every line passes here.
    chunk = log_pb2.LogChunk()
    chunk.first_sequence = record.first_sequence
    chunk.line_count = record.line_count
    set_timestamp(chunk.time, record.time)
    chunk.stream = LOG_STREAMS[record.stream]
    chunk.run_id = record.run_id
    chunk.lines = lines
    chunk.partial = record.partial
    chunk.unterminated = record.unterminated
    if record.offsets:
        chunk.sequence_offsets.extend(record.offsets)
    return chunk


def log_record(record: LogRecord) -> log_pb2.LogRecord:
    """A record as readers and followers get it."""
    match record:
        case LogChunk():
            return log_pb2.LogRecord(chunk=log_chunk(record, record.lines))
        case RunStarted():
            return log_pb2.LogRecord(
                run=log_pb2.RunMarker(
                    sequence=record.sequence,
                    time=timestamp(record.time),
                    run_id=record.run_id,
                    started=log_pb2.RunStarted(
                        command=record.command, pid=record.pid, release_id=record.release_id
                    ),
                )
            )
        case RunEnded():
            ended = log_pb2.RunEnded(
                duration=duration(record.exit.duration), reason=record.exit.reason
            )
            _set_cause(ended, record.exit)
            return log_pb2.LogRecord(
                run=log_pb2.RunMarker(
                    sequence=record.sequence,
                    time=timestamp(record.exit.time),
                    run_id=record.run_id,
                    ended=ended,
                )
            )
        case LogGap():
            return log_pb2.LogRecord(
                gap=log_pb2.LogGap(
                    first_sequence=record.first_sequence,
                    count=record.count,
                    reason=GAP_REASONS[record.reason],
                    lost_lines=record.lost_lines,
                )
            )


def log_info(info: LogInfo) -> log_service_pb2.GetLogInfoResponse:
    """What there is to say of a log."""
    message = log_service_pb2.GetLogInfoResponse(
        log_id=info.bounds.log_id,
        start_cursor=info.bounds.start,
        end_cursor=info.bounds.end,
        size_bytes=info.size_bytes,
        segment_count=info.segment_count,
        lines_per_second=info.recent_records / RECENT.total_seconds(),
        bytes_per_second=info.recent_bytes / RECENT.total_seconds(),
    )
    if info.first_time is not None:
        message.first_time.CopyFrom(timestamp(info.first_time))
    if info.last_time is not None:
        message.last_time.CopyFrom(timestamp(info.last_time))
    return message


# Events ---------------------------------------------------------------------


def to_event_filter(
    message: event_service_pb2.EventFilter, projects: frozenset[str] | None = None
) -> EventFilter:
    """Fields that are unset select all of these projects (None: all)."""
    return EventFilter(
        projects=projects,
        audit=message.audit,
        project_id=message.project_id,
        cycle_id=message.cycle_id,
        event_types=tuple(message.event_types),
    )


def event(kept: Event) -> event_pb2.Event:
    """An event as it is kept."""
    return event_pb2.Event(
        sequence=kept.sequence,
        time=timestamp(kept.time),
        event_type=kept.event_type,
        project_id=kept.project_id,
        cycle_id=kept.cycle_id,
        run_id=kept.run_id,
        principal=kept.principal,
        phase=kept.phase,
        reason=kept.reason,
        message=kept.message,
        attributes=kept.attributes,
    )

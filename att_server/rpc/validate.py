"""The rules of every request, beside those that only the managers can know.

Each function raises FIELD_INVALID with everything that is wrong.
"""

from __future__ import annotations

import signal
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from att.v1 import (
    event_service_pb2,
    log_pb2,
    log_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_service_pb2,
)
from att_server.core.log_selection import MAX_PATTERN_MEMORY
from att_server.core.settings import MAX_STOP_GRACE
from att_server.core.settings_rules import pattern_rule
from att_server.rpc.checks import Checks
from att_server.rpc.validate_settings import check_probe, check_runtime_settings

MAX_CURSOR = 2**63 - 1
MAX_EVENT_TYPES = 100
MAX_FOLLOW_BYTES = 256 * 1024
MAX_ID = 128
MAX_PATH_BYTES = 4096
MAX_PATTERN_BYTES = 4096
MAX_PROGRESS_INTERVAL = timedelta(minutes=5)
MAX_READ_BYTES = 3 << 20
MAX_READ_LINES = 100_000
MAX_REASON = 1000
MAX_SIGNAL = 64
MAX_STREAMS = 10
MAX_START_TIMEOUT = timedelta(hours=1)
MAX_TAIL = 100_000_000
MAX_WATCHED = 1000
MIN_PROGRESS_INTERVAL = timedelta(seconds=1)

_REFUSED_SIGNALS = (signal.SIGKILL, signal.SIGSTOP)

# Projects -------------------------------------------------------------------


def create_project(
    request: project_service_pb2.CreateProjectRequest, allowed_hosts: frozenset[str]
) -> None:
    """Settings; the path itself and the template are the manager's to look at.

    allowed_hosts: here and below, what probes may ask beside this host.
    """
    checks = Checks()
    checks.project_id(request.project_id)
    if not request.path:
        checks.broken("path", "must be the absolute path of a directory")
    _check_path(checks, request.path)
    check_runtime_settings(checks, "runtime", request.runtime, allowed_hosts)
    checks.text("template", request.template, MAX_ID)
    checks.done()


def get_project(request: project_service_pb2.GetProjectRequest) -> None:
    """Any project's id."""
    _only_project_id(request.project_id)


def list_projects(request: project_service_pb2.ListProjectsRequest) -> None:
    """A page."""
    checks = Checks()
    checks.page(request.page_size, request.page_token)
    checks.done()


def update_project(
    request: project_service_pb2.UpdateProjectRequest, allowed_hosts: frozenset[str]
) -> None:
    """An empty path leaves the path as it is."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_path(checks, request.path)
    check_runtime_settings(checks, "runtime", request.runtime, allowed_hosts)
    checks.done()


def set_project_mode(request: project_service_pb2.SetProjectModeRequest) -> None:
    """A mode that is named, and words for people."""
    checks = Checks()
    checks.project_id(request.project_id)
    if request.mode == project_pb2.PROJECT_MODE_UNSPECIFIED:
        checks.broken("mode", "must be NORMAL, SAFE or FROZEN")
    checks.enum("mode", request.mode, project_pb2.ProjectMode.DESCRIPTOR.values_by_number)
    checks.text("reason", request.reason, MAX_REASON)
    checks.done()


def delete_project(request: project_service_pb2.DeleteProjectRequest) -> None:
    """An id, and one of the request."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.request_id(request.request_id)
    checks.done()


# Runtimes -------------------------------------------------------------------


def start_runtime(
    request: runtime_service_pb2.StartRuntimeRequest, allowed_hosts: frozenset[str]
) -> None:
    """Settings for this start, and a bounded wait."""
    checks = Checks()
    _check_start(checks, request, allowed_hosts)
    checks.done()


def restart_runtime(
    request: runtime_service_pb2.RestartRuntimeRequest, allowed_hosts: frozenset[str]
) -> None:
    """As a start, with a bounded grace."""
    checks = Checks()
    _check_start(checks, request, allowed_hosts)
    if request.HasField("grace"):
        checks.duration("grace", request.grace, timedelta(), MAX_STOP_GRACE)
    checks.done()


def stop_runtime(request: runtime_service_pb2.StopRuntimeRequest) -> None:
    """An id, and a bounded grace."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.request_id(request.request_id)
    if request.HasField("grace"):
        checks.duration("grace", request.grace, timedelta(), MAX_STOP_GRACE)
    checks.done()


def get_runtime(request: runtime_service_pb2.GetRuntimeRequest) -> None:
    """Any project's id."""
    _only_project_id(request.project_id)


def list_runtimes(request: runtime_service_pb2.ListRuntimesRequest) -> None:
    """A page."""
    checks = Checks()
    checks.page(request.page_size, request.page_token)
    checks.done()


def signal_runtime(request: runtime_service_pb2.SignalRuntimeRequest) -> None:
    """A signal that an app may get."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.request_id(request.request_id)
    checks.range("signal", request.signal, 1, MAX_SIGNAL)
    if request.signal in _REFUSED_SIGNALS:
        checks.broken("signal", "must not be SIGKILL or SIGSTOP; use StopRuntime")
    checks.done()


def watch_runtimes(request: runtime_service_pb2.WatchRuntimesRequest) -> None:
    """Ids and a revision."""
    checks = Checks()
    if len(request.project_ids) > MAX_WATCHED:
        checks.broken("project_ids", f"must have at most {MAX_WATCHED:,} entries")
    for index, project_id in enumerate(request.project_ids[:MAX_WATCHED]):
        checks.project_id(project_id, f"project_ids[{index}]")
    checks.range("after_revision", request.after_revision, 0, MAX_CURSOR)
    if request.HasField("progress_interval"):
        check_progress_interval(checks, request.progress_interval)
    checks.done()


def probe_health(
    request: runtime_service_pb2.ProbeHealthRequest, probe_hosts: frozenset[str]
) -> None:
    """An id, and a check that may be made."""
    checks = Checks()
    checks.project_id(request.project_id)
    if request.HasField("probe"):
        check_probe(checks, "probe", request.probe, probe_hosts)
    checks.done()


# Logs -----------------------------------------------------------------------


def read_logs(request: log_service_pb2.ReadLogsRequest) -> None:
    """A position, a filter, and the bounds of a page."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_position(checks, request.start)
    _check_filter(checks, request.filter)
    checks.range("limit", request.limit, 0, MAX_READ_LINES)
    checks.range("max_bytes", request.max_bytes, 0, MAX_READ_BYTES)
    checks.done()


def follow_logs(request: log_service_pb2.FollowLogsRequest) -> None:
    """A position, a filter, and the bounds of a message."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_position(checks, request.start)
    _check_filter(checks, request.filter)
    checks.range("max_bytes", request.max_bytes, 0, MAX_FOLLOW_BYTES)
    checks.text("until_run_id", request.until_run_id, MAX_ID)
    if request.HasField("progress_interval"):
        check_progress_interval(checks, request.progress_interval)
    checks.done()


def get_log_info(request: log_service_pb2.GetLogInfoRequest) -> None:
    """Any project's id."""
    _only_project_id(request.project_id)


def trim_logs(request: log_service_pb2.TrimLogsRequest) -> None:
    """A cursor."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.range("before_cursor", request.before_cursor, 0, MAX_CURSOR)
    checks.done()


# Events ---------------------------------------------------------------------


def list_events(request: event_service_pb2.ListEventsRequest) -> None:
    """A filter, a cursor and a page size."""
    checks = Checks()
    _check_event_filter(checks, request.filter)
    checks.page(request.page_size, "")
    checks.range("cursor", request.cursor, 0, MAX_CURSOR)
    if request.tail and request.cursor != 0:
        checks.broken("cursor", "must be 0 with `tail`")
    checks.done()


def watch_events(request: event_service_pb2.WatchEventsRequest) -> None:
    """A filter and a cursor."""
    checks = Checks()
    _check_event_filter(checks, request.filter)
    checks.range("cursor", request.cursor, 0, MAX_CURSOR)
    if request.HasField("progress_interval"):
        check_progress_interval(checks, request.progress_interval)
    checks.done()


# Parts ----------------------------------------------------------------------


def _only_project_id(project_id: str) -> None:
    checks = Checks()
    checks.project_id(project_id)
    checks.done()


def _check_path(checks: Checks, path: str) -> None:
    if len(path.encode()) > MAX_PATH_BYTES:
        checks.broken("path", f"must have at most {MAX_PATH_BYTES:,} bytes")
    if "\0" in path:
        checks.broken("path", "must not hold a NUL character")


def _check_start(
    checks: Checks,
    request: runtime_service_pb2.StartRuntimeRequest | runtime_service_pb2.RestartRuntimeRequest,
    allowed_hosts: frozenset[str],
) -> None:
    checks.project_id(request.project_id)
    checks.request_id(request.request_id)
    check_runtime_settings(checks, "runtime", request.runtime, allowed_hosts)
    checks.enum("wait", request.wait, runtime_service_pb2.StartWait.DESCRIPTOR.values_by_number)
    if request.HasField("timeout"):
        checks.duration("timeout", request.timeout, timedelta(), MAX_START_TIMEOUT)


def _check_position(checks: Checks, position: log_pb2.LogPosition) -> None:
    match position.WhichOneof("position"):
        case "cursor":
            checks.range("start.cursor", position.cursor, 0, MAX_CURSOR)
        case "tail":
            checks.range("start.tail", position.tail, 0, MAX_TAIL)
        case "since":
            checks.timestamp("start.since", position.since)
        case "anchor":
            known = log_pb2.LogAnchor.DESCRIPTOR.values_by_number
            checks.enum("start.anchor", position.anchor, known)
    checks.text("start.log_id", position.log_id, MAX_ID)


def _check_filter(checks: Checks, selected: log_pb2.LogFilter) -> None:
    streams = log_pb2.LogStream.DESCRIPTOR.values_by_number
    for index, stream in enumerate(selected.streams[:MAX_STREAMS]):
        field = f"filter.streams[{index}]"
        checks.enum(field, stream, streams)
        if stream == log_pb2.LOG_STREAM_UNSPECIFIED:
            checks.broken(field, "must be STDOUT or STDERR")
    if len(selected.streams) > MAX_STREAMS:
        checks.broken("filter.streams", f"must have at most {MAX_STREAMS} entries")
    checks.text("filter.run_id", selected.run_id, MAX_ID)
    severities = log_pb2.LogSeverity.DESCRIPTOR.values_by_number
    checks.enum("filter.min_severity", selected.min_severity, severities)
    if selected.pattern:
        rule = pattern_rule(
            selected.pattern, max_bytes=MAX_PATTERN_BYTES, max_memory=MAX_PATTERN_MEMORY
        )
        if rule:
            checks.broken("filter.pattern", rule)
    for name in ("start_time", "end_time"):
        if selected.HasField(name):
            checks.timestamp(f"filter.{name}", getattr(selected, name))
    if selected.HasField("start_time") and selected.HasField("end_time"):
        start, end = selected.start_time, selected.end_time
        if (end.seconds, end.nanos) <= (start.seconds, start.nanos):
            checks.broken("filter.end_time", "must be later than `start_time`")


def _check_event_filter(checks: Checks, selected: event_service_pb2.EventFilter) -> None:
    if selected.project_id:
        checks.project_id(selected.project_id, "filter.project_id")
    checks.text("filter.cycle_id", selected.cycle_id, MAX_ID)
    if len(selected.event_types) > MAX_EVENT_TYPES:
        checks.broken("filter.event_types", f"must have at most {MAX_EVENT_TYPES} entries")
        return
    for index, event_type in enumerate(selected.event_types):
        field = f"filter.event_types[{index}]"
        if not event_type:
            checks.broken(field, "must not be empty")
        checks.text(field, event_type, MAX_ID)


def check_progress_interval(checks: Checks, interval: Duration) -> None:
    """Notes a bound of a stream's silence that is out of its range."""
    checks.duration("progress_interval", interval, MIN_PROGRESS_INTERVAL, MAX_PROGRESS_INTERVAL)

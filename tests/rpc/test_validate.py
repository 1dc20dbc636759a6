"""Requests that break a rule are refused, with the field and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from att.v1 import (
    event_service_pb2,
    log_pb2,
    log_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_service_pb2,
)
from att_server.core.errors import AttError, Reason
from att_server.rpc import validate

Settings = project_pb2.RuntimeSettings
HOUR = 3600
HOSTS = frozenset({"db.internal", "10.1.2.3"})


def create_project(request: project_service_pb2.CreateProjectRequest) -> None:
    validate.create_project(request, HOSTS)


def update_project(request: project_service_pb2.UpdateProjectRequest) -> None:
    validate.update_project(request, HOSTS)


def start_runtime(request: runtime_service_pb2.StartRuntimeRequest) -> None:
    validate.start_runtime(request, HOSTS)


def restart_runtime(request: runtime_service_pb2.RestartRuntimeRequest) -> None:
    validate.restart_runtime(request, HOSTS)


def broken(check: Callable[[Any], None], request: Any) -> list[str]:
    """The fields that the check finds broken."""
    with pytest.raises(AttError) as caught:
        check(request)
    assert caught.value.reason is Reason.FIELD_INVALID
    return [violation.field for violation in caught.value.violations]


def lacking(check: Callable[[Any], None], request: Any) -> str:
    """The capability that the check finds lacking."""
    with pytest.raises(AttError) as caught:
        check(request)
    assert caught.value.reason is Reason.NOT_IMPLEMENTED
    return caught.value.metadata["capability"]


def create(**fields: Any) -> project_service_pb2.CreateProjectRequest:
    return project_service_pb2.CreateProjectRequest(
        **{"project_id": "web", "path": "/srv/web", **fields}
    )


def start(**fields: Any) -> runtime_service_pb2.StartRuntimeRequest:
    return runtime_service_pb2.StartRuntimeRequest(**{"project_id": "web", **fields})


def read(**fields: Any) -> log_service_pb2.ReadLogsRequest:
    return log_service_pb2.ReadLogsRequest(**{"project_id": "web", **fields})


def follow(**fields: Any) -> log_service_pb2.FollowLogsRequest:
    return log_service_pb2.FollowLogsRequest(**{"project_id": "web", **fields})


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


@pytest.mark.parametrize(
    "project_id",
    [
        *("", "a", "A1", "1a", "-a", "a-", "a_b", "a.b", "a/b", "..", "a b", "a\n", "a\0"),
        *("ä1", "a" * 64, "a" * 100_000, "\u202eab", "web\u200d"),
    ],
)
def test_a_project_id_of_another_form_is_refused(project_id: str) -> None:
    assert broken(create_project, create(project_id=project_id)) == ["project_id"]
    for check, request in (
        (validate.get_project, project_service_pb2.GetProjectRequest),
        (update_project, project_service_pb2.UpdateProjectRequest),
        (validate.delete_project, project_service_pb2.DeleteProjectRequest),
        (start_runtime, runtime_service_pb2.StartRuntimeRequest),
        (validate.stop_runtime, runtime_service_pb2.StopRuntimeRequest),
        (restart_runtime, runtime_service_pb2.RestartRuntimeRequest),
        (validate.get_runtime, runtime_service_pb2.GetRuntimeRequest),
        (validate.read_logs, log_service_pb2.ReadLogsRequest),
        (validate.follow_logs, log_service_pb2.FollowLogsRequest),
    ):
        given: Any = request
        assert broken(check, given(project_id=project_id)) == ["project_id"]


@pytest.mark.parametrize("project_id", ["a1", "ab", "my-app-2", "a" * 63])
def test_a_project_id_of_the_documented_form_is_taken(project_id: str) -> None:
    create_project(create(project_id=project_id))


def test_all_that_is_wrong_is_told_at_once() -> None:
    request = create(
        project_id="?",
        path="",
        runtime=Settings(command=[""], env={"ATT_RUN_ID": "x"}, stop_grace=seconds(-1)),
    )
    assert broken(create_project, request) == [
        "project_id",
        "path",
        "runtime.command[0]",
        "runtime.env['ATT_RUN_ID']",
        "runtime.stop_grace",
    ]


@pytest.mark.parametrize("path", ["", "/a\0b", "/" + "x" * 4096])
def test_a_path_that_cannot_be_one_is_refused(path: str) -> None:
    assert broken(create_project, create(path=path)) == ["path"]


def test_an_update_without_a_path_leaves_it() -> None:
    update_project(project_service_pb2.UpdateProjectRequest(project_id="web"))


def test_a_template_is_a_printable_name() -> None:
    assert broken(create_project, create(template="a\nb")) == ["template"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"wait": 99}, "wait"),
        ({"timeout": seconds(-1)}, "timeout"),
        ({"timeout": seconds(HOUR + 1)}, "timeout"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "x\n"}, "request_id"),
    ],
)
def test_a_start_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(start_runtime, start(**fields)) == [field]
    restart = runtime_service_pb2.RestartRuntimeRequest(project_id="web", **fields)
    assert broken(restart_runtime, restart) == [field]


def test_a_grace_out_of_bounds_is_refused() -> None:
    for grace in (seconds(-1), seconds(HOUR + 1)):
        stop = runtime_service_pb2.StopRuntimeRequest(project_id="web", grace=grace)
        assert broken(validate.stop_runtime, stop) == ["grace"]
        restart = runtime_service_pb2.RestartRuntimeRequest(project_id="web", grace=grace)
        assert broken(restart_runtime, restart) == ["grace"]


@pytest.mark.parametrize("number", [-1, 0, 9, 19, 65])
def test_a_signal_that_no_app_may_get_is_refused(number: int) -> None:
    request = runtime_service_pb2.SignalRuntimeRequest(project_id="web", signal=number)
    assert broken(validate.signal_runtime, request) == ["signal"]


@pytest.mark.parametrize("number", [1, 15, 64])
def test_any_other_signal_is_taken(number: int) -> None:
    validate.signal_runtime(
        runtime_service_pb2.SignalRuntimeRequest(project_id="web", signal=number)
    )


@pytest.mark.parametrize(
    ("position", "field"),
    [
        (log_pb2.LogPosition(cursor=-1), "start.cursor"),
        (log_pb2.LogPosition(tail=-1), "start.tail"),
        (log_pb2.LogPosition(tail=100_000_001), "start.tail"),
        (log_pb2.LogPosition(since=Timestamp(nanos=-1)), "start.since"),
        (log_pb2.LogPosition(since=Timestamp(seconds=2**60)), "start.since"),
        (log_pb2.LogPosition(since=Timestamp(seconds=-(2**60))), "start.since"),
        (log_pb2.LogPosition(anchor=99), "start.anchor"),  # type: ignore[arg-type]  # unknown on purpose
        (log_pb2.LogPosition(log_id="x" * 129), "start.log_id"),
    ],
)
def test_a_position_that_is_none_is_refused(position: log_pb2.LogPosition, field: str) -> None:
    assert broken(validate.read_logs, read(start=position)) == [field]
    assert broken(validate.follow_logs, follow(start=position)) == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 100_001}, "limit"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"max_bytes": 3_145_729}, "max_bytes"),
    ],
)
def test_a_page_of_a_log_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(validate.read_logs, read(**fields)) == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"max_bytes": 262_145}, "max_bytes"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"progress_interval": seconds(0.9)}, "progress_interval"),
        ({"progress_interval": seconds(301)}, "progress_interval"),
    ],
)
def test_a_follow_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(validate.follow_logs, follow(**fields)) == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"streams": [7]}, "filter.streams[0]"),
        ({"streams": [log_pb2.LOG_STREAM_STDERR, 0]}, "filter.streams[1]"),
        ({"streams": [log_pb2.LOG_STREAM_STDERR] * 11}, "filter.streams"),
        ({"run_id": "x" * 129}, "filter.run_id"),
        ({"min_severity": 6}, "filter.min_severity"),
        ({"min_severity": -1}, "filter.min_severity"),
        ({"pattern": "("}, "filter.pattern"),
        ({"pattern": r"(?=ahead)"}, "filter.pattern"),
        ({"pattern": "x" * 4097}, "filter.pattern"),
        ({"pattern": "((((a{100}){100}){100}){100}){100}"}, "filter.pattern"),
        ({"start_time": Timestamp(nanos=-1)}, "filter.start_time"),
        ({"end_time": Timestamp(seconds=2**60)}, "filter.end_time"),
        ({"start_time": Timestamp(seconds=5), "end_time": Timestamp(seconds=5)}, "filter.end_time"),
        ({"start_time": Timestamp(seconds=5), "end_time": Timestamp(seconds=4)}, "filter.end_time"),
    ],
)
def test_a_filter_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    selected = log_pb2.LogFilter(**fields)
    assert broken(validate.read_logs, read(filter=selected)) == [field]
    assert broken(validate.follow_logs, follow(filter=selected)) == [field]


def test_an_empty_filter_selects_all() -> None:
    validate.read_logs(read(filter=log_pb2.LogFilter()))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cursor": -1}, "cursor"),
        ({"cursor": 1, "tail": True}, "cursor"),
        ({"page_size": -1}, "page_size"),
        ({"filter": {"project_id": "?"}}, "filter.project_id"),
        ({"filter": {"event_types": ["x"] * 101}}, "filter.event_types"),
        ({"filter": {"event_types": ["x", ""]}}, "filter.event_types[1]"),
        ({"filter": {"cycle_id": "\0"}}, "filter.cycle_id"),
    ],
)
def test_a_page_of_events_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(validate.list_events, event_service_pb2.ListEventsRequest(**fields)) == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cursor": -1}, "cursor"),
        ({"filter": {"project_id": "?"}}, "filter.project_id"),
        ({"progress_interval": seconds(0)}, "progress_interval"),
    ],
)
def test_a_watch_of_events_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(validate.watch_events, event_service_pb2.WatchEventsRequest(**fields)) == [field]


def test_a_page_of_a_list_out_of_bounds_is_refused() -> None:
    for check, request in (
        (validate.list_projects, project_service_pb2.ListProjectsRequest),
        (validate.list_runtimes, runtime_service_pb2.ListRuntimesRequest),
    ):
        given: Any = request
        assert broken(check, given(page_size=-1)) == ["page_size"]
        assert broken(check, given(page_token="x" * 1025)) == ["page_token"]

"""Requests that break a rule are refused, with the field and nothing else."""

from __future__ import annotations

import math
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
from att_server.rpc.checks import Checks
from att_server.rpc.validate_settings import check_probe

Settings = project_pb2.RuntimeSettings
Probe = project_pb2.Probe
Restart = project_pb2.RestartPolicy
Limits = project_pb2.ResourceLimits
HOUR = 3600
DAY = 24 * HOUR
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


def probe(**fields: Any) -> project_service_pb2.CreateProjectRequest:
    """A creation with this readiness probe."""
    if not fields.keys() & {"http", "tcp", "command", "grpc", "log"}:
        fields["http"] = project_pb2.HttpProbe(url="http://localhost/")
    return create(runtime=Settings(readiness=Probe(**fields)))


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


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (Settings(command=["x"] * 1001), "command"),
        (Settings(command=["x", "y" * 128 * 1024]), "command"),
        (Settings(command=["x\0y"]), "command"),
        (Settings(command=["", "x"]), "command[0]"),
        (Settings(env={"ATT_RUN_ID": "x"}), "env['ATT_RUN_ID']"),
        (Settings(env={"": "x"}), "env['']"),
        (Settings(env={"A=B": "x"}), "env['A=B']"),
        (Settings(env={"A\0": "x"}), "env['A\\x00']"),
        (Settings(env={"A": "x\0"}), "env['A']"),
        (Settings(env={"env": "x\0"}), "env['env']"),
        (Settings(env={f"A{n}": "" for n in range(1001)}), "env"),
        (Settings(env={f"A{n}": "" for n in range(100_000)}), "env"),
        (Settings(env={"A": "x" * 128 * 1024}), "env"),
        (Settings(env={"A": "x" * (1 << 20)}), "env"),
        (Settings(env_file=""), "env_file"),
        (Settings(env_file="a\0b"), "env_file"),
        (Settings(env_file="x" * 4097), "env_file"),
        (Settings(stop_grace=seconds(-0.001)), "stop_grace"),
        (Settings(stop_grace=seconds(HOUR + 0.001)), "stop_grace"),
        (Settings(restart=Restart(condition=99)), "restart.condition"),  # type: ignore[arg-type]  # unknown on purpose
        (Settings(restart=Restart(initial_backoff=seconds(0.009))), "restart.initial_backoff"),
        (Settings(restart=Restart(max_backoff=seconds(DAY + 1))), "restart.max_backoff"),
        (Settings(restart=Restart(initial_backoff=seconds(61))), "restart.max_backoff"),
        (Settings(restart=Restart(backoff_factor=0.99)), "restart.backoff_factor"),
        (Settings(restart=Restart(backoff_factor=100.1)), "restart.backoff_factor"),
        (Settings(restart=Restart(backoff_factor=math.nan)), "restart.backoff_factor"),
        (Settings(restart=Restart(backoff_factor=math.inf)), "restart.backoff_factor"),
        (Settings(restart=Restart(backoff_jitter=-0.1)), "restart.backoff_jitter"),
        (Settings(restart=Restart(backoff_jitter=1.1)), "restart.backoff_jitter"),
        (Settings(restart=Restart(backoff_jitter=math.nan)), "restart.backoff_jitter"),
        (Settings(restart=Restart(max_restarts=-1)), "restart.max_restarts"),
        (Settings(restart=Restart(max_restarts=10_001)), "restart.max_restarts"),
        (Settings(restart=Restart(window=seconds(0.9))), "restart.window"),
        (Settings(restart=Restart(window=seconds(30 * DAY + 1))), "restart.window"),
        (Settings(restart=Restart(stable_after=seconds(-1))), "restart.stable_after"),
        (Settings(restart=Restart(stable_after=seconds(30 * DAY + 1))), "restart.stable_after"),
        (Settings(limits=Limits(memory_bytes=(1 << 20) - 1)), "limits.memory_bytes"),
        (Settings(limits=Limits(memory_bytes=-(2**63))), "limits.memory_bytes"),
        (Settings(limits=Limits(memory_bytes=2**63 - 1)), "limits.memory_bytes"),
        (Settings(limits=Limits(open_files=15)), "limits.open_files"),
        (Settings(limits=Limits(open_files=2**63 - 1)), "limits.open_files"),
        (Settings(limits=Limits(processes=0)), "limits.processes"),
        (Settings(limits=Limits(processes=2**63 - 1)), "limits.processes"),
        (Settings(limits=Limits(cpu_time=seconds(0.9))), "limits.cpu_time"),
        (Settings(limits=Limits(cpu_time=seconds(3651 * DAY))), "limits.cpu_time"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings: Settings, field: str) -> None:
    assert broken(create_project, create(runtime=settings)) == [f"runtime.{field}"]
    assert broken(start_runtime, start(runtime=settings)) == [f"runtime.{field}"]


@pytest.mark.parametrize(
    "span",
    [
        Duration(seconds=2**62),
        Duration(seconds=-(2**63)),
        Duration(seconds=2**63 - 1, nanos=-(2**31)),
        Duration(seconds=1, nanos=-1),
        Duration(nanos=1_000_000_000),
        Duration(nanos=2**31 - 1),
    ],
)
@pytest.mark.parametrize("place", ["stop_grace", "restart", "limits", "readiness", "liveness"])
def test_a_duration_that_is_none_is_refused_once(span: Duration, place: str) -> None:
    http = project_pb2.HttpProbe(url="http://localhost/")
    settings, field = {
        "stop_grace": (Settings(stop_grace=span), "stop_grace"),
        "restart": (Settings(restart=Restart(window=span)), "restart.window"),
        "limits": (Settings(limits=Limits(cpu_time=span)), "limits.cpu_time"),
        "readiness": (Settings(readiness=Probe(http=http, interval=span)), "readiness.interval"),
        "liveness": (Settings(liveness=Probe(http=http, deadline=span)), "liveness.deadline"),
    }[place]
    assert broken(create_project, create(runtime=settings)) == [f"runtime.{field}"]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(env_file=".env"),
        Settings(env_file="/run/secrets/app.env"),
        Settings(restart=Restart()),
        Settings(restart=Restart(condition=Restart.CONDITION_ALWAYS, max_restarts=0)),
        Settings(
            restart=Restart(
                condition=Restart.CONDITION_ON_FAILURE,
                initial_backoff=seconds(0.01),
                max_backoff=seconds(DAY),
                backoff_factor=1,
                backoff_jitter=0,
                max_restarts=10_000,
                window=seconds(30 * DAY),
                stable_after=seconds(0),
            )
        ),
        Settings(limits=Limits()),
        Settings(
            limits=Limits(memory_bytes=1 << 20, open_files=16, processes=1, cpu_time=seconds(1))
        ),
        Settings(liveness=Probe(tcp=project_pb2.TcpProbe(port=80), deadline=seconds(DAY))),
        Settings(command=["x"] * 1000, env={f"A{n}": "x" for n in range(1000)}),
    ],
)
def test_settings_within_bounds_are_taken(settings: Settings) -> None:
    create_project(create(runtime=settings))
    update_project(project_service_pb2.UpdateProjectRequest(project_id="web", runtime=settings))
    start_runtime(start(runtime=settings))
    restart_runtime(runtime_service_pb2.RestartRuntimeRequest(project_id="web", runtime=settings))


def test_settings_of_a_later_capability_are_refused_by_name() -> None:
    settings = Settings(data_directories=["data"])
    assert lacking(create_project, create(runtime=settings)) == "settings.data_directories"
    assert lacking(start_runtime, start(runtime=settings)) == "settings.data_directories"


def test_settings_that_are_broken_are_told_before_those_that_are_lacking() -> None:
    request = create(path="", runtime=Settings(data_directories=["data"]))
    assert broken(create_project, request) == ["path"]


def test_a_refusal_never_repeats_the_value_of_a_variable() -> None:
    request = create(runtime=Settings(env={"ATT_X": "hunter2", "A": "hunter2\0"}))
    with pytest.raises(AttError) as caught:
        create_project(request)
    assert "hunter2" not in caught.value.message
    assert "hunter2" not in str(caught.value.metadata)


def test_a_template_is_a_printable_name() -> None:
    assert broken(create_project, create(template="a\nb")) == ["template"]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "http://localhost:8080/health?deep=1",
        "http://127.0.0.1:1/",
        "http://127.9.9.9/",
        "http://[::1]:8080/",
    ],
)
def test_a_probe_may_ask_this_host(url: str) -> None:
    create_project(probe(http=project_pb2.HttpProbe(url=url)))


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost", "https://localhost/", "file:///etc/passwd", "http://", "http:///x"),
        *("http://169.254.169.254/", "http://example.com/", "http://localhost.evil.example/"),
        *("http://localhost@evil.example/", "http://u:p@localhost/", "http://0.0.0.0/"),
        *("http://[::ffff:127.0.0.1]/", "http://[::ffff:169.254.169.254]/", "http://[::1/"),
        *("http://0x7f.1/", "http://2130706433/", "http://localhost:0/", "http://localhost:70000/"),
        *(
            "http://local\thost/",
            "http://localhost/\r\nX: y",
            "http://localhost/ x",
            "http://lоcalhost/",
        ),
        "http://localhost/" + "x" * 2048,
    ],
)
def test_a_probe_may_ask_nobody_else(url: str) -> None:
    request = probe(http=project_pb2.HttpProbe(url=url))
    assert broken(create_project, request) == ["runtime.readiness.http.url"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"interval": seconds(0.009)}, "interval"),
        ({"interval": seconds(DAY + 1)}, "interval"),
        ({"timeout": seconds(0)}, "timeout"),
        ({"timeout": seconds(HOUR + 1)}, "timeout"),
        ({"threshold": 0}, "threshold"),
        ({"threshold": 1001}, "threshold"),
        ({"deadline": seconds(0)}, "deadline"),
        ({"deadline": seconds(DAY + 1)}, "deadline"),
        ({"tcp": project_pb2.TcpProbe()}, "tcp.port"),
        ({"tcp": project_pb2.TcpProbe(port=-1)}, "tcp.port"),
        ({"tcp": project_pb2.TcpProbe(port=65_536)}, "tcp.port"),
        ({"tcp": project_pb2.TcpProbe(host="169.254.169.254", port=80)}, "tcp.host"),
        ({"tcp": project_pb2.TcpProbe(host="0.0.0.0", port=80)}, "tcp.host"),
        ({"tcp": project_pb2.TcpProbe(host="[::1]", port=80)}, "tcp.host"),
        ({"command": project_pb2.CommandProbe()}, "command.command"),
        ({"command": project_pb2.CommandProbe(command=[""])}, "command.command[0]"),
        ({"command": project_pb2.CommandProbe(command=["a\0"])}, "command.command"),
        ({"command": project_pb2.CommandProbe(command=["x"] * 1001)}, "command.command"),
        ({"command": project_pb2.CommandProbe(command=["x" * 131_072])}, "command.command"),
        ({"grpc": project_pb2.GrpcProbe()}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="localhost")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="localhost:0")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="localhost:65536")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="example.com:80")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="dns:///localhost:80")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="ipv4:127.0.0.1:80")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="unix:")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="unix:a\0b")}, "grpc.target"),
        ({"grpc": project_pb2.GrpcProbe(target="localhost:1", service="a\n")}, "grpc.service"),
        ({"grpc": project_pb2.GrpcProbe(target="localhost:1", service="x" * 1001)}, "grpc.service"),
        ({"log": project_pb2.LogProbe()}, "log.pattern"),
        ({"log": project_pb2.LogProbe(pattern="x" * 1001)}, "log.pattern"),
        ({"log": project_pb2.LogProbe(pattern="(")}, "log.pattern"),
        ({"log": project_pb2.LogProbe(pattern="(?=look)")}, "log.pattern"),
        ({"log": project_pb2.LogProbe(pattern=r"(\pL{30}){30}")}, "log.pattern"),
    ],
)
def test_a_probe_out_of_bounds_is_refused(fields: dict[str, Any], field: str) -> None:
    assert broken(create_project, probe(**fields)) == [f"runtime.readiness.{field}"]
    if "log" not in fields:
        live = create(runtime=Settings(liveness=probe(**fields).runtime.readiness))
        assert broken(create_project, live) == [f"runtime.liveness.{field}"]
    checks = Checks()
    check_probe(checks, "probe", probe(**fields).runtime.readiness, HOSTS)
    assert broken(lambda _: checks.done(), None) == [f"probe.{field}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tcp": project_pb2.TcpProbe(port=65_535)},
        {"tcp": project_pb2.TcpProbe(host="::1", port=1)},
        {"tcp": project_pb2.TcpProbe(host="LocalHost", port=1)},
        {"tcp": project_pb2.TcpProbe(host="10.1.2.3", port=1)},
        {"tcp": project_pb2.TcpProbe(host="DB.internal", port=1)},
        {"http": project_pb2.HttpProbe(url="http://db.internal:8080/")},
        {"grpc": project_pb2.GrpcProbe(target="db.internal:50051", service="a.B")},
        {"grpc": project_pb2.GrpcProbe(target="[::1]:50051")},
        {"grpc": project_pb2.GrpcProbe(target="unix:app.sock")},
        {"grpc": project_pb2.GrpcProbe(target="unix:/run/app.sock")},
        {"command": project_pb2.CommandProbe(command=["curl", "-f", "localhost"])},
        {"log": project_pb2.LogProbe(pattern="(?i)listening on .*:\\d+")},
    ],
)
def test_a_probe_of_any_kind_within_bounds_is_taken(fields: dict[str, Any]) -> None:
    create_project(probe(**fields))
    checks = Checks()
    check_probe(checks, "probe", probe(**fields).runtime.readiness, HOSTS)
    checks.done()


def test_a_line_of_the_log_says_nothing_of_liveness() -> None:
    live = Probe(log=project_pb2.LogProbe(pattern="x"))
    assert broken(create_project, create(runtime=Settings(liveness=live))) == [
        "runtime.liveness.log"
    ]


def test_a_probe_of_nothing_is_refused() -> None:
    request = create(runtime=Settings(readiness=Probe(), liveness=Probe(interval=seconds(1))))
    assert broken(create_project, request) == ["runtime.readiness", "runtime.liveness"]


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
    "selected",
    [
        log_pb2.LogFilter(streams=[log_pb2.LOG_STREAM_STDERR]),
        log_pb2.LogFilter(run_id="x"),
        log_pb2.LogFilter(min_severity=log_pb2.LOG_SEVERITY_ERROR),
        log_pb2.LogFilter(pattern="x"),
        log_pb2.LogFilter(start_time=Timestamp()),
        log_pb2.LogFilter(end_time=Timestamp()),
    ],
)
def test_any_filter_of_a_log_is_refused_by_name(selected: log_pb2.LogFilter) -> None:
    assert lacking(validate.read_logs, read(filter=selected)) == "logs.filter"
    assert lacking(validate.follow_logs, follow(filter=selected)) == "logs.filter"


def test_what_is_broken_is_told_before_what_is_lacking() -> None:
    both = read(filter=log_pb2.LogFilter(run_id="x"), limit=-1)
    assert broken(validate.read_logs, both) == ["limit"]


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

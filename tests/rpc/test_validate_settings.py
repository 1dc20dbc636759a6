"""Settings that break a rule are refused by every request that gives them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from att.v1 import project_pb2, project_service_pb2, runtime_service_pb2
from att_server.core.errors import AttError
from att_server.rpc import capabilities
from att_server.rpc.boundary import Boundary
from att_server.rpc.checks import Checks
from att_server.rpc.validate_settings import check_probe
from att_server.testing.server import serve_in_process
from tests.rpc.conftest import connect
from tests.rpc.test_validate import (
    HOSTS,
    HOUR,
    Settings,
    broken,
    create,
    create_project,
    lacking,
    restart_runtime,
    seconds,
    start,
    start_runtime,
    update_project,
)

Probe = project_pb2.Probe
Restart = project_pb2.RestartPolicy
Limits = project_pb2.ResourceLimits
DAY = 24 * HOUR


def probe(**fields: Any) -> project_service_pb2.CreateProjectRequest:
    """A creation with this readiness probe."""
    if not fields.keys() & {"http", "tcp", "command", "grpc", "log"}:
        fields["http"] = project_pb2.HttpProbe(url="http://localhost/")
    return create(runtime=Settings(readiness=Probe(**fields)))


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


async def test_what_settings_may_say_is_listed_by_name() -> None:
    async with (
        serve_in_process() as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        listed = (await wire.unary("GetServerInfo")).capabilities
    assert {*capabilities.OFFERED} <= {*listed}
    assert "settings.data_directories" not in listed
    kinds = {f"probes.{field.name}" for field in Probe.DESCRIPTOR.oneofs[0].fields}
    assert kinds <= {*capabilities.OFFERED}


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

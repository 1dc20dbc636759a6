"""What checks of the other kinds say: TCP, commands, gRPC, and lines of the log."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from att_server.adapters.probes import SystemProber
from att_server.core.model import LogStream, ProbeResult
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    LogProbe,
    Probe,
    ProbeKind,
    TcpProbe,
)
from att_server.testing.clock import FakeClock
from att_server.testing.log_store import MemoryLogStore
from tests.contract.probed_apps import LONG, SubprocessRunner, app, target

SHORT = timedelta(milliseconds=300)


@pytest.fixture
def logs() -> MemoryLogStore:
    return MemoryLogStore()


@pytest.fixture
async def prober(logs: MemoryLogStore) -> AsyncIterator[SystemProber]:
    made = SystemProber(FakeClock(), logs=logs, commands=SubprocessRunner())
    yield made
    await made.aclose()


def probe(kind: ProbeKind, timeout: timedelta = LONG) -> Probe:
    return Probe(kind=kind, timeout=timeout)


# TCP ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
async def test_an_app_that_accepts_is_healthy(prober: SystemProber, host: str) -> None:
    with app("http_app.py", "silent", "0.0.0.0", 0) as (pid, port):
        result = await prober.probe(probe(TcpProbe(host=host, port=port)), target(pid))
    assert (result.healthy, result.probe, result.reason) == (True, "tcp", "tcp_ok")


async def test_a_port_on_which_nobody_listens_refuses(prober: SystemProber) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = await prober.probe(probe(TcpProbe(port=port)), target(os.getpid()))
    assert (result.healthy, result.reason) == (False, "tcp_refused")


async def test_a_port_of_a_stranger_is_not_believed(prober: SystemProber) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        app("http_app.py", "200", "127.0.0.1", 0) as (pid, _),
    ):
        kind = TcpProbe(port=listener.getsockname()[1])
        result = await prober.probe(probe(kind), target(pid))
    assert (result.healthy, result.reason) == (False, "port_owned_by_other_process")


async def test_an_app_whose_queue_is_full_times_out(prober: SystemProber) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(("127.0.0.1", port))
        result = await prober.probe(probe(TcpProbe(port=port), SHORT), target(os.getpid()))
        for connection in waiting:
            connection.close()
    assert (result.healthy, result.reason) == (False, "tcp_timeout")


async def test_a_host_that_is_not_allowed_is_an_error(prober: SystemProber) -> None:
    kind = TcpProbe(host="192.0.2.1", port=1)
    assert (await prober.probe(probe(kind), target(os.getpid()))).reason == "tcp_error"


# Commands -------------------------------------------------------------------


async def check(prober: SystemProber, directory: Path, *command: str) -> ProbeResult:
    asked = probe(CommandProbe(command=command))
    return await prober.probe(asked, target(os.getpid(), directory=directory))


async def test_a_command_runs_in_the_apps_directory_with_its_environment(
    prober: SystemProber, tmp_path: Path
) -> None:
    text = f'test "$PWD" = {tmp_path} && test "$GREETING" = hello'
    result = await check(prober, tmp_path, "sh", "-c", text)
    assert (result.healthy, result.probe, result.reason) == (True, "command", "command_ok")
    assert (result.exit_code, result.command) == (0, ("sh", "-c", text))


async def test_a_command_that_exits_otherwise_is_unhealthy(
    prober: SystemProber, tmp_path: Path
) -> None:
    result = await check(prober, tmp_path, "sh", "-c", "exit 3")
    assert (result.healthy, result.reason, result.exit_code) == (False, "command_exit", 3)
    result = await check(prober, tmp_path, "sh", "-c", "kill -9 $$")
    assert (result.healthy, result.reason, result.exit_code) == (False, "command_exit", None)


async def test_a_command_that_takes_too_long_is_unhealthy(
    prober: SystemProber, tmp_path: Path
) -> None:
    asked = probe(CommandProbe(command=("sleep", "60")), SHORT)
    result = await prober.probe(asked, target(os.getpid(), directory=tmp_path))
    assert (result.healthy, result.reason, result.exit_code) == (False, "command_timeout", None)


async def test_a_command_that_is_not_there_is_unhealthy(
    prober: SystemProber, tmp_path: Path
) -> None:
    result = await check(prober, tmp_path, "no-such-command")
    assert (result.healthy, result.reason) == (False, "command_error")


# gRPC -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "service", "reason"),
    [
        ("serving", "", "grpc_serving"),
        ("serving", "part", "grpc_not_serving"),
        ("not-serving", "", "grpc_not_serving"),
        ("serving", "no-such-service", "grpc_error"),
        ("bare", "", "grpc_error"),
    ],
)
async def test_a_health_service_says_whether_an_app_serves(
    prober: SystemProber, way: str, service: str, reason: str
) -> None:
    with app("grpc_app.py", way, "127.0.0.1:0") as (pid, port):
        kind = GrpcProbe(target=f"127.0.0.1:{port}", service=service)
        result = await prober.probe(probe(kind), target(pid))
    assert (result.probe, result.reason) == ("grpc", reason)
    assert result.healthy == (reason == "grpc_serving")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_a_health_service_is_found_on_every_address(prober: SystemProber, host: str) -> None:
    with app("grpc_app.py", "serving", "[::]:0") as (pid, port):
        result = await prober.probe(probe(GrpcProbe(target=f"{host}:{port}")), target(pid))
    assert result.reason == "grpc_serving"


async def test_a_health_service_that_hangs_times_out(prober: SystemProber) -> None:
    with app("grpc_app.py", "hanging", "127.0.0.1:0") as (pid, port):
        kind = GrpcProbe(target=f"127.0.0.1:{port}")
        assert (await prober.probe(probe(kind, SHORT), target(pid))).reason == "grpc_timeout"


@pytest.mark.parametrize("way", ["silent", "garbage", "big-body"])
async def test_an_app_that_does_not_speak_grpc_is_unhealthy(prober: SystemProber, way: str) -> None:
    with app("http_app.py", way, "127.0.0.1", 0) as (pid, port):
        kind = GrpcProbe(target=f"127.0.0.1:{port}")
        result = await prober.probe(probe(kind, timedelta(seconds=1)), target(pid))
    assert result.reason in ("grpc_error", "grpc_timeout")


async def test_a_grpc_port_on_which_nobody_listens_is_an_error(prober: SystemProber) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    kind = GrpcProbe(target=f"127.0.0.1:{port}")
    assert (await prober.probe(probe(kind), target(os.getpid()))).reason == "grpc_error"


async def test_a_socket_is_looked_for_in_the_apps_directory(
    prober: SystemProber, tmp_path: Path
) -> None:
    with app("grpc_app.py", "serving", f"unix:{tmp_path}/app.sock") as (pid, _):
        asked = probe(GrpcProbe(target="unix:app.sock"))
        result = await prober.probe(asked, target(pid, directory=tmp_path))
        assert result.reason == "grpc_serving"
        missing = probe(GrpcProbe(target="unix:other.sock"))
        result = await prober.probe(missing, target(pid, directory=tmp_path))
        assert result.reason == "grpc_error"
        long = probe(GrpcProbe(target=f"unix:{'x' * 200}"))
        assert (await prober.probe(long, target(pid))).reason == "grpc_error"


async def test_proxies_of_the_environment_are_not_used_for_grpc(
    prober: SystemProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with app("grpc_app.py", "serving", "127.0.0.1:0") as (pid, port):
        kind = GrpcProbe(target=f"127.0.0.1:{port}")
        assert (await prober.probe(probe(kind), target(pid))).reason == "grpc_serving"


async def test_grpc_checks_leave_no_descriptors_and_threads(prober: SystemProber) -> None:
    me = psutil.Process()
    with app("grpc_app.py", "serving", "127.0.0.1:0") as (pid, port):
        kind = GrpcProbe(target=f"127.0.0.1:{port}")
        for _ in range(5):
            await prober.probe(probe(kind), target(pid))
        files, threads = me.num_fds(), me.num_threads()
        for _ in range(40):
            assert (await prober.probe(probe(kind), target(pid))).healthy
        # What gRPC keeps for all its channels comes and goes; a leak would be 40.
        assert me.num_fds() <= files + 20
        assert me.num_threads() <= threads + 20


# Lines ----------------------------------------------------------------------


async def matches(prober: SystemProber, pattern: str, *, timeout: timedelta = LONG) -> bool:
    asked = probe(LogProbe(pattern=pattern), timeout)
    result = await prober.probe(asked, target(os.getpid(), run_id="RUN1"))
    assert result.probe == "log"
    assert result.reason == ("log_matched" if result.healthy else "log_not_matched")
    return result.healthy


async def test_a_line_of_the_run_matches_from_then_on(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    assert not await matches(prober, "^ready$")
    logs.append_started("web", "LOG1", "RUN1")
    logs.append_lines("web", "LOG1", b"not ready", b"ready not", run_id="RUN1")
    assert not await matches(prober, "^ready$")
    logs.append_lines("web", "LOG1", b"ready", stream=LogStream.STDERR, run_id="RUN1")
    assert await matches(prober, "^ready$")
    logs.append_lines("web", "LOG1", b"more", run_id="RUN1")
    logs.trim("web", "LOG1", 4)
    assert await matches(prober, "^ready$")


async def test_a_line_of_another_run_does_not_match(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    logs.append_lines("web", "LOG1", b"ready", run_id="RUN0")
    assert not await matches(prober, "ready")


async def test_a_match_may_span_the_parts_of_a_long_line(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    long = b"x" * 65_535
    logs.append_lines("web", "LOG1", long[3:] + b"rea", run_id="RUN1", partial=True)
    logs.append_lines("web", "LOG1", b"dy", run_id="RUN1", stream=LogStream.STDERR)
    assert not await matches(prober, "ready")
    logs.append_lines("web", "LOG1", b"dy, said it", run_id="RUN1")
    assert await matches(prober, "ready")


async def test_lines_that_are_no_utf8_are_looked_through_too(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    logs.append_lines("web", "LOG1", b"\xff\xfe gr\xc3\xbc\xc3\x9fe \xff", run_id="RUN1")
    assert not await matches(prober, "gruesse")
    assert await matches(prober, "gr.ße")


async def test_a_long_log_is_looked_through_in_several_checks(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    for _ in range(9):
        logs.append_lines("web", "LOG1", *[b"x" * 99] * 10_000, run_id="RUN1")
    logs.append_lines("web", "LOG1", b"ready", run_id="RUN1")
    assert not await matches(prober, "ready")
    while not await matches(prober, "ready"):
        pass


async def test_a_look_that_a_check_is_too_short_for_goes_on(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    slow = Probe(kind=LogProbe(pattern="(x?y?){300}z"), timeout=timedelta(milliseconds=10))
    logs.append_lines("web", "LOG1", *[b"xy" * 2_000] * 40, b"xz", run_id="RUN1")
    reasons = []
    while "log_matched" not in reasons:
        result = await prober.probe(slow, target(os.getpid(), run_id="RUN1"))
        reasons.append(result.reason)
    assert reasons[0] == "log_timeout"


async def test_a_gap_does_not_join_what_lies_around_it(
    prober: SystemProber, logs: MemoryLogStore
) -> None:
    logs.append_lines("web", "LOG1", b"rea", run_id="RUN1", partial=True)
    logs.append_gap("web", "LOG1", 5)
    logs.append_lines("web", "LOG1", b"dy", run_id="RUN1")
    assert not await matches(prober, "ready")

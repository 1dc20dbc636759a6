"""ProbeHealth over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from att.v1 import project_pb2, project_service_pb2, runtime_service_pb2
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    ProbeKind,
    TcpProbe,
)
from att_server.rpc.boundary import Boundary
from att_server.testing.clock import FakeClock
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.prober import FakeProber
from att_server.testing.server import fake_adapters, serve_in_process
from tests.rpc.conftest import Wire, connect, refusal

URL = "http://127.0.0.1:9/health"


@pytest.fixture
def prober() -> FakeProber:
    return FakeProber()


@pytest.fixture
def driver() -> FakeRuntimeDriver:
    return FakeRuntimeDriver(clock=FakeClock())


@pytest.fixture
async def wire(prober: FakeProber, driver: FakeRuntimeDriver) -> AsyncIterator[Wire]:
    adapters = fake_adapters(prober=prober, driver=driver)
    async with (
        serve_in_process(adapters) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        await wire.call(
            "CreateProject",
            project_service_pb2.CreateProjectRequest(
                project_id="web",
                path="/",
                runtime=project_pb2.RuntimeSettings(
                    command=["serve"],
                    readiness=project_pb2.Probe(http=project_pb2.HttpProbe(url=URL)),
                ),
            ),
        )
        yield wire


async def start(wire: Wire) -> None:
    await wire.call("StartRuntime", runtime_service_pb2.StartRuntimeRequest(project_id="web"))


async def probe(wire: Wire, given: project_pb2.Probe | None = None) -> Any:
    request = runtime_service_pb2.ProbeHealthRequest(project_id="web", probe=given)
    return (await wire.call("ProbeHealth", request)).health


async def test_the_readiness_probe_is_asked_where_none_is_given(
    wire: Wire, prober: FakeProber
) -> None:
    prober.set(URL, healthy=False)
    await start(wire)
    health = await probe(wire)
    assert (health.healthy, health.health_probe, health.health_reason) == (
        False,
        "http",
        "http_status",
    )
    assert health.http_status == 503
    assert not health.HasField("exit_code")
    assert health.HasField("health_checked_at")
    assert health.HasField("duration")


async def test_an_app_that_does_not_run_is_said_so(wire: Wire, driver: FakeRuntimeDriver) -> None:
    assert (await probe(wire)).health_reason == "process_not_running"
    await start(wire)
    driver.exit("web", 3)
    health = await probe(wire)
    assert (health.healthy, health.health_probe, health.health_reason) == (
        False,
        "process",
        "process_exited",
    )
    assert health.exit_code == 3


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        (
            project_pb2.Probe(http=project_pb2.HttpProbe(url="http://localhost:1/")),
            HttpProbe(url="http://localhost:1/"),
            "http_ok",
        ),
        (project_pb2.Probe(tcp=project_pb2.TcpProbe(port=1)), TcpProbe(port=1), "tcp_ok"),
        (
            project_pb2.Probe(command=project_pb2.CommandProbe(command=["true", ""])),
            CommandProbe(command=("true", "")),
            "command_ok",
        ),
        (
            project_pb2.Probe(grpc=project_pb2.GrpcProbe(target="unix:app.sock", service="x")),
            GrpcProbe(target="unix:app.sock", service="x"),
            "grpc_serving",
        ),
        (
            project_pb2.Probe(log=project_pb2.LogProbe(pattern="ready$")),
            LogProbe(pattern="ready$"),
            "log_matched",
        ),
    ],
)
async def test_a_check_of_any_kind_can_be_given(
    wire: Wire, prober: FakeProber, given: project_pb2.Probe, kind: ProbeKind, reason: str
) -> None:
    prober.set(kind, healthy=True)
    given.timeout.FromTimedelta(timedelta(seconds=7))
    await start(wire)
    health = await probe(wire, given)
    assert (health.healthy, health.health_reason) == (True, reason)
    assert list(health.command) == list(given.command.command)
    asked, target = prober.probed[-1]
    assert (asked.kind, asked.timeout) == (kind, timedelta(seconds=7))
    assert target.pid
    assert target.env["ATT_RUN_ID"] == target.run_id


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (project_pb2.Probe(), "probe"),
        (project_pb2.Probe(tcp=project_pb2.TcpProbe()), "probe.tcp.port"),
        (
            project_pb2.Probe(tcp=project_pb2.TcpProbe(host="192.0.2.1", port=1)),
            "probe.tcp.host",
        ),
        (
            project_pb2.Probe(http=project_pb2.HttpProbe(url="http://169.254.169.254/")),
            "probe.http.url",
        ),
        (
            project_pb2.Probe(grpc=project_pb2.GrpcProbe(target="192.0.2.1:1")),
            "probe.grpc.target",
        ),
        (project_pb2.Probe(command=project_pb2.CommandProbe()), "probe.command.command"),
        (project_pb2.Probe(log=project_pb2.LogProbe(pattern="(")), "probe.log.pattern"),
        (project_pb2.Probe(log=project_pb2.LogProbe(pattern="(?=x)")), "probe.log.pattern"),
        (project_pb2.Probe(log=project_pb2.LogProbe(pattern="x" * 1001)), "probe.log.pattern"),
    ],
)
async def test_a_check_that_may_not_be_made_is_refused(
    wire: Wire, prober: FakeProber, given: project_pb2.Probe, field: str
) -> None:
    await start(wire)
    request = runtime_service_pb2.ProbeHealthRequest(project_id="web", probe=given)
    refused = await refusal(wire.call("ProbeHealth", request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert refused.fields == (field,)
    assert all(asked.kind == HttpProbe(url=URL) for asked, _ in prober.probed)


async def test_a_check_of_an_unknown_project_is_refused(wire: Wire) -> None:
    request = runtime_service_pb2.ProbeHealthRequest(project_id="nobody")
    refused = await refusal(wire.call("ProbeHealth", request))
    assert refused.code is grpc.StatusCode.NOT_FOUND

"""The server as a process: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no types

from att.v1 import project_pb2, project_service_pb2, runtime_service_pb2
from att_server.rpc.boundary import Boundary
from tests.rpc.conftest import connect
from tests.server_process import PATIENCE, ServerProcess


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A start that is refused or only asked about."""
    return subprocess.run(
        [sys.executable, "-m", "att_server", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_the_server_in_good_order(
    directory: Path, number: signal.Signals
) -> None:
    with ServerProcess(directory / "state") as server:
        assert server.process is not None
        server.process.send_signal(number)
        assert server.process.wait(PATIENCE) == 0
    log = (directory / "state.log").read_text()
    assert "Traceback" not in log


async def test_the_second_signal_ends_the_server_at_once(directory: Path) -> None:
    with ServerProcess(directory / "state") as server:
        async with connect(server.target, Boundary(new_error_id=str)) as wire:
            await wire.unary(
                "CreateProject",
                project_service_pb2.CreateProjectRequest(
                    project_id="web",
                    path=str(directory),
                    runtime=project_pb2.RuntimeSettings(
                        command=["sleep", "600"],
                        readiness=project_pb2.Probe(
                            http=project_pb2.HttpProbe(url="http://127.0.0.1:9/")
                        ),
                    ),
                ),
            )
            # A call that outlives the grace of a shutdown.
            waiting = asyncio.ensure_future(
                wire.unary(
                    "StartRuntime",
                    runtime_service_pb2.StartRuntimeRequest(
                        project_id="web", wait=runtime_service_pb2.START_WAIT_READY
                    ),
                )
            )
            watch = health_pb2_grpc.HealthStub(wire.channel).Watch(health_pb2.HealthCheckRequest())
            await anext(aiter(watch))
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(grpc.aio.AioRpcError):
                # It ends when the shutdown has begun.
                async for _ in watch:
                    pass
            server.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.process.wait, PATIENCE)
            assert code == -signal.SIGTERM
            with pytest.raises(grpc.aio.AioRpcError):
                await waiting


def test_a_second_server_is_refused_and_told_the_first_one(directory: Path) -> None:
    with ServerProcess(directory / "state") as server:
        second = run("--state-dir", directory / "state")
        assert second.returncode == 2
        assert second.stderr.startswith("att: ALREADY_RUNNING: ")
        assert str(server.pid) in second.stderr
        assert second.stderr.count("\n") == 1
        assert second.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--state-dir", "/proc/att"], "STATE_DIR_NOT_WRITABLE"),
        (["--state-dir", "/tmp/" + "x" * 108], "SOCKET_PATH_TOO_LONG"),
        (["--state-dir", "/tmp"], "INSECURE_STATE_DIR"),
        (["--listen", "127.0.0.1"], "LISTENER_NOT_ALLOWED"),
        (["--state-dir", ""], "CONFIG_INVALID"),
        (["--probe-host", "http://web"], "CONFIG_INVALID"),
    ],
)
def test_a_refusal_is_one_line_with_its_reason(arguments: list[str], reason: str) -> None:
    refused = run("serve", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"att: {reason}: ")
    assert refused.stderr.count("\n") == 1


def test_a_wrong_argument_is_refused_before_anything_is_made(directory: Path) -> None:
    refused = run("--state-dir", directory / "state", "--log-level", "loud")
    assert refused.returncode == 2
    assert not (directory / "state").exists()


def test_with_json_the_ready_line_and_a_refusal_are_objects(directory: Path) -> None:
    refused = run("--json", "--listen", "127.0.0.1")
    error = json.loads(refused.stderr)["error"]
    assert error["reason"] == "LISTENER_NOT_ALLOWED"
    with subprocess.Popen(
        [sys.executable, "-m", "att_server", "--json", "--state-dir", directory / "state"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        server.terminate()
        assert ready == {
            "ready": {
                "target": f"unix:{directory}/state/att.sock",
                "targets": [f"unix:{directory}/state/att.sock"],
                "log": f"{directory}/state/log/server.log",
            }
        }
        assert server.wait(PATIENCE) == 0

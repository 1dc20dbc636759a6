"""The foreign followers against a real server that is killed while the app writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from att.v1 import (
    project_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
    runtime_service_pb2,
    runtime_service_pb2_grpc,
)
from tests.server_process import PATIENCE, ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples"
KILLS = (400, 800, 1200)
ENOUGH = 1600
"""Received lines after which the server is killed, and after which the app ends."""

APP = """
import os, sys, time
number = 0
while not os.path.exists(sys.argv[1]):
    print("line", number, flush=True)
    number += 1
    time.sleep(0.0005)
print("written", number, flush=True)
"""


@pytest.fixture
def enough(tmp_path: Path) -> Path:
    """The app writes until this file exists."""
    return tmp_path / "enough"


@pytest.fixture
def server(tmp_path: Path, enough: Path) -> Iterator[ServerProcess]:
    """A server whose project `web` runs the app."""
    with ServerProcess(tmp_path / "s") as server:
        with grpc.insecure_channel(server.target) as channel:
            projects = project_service_pb2_grpc.ProjectServiceStub(channel)
            runtimes = runtime_service_pb2_grpc.RuntimeServiceStub(channel)
            app = [sys.executable, "-c", APP, str(enough)]
            created = project_service_pb2.CreateProjectRequest(
                project_id="web",
                path=str(tmp_path),
                runtime=project_pb2.RuntimeSettings(command=app),
            )
            projects.CreateProject(created, timeout=PATIENCE)
            started = runtime_service_pb2.StartRuntimeRequest(project_id="web")
            runtimes.StartRuntime(started, timeout=PATIENCE)
        yield server


def python_lines(printed: Iterator[str]) -> Iterator[tuple[int, str]]:
    """The app's lines that the stock Python example prints."""
    for line in printed:
        sequence, text = line.rstrip("\n").split(" ", 1)
        if not text.startswith("--"):
            yield int(sequence), text


def node_lines(printed: Iterator[str]) -> Iterator[tuple[int, str]]:
    """The app's lines that the Node example prints."""
    for line in printed:
        record = json.loads(line)
        if "line" in record:
            yield int(record["sequence"]), record["line"]


Lines = Callable[[Iterator[str]], Iterator[tuple[int, str]]]

PYTHON = [sys.executable, str(EXAMPLES / "stock_python/att_logs.py"), "--follow"]
NODE = ["node", str(EXAMPLES / "node/follow.js")]


@pytest.mark.parametrize(
    ("command", "lines"),
    [pytest.param(PYTHON, python_lines, id="python"), pytest.param(NODE, node_lines, id="node")],
)
def test_the_follower_gets_every_line_once_through_kills_of_the_server(
    server: ServerProcess, enough: Path, command: list[str], lines: Lines
) -> None:
    received: list[tuple[int, str]] = []
    follower = subprocess.Popen([*command, server.target, "web"], stdout=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    try:
        for line in lines(follower.stdout):
            received.append(line)
            if len(received) in KILLS:
                server.kill()
                server.start()
            if len(received) == ENOUGH:
                enough.touch()
        assert follower.wait(PATIENCE) == 0
    finally:
        follower.kill()
        follower.stdout.close()
        follower.wait()
    count = len(received) - 1
    assert [text for _, text in received] == [f"line {n}" for n in range(count)] + [
        f"written {count}"
    ]
    first = received[0][0]
    assert [sequence for sequence, _ in received] == list(range(first, first + count + 1))

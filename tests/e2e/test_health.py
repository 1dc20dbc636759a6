"""Probes of real apps under the real server: ready, unready, hanging, late, and others."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import (
    CommandProbe,
    HttpProbe,
    LogProbe,
    Probe,
    Runtime,
    RuntimeState,
    TcpProbe,
)
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

# Answers with the status in the file `status`, or not at all while it says 0.
APP = """
import http.server, pathlib, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = int(pathlib.Path("status").read_text())
        while not status:
            time.sleep(0.01)
            status = int(pathlib.Path("status").read_text())
        self.send_response(status)
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("listening", flush=True)
server.serve_forever()
"""
WAITS = "import time; print('up', flush=True); time.sleep(3600)"


class Stage:
    """A project `web` whose app listens on `port`, and the client that watches it."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self.server = server
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.answer(200)

    def answer(self, status: int) -> None:
        """What the app answers from now on; 0: nothing."""
        written = self.directory / "status.new"
        written.write_text(str(status))
        written.replace(self.directory / "status")

    @asynccontextmanager
    async def app(self, settings: str, code: str = APP) -> AsyncIterator[att_client.Client]:
        """A client of the project; settings: tables below [runtime], with {url} and {port}."""
        command = f"[{sys.executable!r}, '-c', '''{code}''', '{self.port}']"
        text = settings.replace("{url}", self.url).replace("{port}", str(self.port))
        (self.directory / "att.toml").write_text(f"[runtime]\ncommand = {command}\n{text}")
        async with att_client.connect(self.server.target) as att:
            await att.projects.create("web", path=str(self.directory))
            yield att


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    directory = tmp_path / "web"
    directory.mkdir()
    with ServerProcess(tmp_path / "s") as server:
        yield Stage(server, directory)


async def until(att: att_client.Client, holds: Callable[[Runtime], bool]) -> Runtime:
    async with asyncio.timeout(PATIENCE):
        while True:
            runtime = await att.runtimes.get("web")
            if holds(runtime):
                return runtime
            await asyncio.sleep(0.02)


def in_state(state: RuntimeState) -> Callable[[Runtime], bool]:
    return lambda runtime: runtime.state is state


async def event_types(att: att_client.Client) -> list[str]:
    page = await att.events.list(project_id="web")
    return [event.event_type.removeprefix("runtime.") for event in page.events]


READINESS = """
[runtime.readiness]
http = "{url}"
interval = "20ms"
timeout = "500ms"
"""


async def test_an_app_is_ready_unready_and_ready_again(stage: Stage) -> None:
    async with stage.app(READINESS + "threshold = 2\n") as att:
        started = await att.runtimes.start("web", wait="ready")
        assert (started.state, started.health_reason) == (RuntimeState.READY, "http_ok")
        stage.answer(503)
        unready = await until(att, in_state(RuntimeState.RUNNING))
        assert (unready.healthy, unready.health_reason) == (False, "http_status")
        assert unready.ready_time is None
        stage.answer(200)
        again = await until(att, in_state(RuntimeState.READY))
        assert (again.run_id, again.restarts) == (started.run_id, 0)
        types = await event_types(att)
    assert types[-3:] == ["ready", "unready", "ready"]


async def test_an_app_that_hangs_is_started_again(stage: Stage) -> None:
    settings = """
        [runtime.restart]
        condition = "on-failure"
        backoff = { initial = "50ms" }
        [runtime.liveness]
        http = "{url}"
        interval = "20ms"
        timeout = "200ms"
        deadline = "20s"
    """
    async with stage.app(settings) as att:
        await att.runtimes.start("web")
        first = await until(att, lambda runtime: bool(runtime.healthy))
        stage.answer(0)
        ended = await until(att, lambda runtime: runtime.run_id != first.run_id)
        assert ended.restarts == 1
        stage.answer(200)
        again = await until(att, lambda runtime: bool(runtime.healthy))
        assert again.run_id == ended.run_id
        assert not alive(first.pid)
        events = (await att.events.list(project_id="web")).events
    (end,) = [event for event in events if event.event_type == "runtime.ended"]
    assert (end.run_id, end.reason) == (first.run_id, "liveness_failed")


async def test_an_app_that_is_late_is_ended_and_the_caller_told(stage: Stage) -> None:
    settings = READINESS + 'deadline = "400ms"\n'
    async with stage.app(settings, WAITS) as att:
        with pytest.raises(att_client.RuntimeStartFailedError) as failed:
            await att.runtimes.start("web", wait="ready")
        runtime = await att.runtimes.get("web")
    assert failed.value.metadata["cause"] == "startup_deadline"
    assert (runtime.state, runtime.reason) == (RuntimeState.FAILED, "startup_deadline")


async def test_an_app_whose_port_another_process_has_is_not_ready(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", stage.port)):
        async with stage.app(READINESS, WAITS) as att:
            with pytest.raises(att_client.RuntimeNotReadyError) as not_ready:
                await att.runtimes.start("web", wait="ready", timeout=timedelta(seconds=1))
    assert not_ready.value.metadata["health_reason"] == "port_owned_by_other_process"


async def test_a_server_that_comes_back_goes_on_where_the_killed_one_was(stage: Stage) -> None:
    settings = (
        READINESS
        + """
        [runtime.liveness]
        tcp = {port}
        interval = "20ms"
        [runtime.restart]
        condition = "on-failure"
        backoff = { initial = "50ms" }
    """
    )
    async with stage.app(settings) as att:
        started = await att.runtimes.start("web", wait="ready")
        stage.server.kill()
        stage.server.start()
        adopted = await until(att, lambda runtime: bool(runtime.healthy))
        assert (adopted.run_id, adopted.state) == (started.run_id, RuntimeState.READY)
        assert "unready" not in await event_types(att)
        stage.server.kill()
        os.kill(started.pid, signal.SIGKILL)
        wait_until(lambda: not alive(started.pid), "the end of the app")
        stage.server.start()
        again = await until(att, lambda runtime: runtime.run_id != started.run_id)
        await until(att, in_state(RuntimeState.READY))
    assert again.restarts == 1


async def test_an_app_is_stopped_while_a_check_of_it_hangs(stage: Stage) -> None:
    async with stage.app(READINESS) as att:
        started = await att.runtimes.start("web", wait="ready")
        stage.answer(0)  # a check hangs while the app is stopped
        stopped = await att.runtimes.stop("web")
        assert stopped.state is RuntimeState.STOPPED
        assert not alive(started.pid)
        health = await att.runtimes.probe("web")
    assert (health.healthy, health.health_probe) == (False, "process")


async def test_an_app_can_be_checked_in_every_way(stage: Stage) -> None:
    async with stage.app("") as att:
        assert (await att.runtimes.probe("web")).health_reason == "process_not_running"
        started = await att.runtimes.start("web")
        process = await att.runtimes.probe("web")
        line = await _until_healthy(att, Probe(log=LogProbe(pattern="^listening$")))
        http = await att.runtimes.probe("web", Probe(http=HttpProbe(url=stage.url)))
        tcp = await att.runtimes.probe("web", Probe(tcp=TcpProbe(port=stage.port)))
        test = ["sh", "-c", f'test "$ATT_RUN_ID" = {started.run_id} && test -f status']
        command = await att.runtimes.probe("web", Probe(command=CommandProbe(command=test)))
        exit_7 = Probe(command=CommandProbe(command=["sh", "-c", "exit 7"]))
        failed = await att.runtimes.probe("web", exit_7)
    reasons = [check.health_reason for check in (process, line, http, tcp, command)]
    assert reasons == ["process_running", "log_matched", "http_ok", "tcp_ok", "command_ok"]
    assert all(check.healthy for check in (process, line, http, tcp, command))
    assert (failed.health_reason, failed.exit_code) == ("command_exit", 7)


async def _until_healthy(att: att_client.Client, probe: Probe) -> att_client.HealthCheck:
    async with asyncio.timeout(PATIENCE):
        while not (check := await att.runtimes.probe("web", probe)).healthy:
            await asyncio.sleep(0.02)
    return check


async def test_probes_leave_no_descriptors_and_threads_in_the_server(stage: Stage) -> None:
    me = psutil.Process(stage.server.pid)
    async with stage.app(READINESS) as att:
        await att.runtimes.start("web", wait="ready")
        files, threads = me.num_fds(), me.num_threads()
        for _ in range(50):
            assert (await att.runtimes.probe("web")).healthy
        assert me.num_fds() <= files + 10
        assert me.num_threads() <= threads + 10

"""Apps are started again by their policy, with and without a server: the real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import att_client
from att_client import DesiredState, Runtime, RuntimeState
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

LASTS = "import time; print('up', flush=True); time.sleep(600)"
FALLS = "import sys, time; print('up', flush=True); time.sleep(0.05); sys.exit(3)"
QUICKLY = """
[runtime.restart]
condition = "on-failure"
backoff = { initial = "100ms", max = "100ms" }
max_restarts = 1000
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "s") as server:
        yield server


@asynccontextmanager
async def app(
    server: ServerProcess, code: str, settings: str = QUICKLY
) -> AsyncIterator[att_client.Client]:
    """A client, and the app `web` that runs `code` with the `settings` of an att.toml."""
    directory = server.state_dir.parent / "web"
    directory.mkdir()
    command = json.dumps([sys.executable, "-c", code])
    (directory / "att.toml").write_text(f"[runtime]\ncommand = {command}\n{settings}")
    async with att_client.connect(server.target) as att:
        await att.projects.create("web", path=str(directory))
        await att.runtimes.start("web")
        yield att


async def until(att: att_client.Client, condition: Callable[[Runtime], bool]) -> Runtime:
    async with asyncio.timeout(PATIENCE):
        async for change in att.runtimes.watch(project_ids=["web"]):
            for runtime in change.runtimes:
                if condition(runtime):
                    return runtime
    raise AssertionError("the watch ended")


def supervisor_pid(server: ServerProcess) -> int:
    (state,) = server.supervisor_states()
    assert isinstance(state["pid"], int)
    return state["pid"]


async def told(att: att_client.Client) -> Counter[str]:
    """How often each kind of event is in the audit log, of which no run has two."""
    page = await att.events.list(project_id="web", page_size=1000)
    once = Counter(
        (event.run_id, event.event_type)
        for event in page.events
        if event.event_type in ("runtime.started", "runtime.ended", "runtime.restarting")
    )
    assert not [key for key, count in once.items() if count > 1]
    return Counter(event.event_type for event in page.events)


async def events_stored(att: att_client.Client, event_type: str, count: int) -> None:
    """Waits for so many events of a type: they are stored soon after what they tell."""
    async with asyncio.timeout(PATIENCE):
        async for event in att.events.watch(project_id="web", cursor=0):
            count -= event.event_type == event_type
            if count == 0:
                return


async def test_an_app_whose_supervisor_was_killed_is_started_again(server: ServerProcess) -> None:
    async with app(server, LASTS) as att:
        before = await att.runtimes.get("web")
        os.kill(supervisor_pid(server), signal.SIGKILL)
        after = await until(
            att, lambda r: r.run_id != before.run_id and r.state is RuntimeState.READY
        )
        assert after.restarts == 1
        assert not alive(before.pid)
        await att.runtimes.stop("web")
        await events_stored(att, "runtime.ended", 2)
        kinds = await told(att)
        assert kinds["runtime.started"] == kinds["runtime.ended"] == 2


async def test_an_app_whose_supervisor_and_server_were_killed_is_started_again(
    server: ServerProcess,
) -> None:
    async with app(server, LASTS) as att:
        before = await att.runtimes.get("web")
        server.kill()
        os.kill(supervisor_pid(server), signal.SIGKILL)
        await asyncio.to_thread(server.start)
        after = await until(
            att, lambda r: r.run_id != before.run_id and r.state is RuntimeState.READY
        )
        assert not alive(before.pid)
        assert after.desired_state is DesiredState.RUNNING


async def test_every_run_that_no_server_saw_is_told_once(server: ServerProcess) -> None:
    async with app(server, FALLS) as att:
        server.kill()
        wait_until(
            lambda: server.supervisor_states()[0]["restarts"] not in (0, 1, 2),
            "some restarts",
        )
        await asyncio.to_thread(server.start)
        stopped = await att.runtimes.stop("web")
        assert stopped.state is RuntimeState.STOPPED
        server.kill()
        await asyncio.to_thread(server.start)
        read = await att.logs.read("web", limit=100_000)
        markers = [record.run for record in read.records if record.run is not None]
        started = [marker for marker in markers if marker.started is not None]
        await events_stored(att, "runtime.ended", len(started))
        kinds = await told(att)
        assert kinds["runtime.started"] == kinds["runtime.ended"] == len(started) >= 4


async def test_a_stop_between_two_runs_is_the_end(server: ServerProcess) -> None:
    slowly = QUICKLY.replace("100ms", "1h")
    async with app(server, FALLS, slowly) as att:
        waiting = await until(att, lambda r: r.state is RuntimeState.BACKOFF)
        assert waiting.exit is not None
        assert (waiting.reason, waiting.exit.exit_code) == ("exited", 3)
        assert waiting.next_restart_time is not None
        stopped = await att.runtimes.stop("web")
        assert stopped.state is RuntimeState.STOPPED
        again = await att.runtimes.start("web")
        assert again.run_id != waiting.run_id


async def test_a_start_between_two_runs_does_not_wait(server: ServerProcess) -> None:
    slowly = QUICKLY.replace("100ms", "1h")
    async with app(server, FALLS, slowly) as att:
        waiting = await until(att, lambda r: r.state is RuntimeState.BACKOFF)
        again = await att.runtimes.start("web")
        assert again.run_id != waiting.run_id
        assert again.restarts == 0
        assert again.supervisor_id == waiting.supervisor_id

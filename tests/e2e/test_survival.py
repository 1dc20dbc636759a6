"""Apps and their logs survive the server: the real processes, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import DesiredState, RuntimeState
from att_server.adapters.clock import SystemClock
from att_server.adapters.segments import SegmentLogStore
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.testing.server import fake_adapters, serve_in_process
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

TICKS = """
import itertools, os, sys, time
for number in itertools.count():
    os.write(1, f"tick {number}\\n".encode())
    time.sleep(0.005)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "s") as server:
        yield server


@asynccontextmanager
async def app(server: ServerProcess, code: str) -> AsyncIterator[att_client.Client]:
    """A client, and the app `web` that runs `code`."""
    async with att_client.connect(server.target) as att:
        await att.projects.create(
            "web", path=str(server.state_dir.parent), command=[sys.executable, "-c", code]
        )
        await att.runtimes.start("web")
        yield att


async def next_lines(follow: AsyncIterator[object], count: int) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return [str(await anext(follow)) for _ in range(count)]


async def test_an_app_outlives_a_killed_server_and_is_adopted_as_it_is(
    server: ServerProcess,
) -> None:
    async with app(server, TICKS) as att:
        before = await att.runtimes.get("web")
        server.kill()
        assert alive(before.pid)
        server.start()
        after = await att.runtimes.get("web")
    assert (after.run_id, after.pid, after.state) == (before.run_id, before.pid, before.state)
    assert after.start_time == before.start_time
    assert after.revision > before.revision


async def test_an_app_outlives_a_server_that_is_asked_to_end(server: ServerProcess) -> None:
    async with app(server, TICKS) as att:
        before = await att.runtimes.get("web")
        assert server.terminate() == 0
        assert alive(before.pid)
        server.start()
        assert (await att.runtimes.get("web")).run_id == before.run_id


async def test_a_follower_goes_on_over_a_kill_and_sees_every_line_once(
    server: ServerProcess,
) -> None:
    async with app(server, TICKS) as att:
        follow = aiter(att.logs.follow("web"))
        first = await next_lines(follow, 20)
        server.kill()
        await asyncio.to_thread(server.start)
        rest = await next_lines(follow, 200)
    assert first + rest == [f"tick {number}" for number in range(220)]


async def test_a_server_that_ends_in_good_order_tells_its_followers_to_come_again(
    server: ServerProcess,
) -> None:
    async with app(server, TICKS) as att:
        follow = aiter(att.logs.follow("web"))
        first = await next_lines(follow, 20)
        assert await asyncio.to_thread(server.terminate) == 0
        await asyncio.to_thread(server.start)
        rest = await next_lines(follow, 50)
    assert first + rest == [f"tick {number}" for number in range(70)]


async def test_what_an_app_did_while_no_server_ran_is_known_afterwards(
    server: ServerProcess, tmp_path: Path
) -> None:
    code = f"""
import os, sys, time
print("first")
while not os.path.exists({str(tmp_path / "go")!r}): time.sleep(0.005)
print("last"); sys.exit(7)
"""
    async with app(server, code) as att:
        server.kill()
        (tmp_path / "go").touch()
        wait_until(
            lambda: [state["state"] for state in server.supervisor_states()] == ["exited"],
            "the end of the app",
        )
        await asyncio.to_thread(server.start)
        runtime = await att.runtimes.get("web")
        assert runtime.state is RuntimeState.EXITED
        assert runtime.desired_state is DesiredState.RUNNING
        assert runtime.exit is not None
        assert runtime.exit.exit_code == 7
        read = await att.logs.read("web")
        lines = b"".join(r.chunk.lines for r in read.records if r.chunk is not None)
        assert lines == b"first\nlast\n"
        events = [event.event_type for event in (await att.events.list(project_id="web")).events]
        assert events.count("runtime.ended") == 1
        assert events.count("runtime.started") == 1


async def test_a_killed_supervisor_takes_its_app_along_and_the_log_says_so(
    server: ServerProcess,
) -> None:
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
{TICKS}
"""
    async with app(server, code) as att:
        follow = att.logs.follow("web", markers=True, until_exit=True)
        items = aiter(follow)
        first_lines = await next_lines(items, 10)
        (state,) = server.supervisor_states()
        assert isinstance(state["pid"], int)
        pid = (await att.runtimes.get("web")).pid
        tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        os.kill(state["pid"], signal.SIGKILL)
        rest = [item async for item in items]
        assert not any(alive(process) for process in tree)
        runtime = await att.runtimes.get("web")
        assert runtime.state is RuntimeState.EXITED
        assert runtime.reason == "supervisor_lost"
        marker = rest[-1]
        assert isinstance(marker, att_client.RunMarker)
        assert marker.ended is not None
        assert marker.ended.supervisor_lost
        lines = first_lines + [str(item) for item in rest[:-1]]
        numbers = [int(line.split()[1]) for line in lines if line.startswith("tick ")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        # The next run goes on in the same log.
        await att.runtimes.start("web")
        read = await att.logs.read("web", cursor=marker.sequence + 1)
        first = read.records[0].run
        assert first is not None
        assert first.sequence == marker.sequence + 1


async def test_a_killed_supervisor_and_server_lose_the_app_once(server: ServerProcess) -> None:
    async with app(server, TICKS) as att:
        await next_lines(aiter(att.logs.follow("web")), 10)
        pid = (await att.runtimes.get("web")).pid
        (state,) = server.supervisor_states()
        assert isinstance(state["pid"], int)
        server.kill()
        os.kill(state["pid"], signal.SIGKILL)
        await asyncio.to_thread(server.start)
        assert not alive(pid)
        assert (await att.runtimes.get("web")).reason == "supervisor_lost"
        server.kill()
        await asyncio.to_thread(server.start)
        read = await att.logs.read("web", limit=100_000)
        markers = [record.run for record in read.records if record.run is not None]
        assert [marker.ended is not None for marker in markers] == [False, True]


async def test_desired_apps_come_back_after_a_restart_of_the_host(tmp_path: Path) -> None:
    """The restart: everything is killed, and the next server finds another boot id."""
    with ServerProcess(tmp_path / "s") as server:
        async with app(server, TICKS) as att:
            await next_lines(aiter(att.logs.follow("web")), 10)
            before = await att.runtimes.get("web")
            (state,) = server.supervisor_states()
            server.kill()
            assert isinstance(state["pid"], int)
            os.kill(state["pid"], signal.SIGKILL)
            os.kill(before.pid, signal.SIGKILL)
            wait_until(lambda: not alive(before.pid), "the end of the app")

    clock = SystemClock()
    store = await SqliteStateStore.open(server.state_dir / "att.db")
    driver = SupervisorDriver(server.state_dir, epoch=99, clock=clock, boot_id="another-boot")
    adapters = replace(
        fake_adapters(),
        store=store,
        driver=driver,
        logs=SegmentLogStore(server.state_dir),
        clock=clock,
    )
    async with serve_in_process(adapters) as target, att_client.connect(target) as att:
        follow = aiter(att.logs.follow("web", markers=True))
        items: list[object] = []
        async with asyncio.timeout(PATIENCE):
            async for item in follow:
                items.append(item)
                if [str(item) for item in items].count("tick 0") == 2:
                    break
        after = await att.runtimes.get("web")
        assert after.run_id != before.run_id
        assert after.state is RuntimeState.READY
        assert after.desired_state is DesiredState.RUNNING
        gaps = [item for item in items if isinstance(item, att_client.LogGap)]
        assert [gap.reason for gap in gaps] == [att_client.LogGapReason.MACHINE_CRASH]
        lost = [item for item in items if isinstance(item, att_client.RunMarker) and item.ended]
        assert len(lost) == 1
        await att.runtimes.stop("web")
    await driver.aclose()
    await adapters.logs.aclose()
    await store.aclose()


async def test_nothing_is_left_of_a_deleted_project(server: ServerProcess) -> None:
    async with app(server, "print('hello')") as att:
        async for _ in att.logs.follow("web", until_exit=True):
            pass
        await att.runtimes.stop("web")
        await att.projects.delete("web")
        assert list((server.state_dir / "projects").iterdir()) == []
        assert [project async for project in att.projects.list()] == []


async def test_calls_over_an_end_in_good_order_are_answered_or_told_that_nobody_serves(
    server: ServerProcess,
) -> None:
    answered = 0
    enough = asyncio.Event()

    async def call() -> None:
        nonlocal answered
        async with att_client.connect(server.target) as att:
            while not enough.is_set():
                # The SDK repeats the call for a while; a server may take longer to start.
                with contextlib.suppress(att_client.UnavailableError):
                    await att.server.info()
                    answered += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(call())
        for _ in range(3):
            wanted = answered + 200
            while answered < wanted:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(server.terminate)
            await asyncio.to_thread(server.start)
        enough.set()

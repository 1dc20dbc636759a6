"""A server that is replaced while it serves: the app, its followers and callers go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import att_client
from att_server.lock import is_held
from att_server.succession import Succession, ask
from tests.server_process import PATIENCE, ServerProcess

COUNTS = """
import sys, time
for number in range(10**9):
    print(number, flush=True)
    time.sleep(0.002)
"""
TAKES_AND_DIES = """
import asyncio, sys
from pathlib import Path
from att_server.succession import ask
before = asyncio.run(ask(Path(sys.argv[1])))
assert before is not None
print("it has the lock", flush=True)
"""


async def ran(*arguments: str) -> tuple[int | None, str]:
    """Exit code and output of a Python that was run to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, output.decode()


async def test_a_follower_and_an_app_do_not_notice_that_servers_replace_each_other(
    tmp_path: Path,
) -> None:
    servers = [ServerProcess(tmp_path / "s") for _ in range(3)]
    for server in servers[1:]:
        server.options = ("--take-over",)
    with servers[0] as first:
        async with att_client.connect(first.target) as att:
            await att.projects.create("app", path=tmp_path, command=[sys.executable, "-c", COUNTS])
            started = await att.runtimes.start("app")
            seen: list[int] = []
            enough = asyncio.Event()

            async def follow() -> None:
                async for line in att.logs.follow("app"):
                    seen.append(int(str(line)))
                    if len(seen) > 1000:
                        enough.set()

            following = asyncio.create_task(follow())
            before, epochs = first, []
            for server in servers[1:]:
                epochs.append((await att.server.info()).epoch)
                await asyncio.to_thread(server.start)
                assert await asyncio.to_thread(before.wait) == 0
                info = await att.server.info()
                assert (info.pid, info.epoch) == (server.pid, epochs[-1] + 1)
                before = server
            await asyncio.wait_for(enough.wait(), PATIENCE)
            following.cancel()
            assert seen == list(range(len(seen)))
            found = await att.runtimes.get("app")
            assert (found.run_id, found.pid) == (started.run_id, started.pid)
            await att.runtimes.stop("app")
        assert servers[-1].terminate() == 0
    assert not is_held(tmp_path / "s")


async def test_a_server_whose_successor_dies_with_the_lock_serves_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            epoch = (await att.server.info()).epoch
            code, output = await ran("-c", TAKES_AND_DIES, str(server.state_dir))
            assert (code, output) == (0, "it has the lock\n")
            info = await att.server.info()
            assert (info.pid, info.epoch) == (server.pid, epoch + 1)


async def test_nobody_else_can_take_a_directory_that_is_handed_over(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s") as server:
        before = await asyncio.wait_for(ask(server.state_dir), PATIENCE)
        assert before is not None
        code, output = await ran("-m", "att_server", "--state-dir", str(server.state_dir))
        assert code == 2
        assert output.startswith("att: ALREADY_RUNNING")
        os.close(before.lock)
        before.let_go()
        assert await asyncio.to_thread(server.wait) == 0


async def test_a_successor_that_does_not_serve_in_its_time_is_ended(tmp_path: Path) -> None:
    hangs = TAKES_AND_DIES + "sys.stdin.read()\n"
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    with Succession(tmp_path, serves_within=timedelta(milliseconds=200)) as succession:
        successor = await asyncio.create_subprocess_exec(
            sys.executable, "-c", hangs, str(tmp_path), stdin=subprocess.PIPE
        )
        await asyncio.wait_for(succession.asked(), PATIENCE)
        assert succession.wanted
        assert not await succession.settled(lock)
        # Not as somebody from outside would: a launcher counts it against the release.
        assert await asyncio.wait_for(successor.wait(), PATIENCE) == -signal.SIGABRT
    os.close(lock)


async def test_a_successor_that_migrates_has_longer_to_serve(tmp_path: Path) -> None:
    migrates = TAKES_AND_DIES + "before.tell_migrating(); sys.stdin.read(); before.let_go()\n"
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    with Succession(tmp_path, serves_within=timedelta(seconds=1)) as succession:
        successor = await asyncio.create_subprocess_exec(
            sys.executable, "-c", migrates, str(tmp_path), stdin=subprocess.PIPE
        )
        await asyncio.wait_for(succession.asked(), PATIENCE)
        settled = asyncio.create_task(succession.settled(lock))
        # For longer than it would have without that word.
        done, _ = await asyncio.wait([settled], timeout=1.5)
        assert not done
        await successor.communicate(b"")
        assert await asyncio.wait_for(settled, PATIENCE)
    os.close(lock)


async def test_a_directory_that_nobody_holds_has_nobody_to_ask(tmp_path: Path) -> None:
    assert await ask(tmp_path) is None

"""A server of one release takes over live from one of another, both ways.

The app runs on, who follows it misses no line and gets none twice, and the server
before is there until the next one has let it go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import att_client
from tests.compat.releases import (
    WITH_HANDOVER,
    has_handover,
    released_server,
    releases,
    unpack,
)
from tests.server_process import PATIENCE, ServerProcess

COUNTS = """
import time
for number in range(10**9):
    print(number, flush=True)
    time.sleep(0.002)
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "previous" in metafunc.fixturenames:
        metafunc.parametrize("previous", releases(metafunc.config, WITH_HANDOVER), scope="module")


@pytest.fixture(scope="module")
def previous_tree(previous: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(previous, tmp_path_factory.mktemp("releases"))


@pytest.fixture
def servers(previous_tree: Path, tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """One of the previous release, one of this; neither has begun."""
    old, new = released_server(previous_tree, tmp_path / "s"), ServerProcess(tmp_path / "s")
    try:
        yield old, new
    finally:
        new.__exit__(None, None, None)
        old.__exit__(None, None, None)


@pytest.fixture(params=["upgrade", "rollback"])
def pair(
    request: pytest.FixtureRequest, previous: str, servers: tuple[ServerProcess, ServerProcess]
) -> tuple[ServerProcess, ServerProcess]:
    """The server that is there, and the one that takes over from it."""
    if not has_handover(previous):
        pytest.skip(f"{previous} knows no handover")
    before, after = servers if request.param == "upgrade" else reversed(servers)
    before.options, after.options = (), ("--take-over",)
    return before, after


class Follower:
    """What somebody sees who follows the app all the time."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._grew = asyncio.Event()

    async def follow(self, att: att_client.Client) -> None:
        async for line in att.logs.follow("app"):
            self.seen.append(int(str(line)))
            self._grew.set()

    async def sees_more(self) -> None:
        """Returns once it has seen what was printed since."""
        wanted = len(self.seen) + 100
        async with asyncio.timeout(PATIENCE):
            while len(self.seen) < wanted:
                self._grew.clear()
                await self._grew.wait()


@asynccontextmanager
async def followed_app(
    before: ServerProcess, directory: Path
) -> AsyncIterator[tuple[att_client.Client, Follower]]:
    """An app under the first server; at the end it has to be the same, with all its lines."""
    await asyncio.to_thread(before.start)
    async with att_client.connect(before.target) as att:
        await att.projects.create("app", path=directory, command=[sys.executable, "-c", COUNTS])
        started = await att.runtimes.start("app")
        follower = Follower()
        following = asyncio.create_task(follower.follow(att))
        await follower.sees_more()
        yield att, follower
        await follower.sees_more()
        following.cancel()
        found = await att.runtimes.get("app")
        assert (found.run_id, found.pid) == (started.run_id, started.pid)
        assert follower.seen == list(range(len(follower.seen)))
        await att.runtimes.stop("app")


async def test_the_next_release_takes_over_and_the_one_before_leaves(
    pair: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    before, after = pair
    async with followed_app(before, tmp_path) as (att, _):
        epoch = (await att.server.info()).epoch
        await asyncio.to_thread(after.start)
        assert await asyncio.to_thread(before.wait) == 0
        info = await att.server.info()
        assert (info.pid, info.epoch) == (after.pid, epoch + 1)


async def test_the_one_before_serves_again_where_the_next_release_is_killed(
    pair: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    before, after = pair
    # As its launcher starts it: it lets the other one go when it has a spare, and not before.
    after.environ = {**after.environ, "ATT_LAUNCH": "2"}
    async with followed_app(before, tmp_path) as (att, follower):
        epoch = (await att.server.info()).epoch
        await asyncio.to_thread(after.start)
        os.kill(after.pid, signal.SIGKILL)
        await follower.sees_more()
        info = await att.server.info()
        assert (info.pid, info.epoch) == (before.pid, epoch + 2)


async def test_a_release_that_knows_no_handover_is_left_as_it_is(
    previous: str, servers: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    if has_handover(previous):
        pytest.skip(f"{previous} hands over")
    before, after = servers
    async with followed_app(before, tmp_path) as (att, _):
        refused = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "att_server", "--state-dir", after.state_dir, "--take-over"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(refused.communicate(), PATIENCE)
        assert refused.returncode == 2
        assert said.startswith(b"att: ALREADY_RUNNING")
        assert (await att.server.info()).pid == before.pid

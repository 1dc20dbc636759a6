"""The release before this one and this one, by turns on one state directory, both ways.

What one has begun, the other takes over as it is: apps, their logs, the database.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

import att_client
from att_client import RuntimeState
from tests.compat.releases import (
    PREVIOUS,
    released_environ,
    released_server,
    releases,
    unpack,
)
from tests.server_process import ServerProcess, alive, wait_until

TICKS = """
import itertools, os, sys, time
for number in itertools.count():
    os.write(1, f"tick {number}\\n".encode())
    if os.path.exists(sys.argv[1]):
        os.write(1, f"written {number + 1}\\n".encode())
        sys.exit(3)
    time.sleep(0.001)
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "previous_tree" in metafunc.fixturenames:
        named = releases(metafunc.config, PREVIOUS)
        metafunc.parametrize("previous_tree", named, indirect=True, scope="module")


@pytest.fixture(scope="module")
def previous_tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(request.param, tmp_path_factory.mktemp("releases"))


@dataclass(frozen=True)
class Relay:
    """Two servers, one after the other, and an app that ends when it is told."""

    first: ServerProcess
    second: ServerProcess
    enough: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", TICKS, str(self.enough)]


@contextmanager
def ended(server: ServerProcess) -> Iterator[None]:
    try:
        yield
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(params=["upgrade", "rollback"])
def relay(request: pytest.FixtureRequest, tmp_path: Path, previous_tree: Path) -> Iterator[Relay]:
    state_dir = tmp_path / "s"
    old, new = released_server(previous_tree, state_dir), ServerProcess(state_dir)
    first, second = (old, new) if request.param == "upgrade" else (new, old)
    (tmp_path / "app").mkdir()
    with ended(first), ended(second):
        first.start()
        yield Relay(first, second, tmp_path / "app" / "enough")


def test_an_earlier_server_is_not_of_the_present_tree(previous_tree: Path, tmp_path: Path) -> None:
    """Else all that follows would compare this release with itself."""
    told = subprocess.run(
        [sys.executable, "-c", "import att, att_server; print(att_server.__file__, *att.__path__)"],
        env={**os.environ, **released_environ(previous_tree)},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert all(Path(path).is_relative_to(previous_tree) for path in told)


async def test_each_server_says_its_own_capabilities(relay: Relay, previous_tree: Path) -> None:
    async with att_client.connect(relay.first.target) as att:
        first = set((await att.server.info()).capabilities)
        relay.first.kill()
        await asyncio.to_thread(relay.second.start)
        second = set((await att.server.info()).capabilities)
    assert "runtimes.start" in first & second
    assert previous_tree.name != PREVIOUS or "runtimes.watch" in first ^ second


async def test_a_running_app_is_adopted_and_its_log_goes_on(relay: Relay) -> None:
    lines: list[str] = []
    sequences: list[int] = []
    async with att_client.connect(relay.first.target) as att, asyncio.TaskGroup() as tasks:
        await att.projects.create("web", path=str(relay.enough.parent), command=relay.command)
        before = await att.runtimes.start("web", wait="ready")

        async def follow() -> None:
            async for line in att.logs.follow("web", until_exit=True):
                assert isinstance(line, att_client.LogLine)
                lines.append(str(line))
                sequences.append(line.sequence)

        tasks.create_task(follow())
        while len(lines) < 100:
            await asyncio.sleep(0.001)
        relay.first.kill()
        await asyncio.to_thread(relay.second.start)
        after = await att.runtimes.get("web")
        assert (after.run_id, after.pid, after.state) == (before.run_id, before.pid, before.state)
        assert after.start_time == before.start_time
        relay.enough.touch()
    assert lines[-1] == f"written {len(lines) - 1}"
    assert lines[:-1] == [f"tick {number}" for number in range(len(lines) - 1)]
    assert sequences == list(range(sequences[0], sequences[0] + len(lines)))


async def test_an_adopted_app_can_be_stopped_and_started(relay: Relay) -> None:
    async with att_client.connect(relay.first.target) as att:
        await att.projects.create("web", path=str(relay.enough.parent), command=relay.command)
        before = await att.runtimes.start("web")
        relay.first.kill()
        await asyncio.to_thread(relay.second.start)
        stopped = await att.runtimes.stop("web")
        assert stopped.state is RuntimeState.STOPPED
        assert stopped.exit is not None
        assert stopped.exit.signal == 15
        assert not alive(before.pid)
        again = await att.runtimes.start("web", wait="ready")
        assert again.run_id > before.run_id


async def test_the_same_start_is_recognised_by_the_other_release(relay: Relay) -> None:
    async with att_client.connect(relay.first.target) as att:
        await att.projects.create("web", path=str(relay.enough.parent), command=relay.command)
        before = await att.runtimes.start("web")
        relay.first.kill()
        await asyncio.to_thread(relay.second.start)
        assert (await att.runtimes.start("web")).run_id == before.run_id


async def test_an_app_that_ended_meanwhile_is_known_with_its_end(relay: Relay) -> None:
    async with att_client.connect(relay.first.target) as att:
        await att.projects.create("web", path=str(relay.enough.parent), command=relay.command)
        before = await att.runtimes.start("web")
        relay.first.kill()
        relay.enough.touch()
        wait_until(lambda: not alive(before.pid), "the end of the app")
        await asyncio.to_thread(relay.second.start)
        after = await att.runtimes.get("web")
        assert after.run_id == before.run_id
        assert after.state is RuntimeState.EXITED
        assert after.exit is not None
        assert after.exit.exit_code == 3
        page = await att.logs.read("web", tail=1)
        assert page.log_id == (await att.projects.get("web")).log_id


async def test_a_supervisor_killed_meanwhile_is_settled_by_the_other_release(relay: Relay) -> None:
    async with att_client.connect(relay.first.target) as att:
        await att.projects.create("web", path=str(relay.enough.parent), command=relay.command)
        before = await att.runtimes.start("web")
        [state] = relay.first.supervisor_states()
        relay.first.kill()
        assert isinstance(state["pid"], int)
        os.kill(state["pid"], 9)
        await asyncio.to_thread(relay.second.start)
        after = await att.runtimes.get("web")
        assert after.exit is not None
        assert after.exit.supervisor_lost
        assert not alive(before.pid)


@pytest.fixture
def servers(tmp_path: Path, previous_tree: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """This release, which serves, and the previous one."""
    state_dir = tmp_path / "s"
    new, old = ServerProcess(state_dir), released_server(previous_tree, state_dir)
    with ended(new), ended(old):
        new.start()
        yield new, old


async def test_an_app_that_waits_for_its_restart_stays_so_over_a_rollback_and_back(
    servers: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    new, old = servers
    policy = att_client.RestartPolicy(
        condition=att_client.RestartPolicyCondition.ALWAYS,
        initial_backoff=timedelta(hours=1),
        max_backoff=timedelta(hours=1),
    )
    async with att_client.connect(new.target) as att:
        settings = att_client.RuntimeSettings(command=["false"], restart=policy)
        await att.projects.create("web", path=str(tmp_path), runtime=settings)
        await att.runtimes.start("web")
        while (before := await att.runtimes.get("web")).state is not RuntimeState.BACKOFF:
            await asyncio.sleep(0.005)
        new.kill()
        await asyncio.to_thread(old.start)
        assert (await att.runtimes.get("web")).state is RuntimeState.BACKOFF
        old.kill()
        await asyncio.to_thread(new.start)
        after = await att.runtimes.get("web")
        assert (after.state, after.run_id) == (before.state, before.run_id)
        assert after.next_restart_time == before.next_restart_time
        assert (await att.runtimes.stop("web")).state is RuntimeState.STOPPED


async def test_restarts_under_a_server_of_the_previous_release_are_reported_by_this_one(
    servers: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    new, old = servers
    policy = att_client.RestartPolicy(
        condition=att_client.RestartPolicyCondition.ALWAYS,
        initial_backoff=timedelta(milliseconds=20),
        max_backoff=timedelta(milliseconds=20),
        max_restarts=10_000,  # it restarts for as long as it takes the other server to come
    )
    (tmp_path / "work").mkdir()
    # Not many in the time that a server takes to begin: a supervisor keeps its last 32 runs.
    app = "import os, time; open(f'work/{os.getpid()}', 'w').close(); time.sleep(1)"
    async with att_client.connect(new.target) as att:
        settings = att_client.RuntimeSettings(command=[sys.executable, "-c", app], restart=policy)
        await att.projects.create("web", path=str(tmp_path), runtime=settings)
        await att.runtimes.start("web")
        new.kill()
        await asyncio.to_thread(old.start)
        seen = len(os.listdir(tmp_path / "work"))
        wait_until(lambda: len(os.listdir(tmp_path / "work")) > seen + 2, "restarts")
        old.kill()
        await asyncio.to_thread(new.start)
        assert (await att.runtimes.get("web")).restarts >= seen + 2
        await att.runtimes.stop("web")
        page = await att.logs.read("web", limit=100_000)
        runs = [
            record.run.run_id
            for record in page.records
            if record.run is not None and record.run.started is not None
        ]
        # Events of what has just happened are stored a moment later.
        told: dict[str, list[str]] = {"runtime.started": [], "runtime.ended": []}
        async for event in att.events.watch(project_id="web", cursor=0):
            told.get(event.event_type, []).append(event.run_id)
            if all(len(ids) >= len(runs) for ids in told.values()):
                break
    for ids in told.values():
        assert sorted(ids) == sorted(runs)

"""The client against the real server, with fakes below its rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import att_client
from att_client import Client, DesiredState, LogGap, LogLine, RunMarker, RuntimeState
from att_server.testing import (
    FakeRuntimeDriver,
    MemoryLogStore,
    fake_adapters,
    serve_in_process,
)
from tests.server_process import PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """A client, and what stands behind its server."""

    att: Client
    logs: MemoryLogStore
    driver: FakeRuntimeDriver
    directory: Path

    async def create(self, project_id: str) -> str:
        """Creates a project with a command; returns its log id."""
        path = self.directory
        project = await self.att.projects.create(project_id, path=path, command=["app"])
        return project.log_id


@pytest.fixture
async def world(directory: Path) -> AsyncIterator[_World]:
    logs, driver = MemoryLogStore(), FakeRuntimeDriver()
    adapters = fake_adapters(logs=logs, driver=driver)
    async with serve_in_process(adapters) as target, att_client.connect(target) as att:
        yield _World(att=att, logs=logs, driver=driver, directory=directory)


async def test_a_project_lives_its_life(world: _World) -> None:
    att = world.att
    log_id = await world.create("web")
    assert log_id == await world.create("web")
    with pytest.raises(att_client.ProjectSpecConflictError):
        await att.projects.create("web", path=world.directory, command=["other"])
    project = await att.projects.get("web")
    assert project.runtime is not None
    assert project.runtime.command == ["app"]
    await world.create("worker")
    assert [p.project_id async for p in att.projects.list(page_size=1)] == ["web", "worker"]
    await att.projects.delete("worker")
    with pytest.raises(att_client.ProjectNotFoundError) as caught:
        await att.projects.get("worker")
    assert caught.value.metadata == {"project_id": "worker"}


async def test_an_app_lives_its_life(world: _World) -> None:
    att = world.att
    await world.create("web")
    runtime = await att.runtimes.start("web", wait="ready")
    assert (runtime.state, runtime.desired_state) == (RuntimeState.READY, DesiredState.RUNNING)
    assert (await att.runtimes.get("web")).run_id == runtime.run_id
    assert [r.run_id async for r in att.runtimes.list()] == [runtime.run_id]
    with pytest.raises(att_client.ProjectNotStoppedError):
        await att.projects.delete("web")
    restarted = await att.runtimes.restart("web")
    assert restarted.run_id != runtime.run_id
    await att.runtimes.signal("web", 1)
    assert world.driver.signals == [("web", 1)]
    assert (await att.runtimes.stop("web")).state is RuntimeState.STOPPED
    with pytest.raises(att_client.RuntimeNotRunningError):
        await att.runtimes.signal("web", 1)


async def test_a_bad_request_names_its_fields(world: _World) -> None:
    with pytest.raises(att_client.FieldInvalidError) as caught:
        await world.att.projects.create("Not An Id", path=world.directory)
    assert "project_id" in [violation.field for violation in caught.value.violations]


async def test_a_log_is_read_and_followed_with_its_gap(world: _World) -> None:
    att = world.att
    log_id = await world.create("web")
    world.logs.append_lines("web", log_id, b"a", b"b")
    world.logs.append_lines("web", log_id, b"c", b"\xff")
    world.logs.trim("web", log_id, 2)
    page = await att.logs.read("web", cursor=0, log_id=log_id)
    assert (page.truncated, page.skipped, page.cursor, page.has_more) == (True, 2, 4, False)
    items = list(att_client.log_items(page.records))
    assert isinstance(items[0], LogGap)
    assert items[1:] == ["c", "\ufffd"]
    follow = att.logs.follow("web", cursor=0)
    loop = aiter(follow)
    first = await anext(loop)
    assert isinstance(first, LogGap)
    assert (first.first_sequence, first.count) == (0, 2)
    assert [await anext(loop), await anext(loop)] == ["c", "\ufffd"]
    waiting = asyncio.ensure_future(anext(loop))
    world.logs.append_lines("web", log_id, b"d")
    world.driver.grow("web")
    assert await waiting == "d"
    assert (follow.cursor, follow.log_id) == (5, log_id)


async def test_a_cursor_that_never_was_is_refused(world: _World) -> None:
    log_id = await world.create("web")
    for calls in (
        world.att.logs.read("web", cursor=1),
        world.att.logs.read("web", cursor=0, log_id="01ANOTHER00000000000000000"),
        anext(aiter(world.att.logs.follow("web", cursor=1))),
    ):
        with pytest.raises(att_client.LogCursorAheadError) as caught:
            await calls
        assert caught.value.metadata["end_cursor"] == "0"
        assert caught.value.metadata["log_id"] == log_id


async def test_a_follow_until_exit_ends_with_the_run(world: _World) -> None:
    log_id = await world.create("web")
    runtime = await world.att.runtimes.start("web")
    world.logs.append_started("web", log_id, runtime.run_id)
    follow = aiter(world.att.logs.follow("web", until_exit=True, markers=True))
    assert isinstance(await anext(follow), RunMarker)
    world.logs.append_lines("web", log_id, b"last words", run_id=runtime.run_id)
    world.logs.append_ended("web", log_id, runtime.run_id, exit_code=3)
    world.driver.exit("web", 3)
    async with asyncio.timeout(PATIENCE):
        rest = [item async for item in follow]
    line, end = rest
    assert isinstance(line, LogLine)
    assert (line, line.run_id) == ("last words", runtime.run_id)
    assert isinstance(end, RunMarker)
    assert end.ended is not None
    assert end.ended.exit_code == 3


async def test_events_are_listed_and_watched(world: _World) -> None:
    await world.create("web")
    page = await world.att.events.list(project_id="web")
    assert [event.event_type for event in page.events] == ["project.created"]
    events = aiter(world.att.events.watch(project_id="web", cursor=page.cursor))
    waiting = asyncio.ensure_future(anext(events))
    await world.att.runtimes.start("web")
    async with asyncio.timeout(PATIENCE):
        event = await waiting
    assert (event.project_id, event.sequence >= page.cursor) == ("web", True)


async def test_the_server_says_what_it_is(world: _World) -> None:
    info = await world.att.server.info()
    assert info.instance_id == "in-process"
    assert info.version


async def test_a_server_that_shuts_down_is_waited_for_by_follows(directory: Path) -> None:
    logs = MemoryLogStore()
    adapters = fake_adapters(logs=logs)
    socket = directory / "att.sock"
    async with att_client.connect(f"unix:{socket}", lazy=True) as att:
        async with serve_in_process(adapters) as target:
            socket.symlink_to(target.removeprefix("unix:"))
            project = await att.projects.create("web", path=directory, command=["app"])
            logs.append_lines("web", project.log_id, b"before")
            follow = aiter(att.logs.follow("web"))
            assert await anext(follow) == "before"
            waiting = asyncio.ensure_future(anext(follow))
        logs.append_lines("web", project.log_id, b"meanwhile")
        async with serve_in_process(adapters) as target:
            socket.unlink()
            socket.symlink_to(target.removeprefix("unix:"))
            async with asyncio.timeout(PATIENCE):
                assert await waiting == "meanwhile"


async def test_a_log_is_described_and_trimmed(world: _World) -> None:
    log_id = await world.create("web")
    for line in (b"a", b"b", b"c"):
        world.logs.append_lines("web", log_id, line)
    info = await world.att.logs.info("web")
    assert (info.log_id, info.start_cursor, info.end_cursor) == (log_id, 0, 3)
    assert info.size_bytes > 0
    assert await world.att.logs.trim("web", before_cursor=2) == 2
    assert (await world.att.logs.info("web")).start_cursor == 2
    page = await world.att.logs.read("web", cursor=0)
    assert (page.truncated, page.skipped, page.text()) == (True, 2, "c\n")
    with pytest.raises(att_client.FieldInvalidError):
        await world.att.logs.trim("web", before_cursor=-1)
    with pytest.raises(att_client.ProjectNotFoundError):
        await world.att.logs.info("nope")

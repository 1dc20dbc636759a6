"""Watchers of apps are told whole states: the latest always, those between if there is time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest

from att_server.core import run_table
from att_server.core.errors import AttError, Reason
from att_server.core.model import DesiredState, RuntimeChanges, RuntimeState
from tests.core.fake_server import PROBED, RUN, Server, run_id
from tests.server_process import PATIENCE

LONG = timedelta(minutes=5)


class Watcher:
    """Takes what is told when the test asks for it."""

    def __init__(self, changes: AsyncIterator[RuntimeChanges]) -> None:
        self._changes = changes

    async def next(self) -> RuntimeChanges:
        async with asyncio.timeout(PATIENCE):
            return await anext(self._changes)


@asynccontextmanager
async def watching(
    server: Server, *project_ids: str, after: int = 0, progress: timedelta = LONG
) -> AsyncIterator[Watcher]:
    async with aclosing(server.runtimes.watch(project_ids, after, progress)) as changes:
        yield Watcher(changes)


def ids(changes: RuntimeChanges) -> list[str]:
    return [runtime.project_id for runtime in changes.runtimes]


async def test_a_watcher_is_told_all_there_is_at_once(server: Server) -> None:
    await server.create(project_id="other")
    await server.start()
    async with watching(server) as watcher:
        first = await watcher.next()
    assert first.complete
    assert sorted(ids(first)) == ["other", "web"]
    assert first.revision == server.runtimes.list(10, "")[2]


async def test_a_watcher_of_some_is_told_of_those_only(server: Server) -> None:
    await server.create(project_id="other")
    async with watching(server, "other") as watcher:
        assert ids(await watcher.next()) == ["other"]
        await server.start()
        await server.runtimes.start(
            "other",
            RUN,
            wait_ready=False,
            timeout=LONG,
            request_id="",
            principal="",
        )
        change = await watcher.next()
        assert ids(change) == ["other"]
        assert not change.complete


async def test_an_unknown_project_cannot_be_watched(server: Server) -> None:
    async with watching(server, "web", "nowhere") as watcher:
        with pytest.raises(AttError) as missing:
            await watcher.next()
    assert missing.value.reason is Reason.PROJECT_NOT_FOUND
    assert missing.value.metadata["project_id"] == "nowhere"


async def test_states_that_come_faster_than_they_are_taken_merge_into_the_latest(
    server: Server,
) -> None:
    async with watching(server) as watcher:
        before = (await watcher.next()).revision
        for _ in range(5):
            await server.restart()
        last = server.runtimes.get("web")
        change = await watcher.next()
        assert change.runtimes == (last,)
        assert change.revision > before


async def test_nothing_lies_between_a_list_and_the_watch_from_its_revision(
    server: Server,
) -> None:
    _, _, revision = server.runtimes.list(10, "")
    started = await server.start()
    async with watching(server, after=revision) as watcher:
        first = await watcher.next()
    assert not first.complete
    assert [run_id(runtime) for runtime in first.runtimes] == [run_id(started)]


async def test_a_watch_from_now_begins_with_nothing(server: Server) -> None:
    _, _, revision = server.runtimes.list(10, "")
    async with watching(server, after=revision) as watcher:
        first = await watcher.next()
    assert (first.runtimes, first.deleted, first.revision) == ((), (), revision)
    assert not first.complete


@pytest.mark.parametrize("offset", [-1_000_000, 1_000_000])
async def test_a_revision_of_another_server_gives_all_states(server: Server, offset: int) -> None:
    _, _, revision = server.runtimes.list(10, "")
    async with watching(server, after=revision + offset) as watcher:
        first = await watcher.next()
    assert first.complete
    assert ids(first) == ["web"]


async def test_a_project_that_comes_and_one_that_goes_are_told(server: Server) -> None:
    async with watching(server) as watcher:
        await watcher.next()
        await server.create(project_id="new")
        assert ids(await watcher.next()) == ["new"]
        await server.projects.delete("new", request_id="", principal="")
        gone = await watcher.next()
        assert (gone.runtimes, gone.deleted) == ((), ("new",))


async def test_a_watcher_that_comes_back_is_told_what_was_deleted_meanwhile(
    server: Server,
) -> None:
    await server.create(project_id="old")
    _, _, revision = server.runtimes.list(10, "")
    await server.projects.delete("old", request_id="", principal="")
    async with watching(server, "old", "web", after=revision) as watcher:
        assert (await watcher.next()).deleted == ("old",)


async def test_a_project_that_was_made_anew_is_told_as_there(server: Server) -> None:
    _, _, revision = server.runtimes.list(10, "")
    await server.projects.delete("web", request_id="", principal="")
    await server.create()
    async with watching(server, after=revision) as watcher:
        first = await watcher.next()
    assert (ids(first), first.deleted) == (["web"], ())


async def test_who_was_away_for_too_many_deletions_is_told_all_there_is(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_table, "MAX_DELETED", 2)
    _, _, revision = server.runtimes.list(10, "")
    for number in range(3):
        await server.create(project_id=f"p{number}")
        await server.projects.delete(f"p{number}", request_id="", principal="")
    async with watching(server, after=revision) as watcher:
        first = await watcher.next()
    assert first.complete
    assert ids(first) == ["web"]


async def test_what_an_app_is_meant_to_be_is_told(server: Server) -> None:
    await server.start()
    server.driver.exit("web", 1)
    async with watching(server) as watcher:
        await watcher.next()
        await server.stop()
        (runtime,) = (await watcher.next()).runtimes
        assert (runtime.state, runtime.desired) == (RuntimeState.EXITED, DesiredState.STOPPED)


async def test_a_check_with_another_outcome_is_told_and_one_with_the_same_is_not(
    server: Server,
) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    await server.start()
    await server.clock.wait_for_sleepers()
    _, _, revision = server.runtimes.list(10, "")
    for _ in range(3):
        server.clock.advance(timedelta(seconds=1))
        await server.clock.wait_for_sleepers()
    checked = server.runtimes.get("web").health
    assert checked is not None
    assert checked.checked_at == server.clock.now()
    assert server.runtimes.list(10, "")[2] == revision


async def test_an_idle_watch_reports_progress(server: Server) -> None:
    async with watching(server, progress=timedelta(milliseconds=1)) as watcher:
        first = await watcher.next()
        idle = await watcher.next()
    assert (idle.runtimes, idle.deleted, idle.revision) == ((), (), first.revision)
    assert not idle.complete


async def test_a_watcher_that_leaves_leaves_nothing_behind(server: Server) -> None:
    for watched in ((), ("web",)):
        async with watching(server, *watched) as watcher:
            await watcher.next()
    assert server.runs.listeners == 0

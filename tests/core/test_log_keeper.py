"""How much of logs is kept, with logs in memory of which each record is a part."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.log_facts import FreeSpace
from att_server.core.log_keeper import LOOK_EVERY, MAX_FREE_BYTES, LogKeeper
from att_server.core.model import DesiredState, Event, EventFilter, Project, ProjectMode
from att_server.core.settings import LogSettings, RuntimeSettings
from att_server.testing.clock import FakeClock
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore


class Stage:
    """A keeper of two logs, whose records have 100 bytes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.logs = MemoryLogStore()
        self.store = MemoryStateStore()
        self.settings = FakeSettingsReader()
        self.projects = {name: self.project(name) for name in ("api", "web")}
        self.keeper = LogKeeper(
            logs=self.logs,
            store=self.store,
            settings=self.settings,
            clock=self.clock,
            stored=Bell(),
            find_project=self.find,
            all_projects=lambda: list(self.projects.values()),
        )

    def project(self, project_id: str) -> Project:
        return Project(
            project_id=project_id,
            path=Path("/") / project_id,
            runtime=RuntimeSettings(),
            mode=ProjectMode.NORMAL,
            log_id=f"log-{project_id}",
            desired=DesiredState.STOPPED,
            desired_runtime=RuntimeSettings(),
            create_time=self.clock.now(),
            update_time=self.clock.now(),
        )

    def find(self, project_id: str) -> Project:
        if project_id not in self.projects:
            raise project_not_found(project_id)
        return self.projects[project_id]

    def fill(self, project_id: str, count: int, *, every: timedelta = timedelta(0)) -> None:
        for _ in range(count):
            self.clock.advance(every)
            self.logs.append_lines(
                project_id, f"log-{project_id}", b"x" * 99, time=self.clock.now()
            )

    async def start(self, project_id: str = "web") -> int:
        return (await self.logs.bounds(project_id, f"log-{project_id}")).start

    async def events(self) -> list[Event]:
        found, _ = await self.store.list_events(EventFilter(), cursor=0, limit=100)
        return list(found)


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_without_settings_everything_is_kept(stage: Stage) -> None:
    stage.fill("web", 50, every=timedelta(days=1))
    await stage.keeper.look()
    assert await stage.start() == 0


async def test_what_is_too_much_goes_from_the_front(stage: Stage) -> None:
    stage.settings.log_settings["web"] = LogSettings(max_size=1000)
    stage.fill("web", 50)
    stage.fill("api", 50)
    await stage.keeper.look()
    assert await stage.start() == 40
    assert await stage.start("api") == 0
    assert await stage.events() == []


async def test_what_is_too_old_goes_from_the_front(stage: Stage) -> None:
    stage.settings.log_settings["web"] = LogSettings(max_age=timedelta(hours=10))
    stage.fill("web", 50, every=timedelta(hours=1))
    await stage.keeper.look()
    # What is left begins with the last part that still holds the oldest kept record.
    assert await stage.start() == 38
    stage.clock.advance(timedelta(days=30))
    await stage.keeper.look()
    assert await stage.start() == 49


async def test_settings_are_read_again_and_a_wrong_file_changes_nothing(stage: Stage) -> None:
    stage.settings.log_settings["web"] = LogSettings(max_size=2000)
    stage.fill("web", 50)
    await stage.keeper.look()
    assert await stage.start() == 30
    stage.clock.advance(timedelta(minutes=1))
    stage.settings.log_settings["web"] = AttError(Reason.SETTINGS_INVALID, "wrong")
    stage.fill("web", 5)
    await stage.keeper.look()
    assert await stage.start() == 35
    stage.clock.advance(timedelta(minutes=1))
    stage.settings.log_settings["web"] = LogSettings(max_size=500)
    await stage.keeper.look()
    assert await stage.start() == 50


async def test_the_oldest_parts_of_all_logs_make_room_and_an_event_tells(stage: Stage) -> None:
    stage.fill("web", 10, every=timedelta(hours=1))
    stage.fill("api", 10, every=timedelta(hours=1))
    stage.fill("web", 10, every=timedelta(hours=1))
    stage.logs.space = FreeSpace(free_bytes=800, total_bytes=20_000)
    await stage.keeper.look()
    # 2,000 bytes are to be free; the twelve oldest records had 1,200.
    assert (await stage.start("web"), await stage.start("api")) == (10, 2)
    told = {event.project_id: event for event in await stage.events()}
    assert {event.event_type for event in told.values()} == {"log.storage_low"}
    assert {name: event.attributes["count"] for name, event in told.items()} == {
        "web": "10",
        "api": "2",
    }


async def test_a_project_may_keep_its_log_on_a_full_disk(stage: Stage) -> None:
    stage.settings.log_settings["web"] = LogSettings(min_free=0)
    stage.fill("web", 10)
    stage.fill("api", 10)
    stage.logs.space = FreeSpace(free_bytes=0, total_bytes=1 << 20)
    await stage.keeper.look()
    assert (await stage.start("web"), await stage.start("api")) == (0, 9)


async def test_of_a_large_disk_not_more_than_needed_is_kept_free(stage: Stage) -> None:
    stage.fill("web", 10)
    stage.logs.space = FreeSpace(free_bytes=MAX_FREE_BYTES, total_bytes=100 * MAX_FREE_BYTES)
    await stage.keeper.look()
    assert await stage.start() == 0


async def test_trimming_is_told_with_who_asked(stage: Stage) -> None:
    stage.fill("web", 10)
    left = await stage.keeper.trim("web", 4, principal="local:1")
    assert left.start == 4
    await stage.keeper.trim("web", 4, principal="local:1")
    (event,) = await stage.events()
    assert (event.event_type, event.principal) == ("log.trimmed", "local:1")
    assert event.attributes == {"first": "0", "count": "4"}


async def test_trimming_above_the_end_is_refused(stage: Stage) -> None:
    stage.fill("web", 10)
    with pytest.raises(AttError) as refused:
        await stage.keeper.trim("web", 11, principal="")
    assert refused.value.reason is Reason.LOG_CURSOR_AHEAD
    assert await stage.start() == 0


async def test_a_failing_log_does_not_keep_others_from_being_looked_after(stage: Stage) -> None:
    stage.settings.log_settings |= {name: LogSettings(max_size=100) for name in stage.projects}
    stage.fill("web", 10)
    segments = stage.logs.segments

    async def failing(project_id: str, log_id: str) -> object:
        if project_id == "api":
            raise OSError("gone")
        return await segments(project_id, log_id)

    stage.logs.segments = failing  # type: ignore[method-assign,assignment]  # a store that fails
    await stage.keeper.look()
    assert await stage.start() == 9


async def test_rates_are_those_of_the_last_minute(stage: Stage) -> None:
    stage.fill("web", 100, every=timedelta(seconds=1))
    info = await stage.keeper.info("web")
    assert (info.bounds.end, info.recent_records) == (100, 61)


async def test_the_keeper_looks_again_and_again(stage: Stage) -> None:

    stage.settings.log_settings["web"] = LogSettings(max_size=1000)
    running = asyncio.ensure_future(stage.keeper.run())
    await stage.clock.wait_for_sleepers()
    stage.fill("web", 50)
    stage.clock.advance(LOOK_EVERY)
    await stage.clock.wait_for_sleepers()
    assert await stage.start() == 40
    running.cancel()

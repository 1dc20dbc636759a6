"""Who wants to know of failures is told: at least once, in order, and never in a storm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.model import (
    CommandResult,
    DesiredState,
    Event,
    EventFilter,
    Project,
    ProjectMode,
)
from att_server.core.notifier import CURSOR, WAITS, Notifier
from att_server.core.settings import NotifySettings, RuntimeSettings
from att_server.testing import (
    FakeClock,
    FakeCommandRunner,
    FakeSettingsReader,
    MemoryStateStore,
)
from att_server.testing.commands import RanCommand
from tests.server_process import PATIENCE

TELL = NotifySettings(command=("tell", "people"), timeout=timedelta(seconds=7))


@dataclass
class House:
    """What outlives a server, and what tests look at."""

    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStateStore = field(default_factory=MemoryStateStore)
    commands: FakeCommandRunner = field(default_factory=FakeCommandRunner)
    settings: FakeSettingsReader = field(default_factory=FakeSettingsReader)
    projects: dict[str, Project] = field(default_factory=dict)
    stored: Bell = field(default_factory=Bell)
    run_as: str = ""

    def add(self, project_id: str, notify: NotifySettings | AttError | None = TELL) -> None:
        now = self.clock.now()
        self.projects[project_id] = Project(
            project_id=project_id,
            path=Path("/apps") / project_id,
            runtime=RuntimeSettings(),
            mode=ProjectMode.NORMAL,
            log_id="LOG",
            desired=DesiredState.RUNNING,
            desired_runtime=RuntimeSettings(),
            create_time=now,
            update_time=now,
        )
        if notify is not None:
            self.settings.notify_settings[project_id] = notify

    def find(self, project_id: str) -> Project:
        if project_id not in self.projects:
            raise project_not_found(project_id)
        return self.projects[project_id]

    async def fails(self, project_id: str, event_type: str = "runtime.failed") -> None:
        event = Event(
            event_type=event_type,
            time=self.clock.now(),
            project_id=project_id,
            run_id="RUN",
            reason="crash_loop",
            attributes={"restarts": "10"},
        )
        await self.store.append_events(event)
        self.stored.ring()

    async def user(self, project: Project) -> str:
        return self.run_as

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        notifier = Notifier(
            store=self.store,
            find_project=self.find,
            settings=self.settings,
            commands=self.commands,
            clock=self.clock,
            stored=self.stored,
            user=self.user,
            inherited_env={"PATH": "/bin"},
        )
        running = asyncio.create_task(notifier.run())
        try:
            async with asyncio.timeout(PATIENCE):
                while await self.store.number(CURSOR) is None:
                    await asyncio.sleep(0)
                yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def cursor_reaches(self, cursor: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await self.store.number(CURSOR) or 0) < cursor:
                await asyncio.sleep(0)

    async def fail_all_tries(self) -> None:
        for wait in WAITS:
            await self.clock.wait_for_sleepers()
            self.clock.advance(wait)

    @property
    def told(self) -> list[tuple[str, int]]:
        return [
            (ran.env["ATT_PROJECT_ID"], int(ran.env["ATT_EVENT_SEQUENCE"]))
            for ran in self.commands.ran
        ]


@pytest.fixture
def house() -> House:
    return House()


async def test_a_failure_is_told_with_its_event(house: House) -> None:
    house.add("web")
    async with house.serving():
        await house.fails("web", "runtime.ended")
        await house.fails("web")
        await house.commands.wait_for_runs(1)
        await house.cursor_reaches(2)
    (ran,) = house.commands.ran
    assert ran.command == ("tell", "people")
    assert ran.directory == Path("/apps/web")
    assert ran.timeout == timedelta(seconds=7)
    assert ran.env == {
        "PATH": "/bin",
        "ATT_EVENT_TYPE": "runtime.failed",
        "ATT_EVENT_SEQUENCE": "1",
        "ATT_PROJECT_ID": "web",
    }
    assert ran.input.endswith(b"}\n")
    assert json.loads(ran.input) == {
        "sequence": 1,
        "time": "2030-01-01T00:00:00+00:00",
        "event_type": "runtime.failed",
        "project_id": "web",
        "run_id": "RUN",
        "reason": "crash_loop",
        "message": "",
        "attributes": {"restarts": "10"},
    }


async def test_old_history_is_not_told_at_the_first_start(house: House) -> None:
    house.add("web")
    for _ in range(3):
        await house.fails("web")
    async with house.serving():
        await house.fails("web")
        await house.cursor_reaches(4)
    assert house.told == [("web", 3)]


async def test_a_project_that_asks_later_hears_of_later_failures_only(house: House) -> None:
    house.add("web", None)
    async with house.serving():
        for _ in range(3):
            await house.fails("web")
        await house.cursor_reaches(3)
    house.add("web")
    async with house.serving():
        await house.fails("web")
        await house.cursor_reaches(4)
    assert house.told == [("web", 3)]


async def test_what_failed_while_no_server_ran_is_told(house: House) -> None:
    house.add("web")
    async with house.serving():
        pass
    await house.fails("web")
    await house.fails("web")
    async with house.serving():
        await house.cursor_reaches(2)
    assert house.told == [("web", 0), ("web", 1)]


async def test_a_command_that_the_server_did_not_see_end_is_run_again(house: House) -> None:
    house.add("web")
    house.commands.hold()
    async with house.serving():
        await house.fails("web")
        await house.commands.wait_for_runs(1)
    house.commands.release()
    async with house.serving():
        await house.cursor_reaches(1)
    async with house.serving():
        pass
    assert house.told == [("web", 0)] * 2


async def test_the_next_failure_of_a_project_waits_for_the_one_before(house: House) -> None:
    house.add("web")
    house.commands.hold()
    async with house.serving():
        for _ in range(3):
            await house.fails("web")
        await house.commands.wait_for_runs(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(house.commands.ran) == 1
        house.commands.release()
        await house.cursor_reaches(3)
    assert house.told == [("web", number) for number in range(3)]


async def test_a_project_whose_command_hangs_holds_up_no_other(house: House) -> None:
    house.add("hangs", NotifySettings(command=("hang",)))
    house.add("web")
    hang = asyncio.Event()

    class Hanging(FakeCommandRunner):
        async def run(self, command, **rest):  # type: ignore[no-untyped-def]  # passes on
            if command == ("hang",):
                await hang.wait()
            return await super().run(command, **rest)

    house.commands = Hanging()
    async with house.serving():
        await house.fails("hangs")
        await house.fails("web")
        await house.commands.wait_for_runs(1)
        assert house.told == [("web", 1)]
        # Nothing is lost with the server: the oldest that is not told yet counts.
        assert await house.store.number(CURSOR) == 0
        hang.set()
        await house.cursor_reaches(2)


async def test_a_command_that_fails_is_run_again_until_it_does_not(house: House) -> None:
    house.add("web")
    ends = iter([CommandResult(exit_code=1), CommandResult(timed_out=True)])
    house.commands.result = lambda _: next(ends, CommandResult(exit_code=0))
    async with house.serving():
        await house.fails("web")
        for wait in WAITS[:2]:
            await house.clock.wait_for_sleepers()
            house.clock.advance(wait)
        await house.cursor_reaches(1)
    assert house.told == [("web", 0)] * 3


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (CommandResult(exit_code=3), "command_exit"),
        (CommandResult(signal=9), "command_exit"),
        (CommandResult(timed_out=True), "command_timeout"),
        (CommandResult(start_error="no such file"), "command_error"),
    ],
)
async def test_a_command_that_always_fails_is_given_up_with_an_event(
    house: House, result: CommandResult, reason: str
) -> None:
    house.add("web")

    def ended(ran: RanCommand) -> CommandResult:
        return result if ran.env["ATT_EVENT_SEQUENCE"] == "0" else CommandResult(exit_code=0)

    house.commands.result = ended
    async with house.serving():
        await house.fails("web")
        await house.fails("web")
        await house.fail_all_tries()
        await house.cursor_reaches(2)
    tries = len(WAITS) + 1
    assert house.told == [("web", 0)] * tries + [("web", 1)]
    page, _ = await house.store.list_events(
        EventFilter(event_types=("notify.failed",)), cursor=0, limit=10
    )
    (event,) = page
    assert (event.project_id, event.reason) == ("web", reason)
    assert event.attributes == {"event_sequence": "0", "tries": str(tries), "command": "tell"}
    assert event.time == house.clock.now()


async def test_settings_are_read_again_for_each_try(house: House) -> None:
    house.add("web", AttError(Reason.SETTINGS_INVALID, "line 3"))
    async with house.serving():
        await house.fails("web")
        await house.clock.wait_for_sleepers()
        house.add("web")
        house.clock.advance(WAITS[0])
        await house.cursor_reaches(1)
    assert house.told == [("web", 0)]


async def test_settings_that_stay_wrong_are_given_up_with_an_event(house: House) -> None:
    house.add("web", AttError(Reason.SETTINGS_INVALID, "line 3"))
    async with house.serving():
        await house.fails("web")
        await house.fail_all_tries()
        await house.cursor_reaches(1)
    (event,), _ = await house.store.list_events(EventFilter(), cursor=0, limit=1, tail=True)
    assert (event.event_type, event.reason) == ("notify.failed", "settings_invalid")


async def test_a_deleted_project_is_told_to_nobody(house: House) -> None:
    async with house.serving():
        await house.fails("gone")
        await house.cursor_reaches(1)
    assert house.told == []


async def test_a_project_that_was_created_anew_does_not_hear_of_its_earlier_life(
    house: House,
) -> None:
    house.add("web")
    async with house.serving():
        pass
    await house.fails("web")
    house.clock.advance(timedelta(seconds=1))
    house.add("web")
    async with house.serving():
        await house.cursor_reaches(1)
    assert house.told == []


async def test_an_event_too_long_for_a_command_is_cut(house: House) -> None:
    house.add("web")
    async with house.serving():
        await house.store.append_events(
            Event(
                event_type="runtime.failed",
                time=house.clock.now(),
                project_id="web",
                message="\0" * 20_000,
                attributes={"lines": "x"},
            )
        )
        house.stored.ring()
        await house.cursor_reaches(1)
    (ran,) = house.commands.ran
    assert len(ran.input) < 64 << 10
    event = json.loads(ran.input)
    assert (event["sequence"], event["message"], event["attributes"]) == (0, "\0" * 1000, {})


async def test_a_store_that_cannot_be_written_makes_it_told_again_and_not_lost(
    house: House,
) -> None:
    house.add("web")
    async with house.serving():
        await house.fails("web")
        house.store.write_error = AttError(Reason.STORAGE_FULL, "full")
        await house.commands.wait_for_runs(1)
        house.store.write_error = None
        await house.fails("web")
        await house.cursor_reaches(2)
    assert house.told == [("web", 0), ("web", 1)]


async def test_a_thousand_failures_are_all_told(house: House) -> None:
    for number in range(10):
        house.add(f"p{number}")
    async with house.serving():
        for number in range(1000):
            await house.fails(f"p{number % 10}")
        await house.cursor_reaches(1000)
    assert sorted(number for _, number in house.told) == list(range(1000))
    for project in house.projects:
        mine = [number for name, number in house.told if name == project]
        assert mine == sorted(mine)

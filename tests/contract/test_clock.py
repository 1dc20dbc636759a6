"""What every clock keeps to, the system's and the fake one."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest

from att_server.adapters.clock import SystemClock, encode_ulid
from att_server.core.ports import Clock
from att_server.testing.clock import FakeClock

SECOND = timedelta(seconds=1)


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_the_time_is_aware_and_in_utc(clock: Clock) -> None:
    assert clock.now().tzinfo is UTC


def test_ids_have_26_characters_and_sort_in_the_order_of_their_making(clock: Clock) -> None:
    ids = [clock.new_id() for _ in range(10_000)]
    assert all(re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", made) for made in ids)
    assert ids == sorted(set(ids))


def test_an_id_begins_with_the_time_of_its_making(clock: Clock) -> None:
    before = clock.now() - timedelta(milliseconds=1)
    made = clock.new_id()
    after = clock.now() + timedelta(milliseconds=1)
    assert _prefix(before) <= made[:10] <= _prefix(after)


@pytest.mark.parametrize("duration", [timedelta(), -SECOND])
async def test_a_sleep_that_is_not_positive_returns(clock: Clock, duration: timedelta) -> None:
    await clock.sleep(duration)


async def test_a_sleep_can_be_cancelled(clock: Clock) -> None:
    sleeper = asyncio.create_task(clock.sleep(timedelta(days=1)))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper


async def test_the_system_clock_sleeps_for_the_duration() -> None:
    clock = SystemClock()
    start = clock.monotonic()
    await clock.sleep(timedelta(milliseconds=20))
    assert clock.monotonic() - start >= 0.019


def test_ids_rise_even_when_the_wall_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.new_id()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert clock.new_id() > first


def test_the_characters_are_those_of_a_ulid() -> None:
    assert encode_ulid((1 << 128) - 1) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    assert encode_ulid(1) == "00000000000000000000000001"
    assert encode_ulid(1_469_918_176_385 << 80)[:10] == "01ARYZ6S41"


def test_two_fake_clocks_make_the_same_ids() -> None:
    assert FakeClock().new_id() == FakeClock().new_id()


async def test_fake_time_wakes_whom_it_is_due_in_their_order() -> None:
    clock = FakeClock()
    woken: list[str] = []

    async def sleep(name: str, duration: timedelta) -> None:
        await clock.sleep(duration)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in [("late", 9), ("second", 2), ("first", 1)]:
            tasks.create_task(sleep(name, seconds * SECOND))
        await clock.wait_for_sleepers(3)
        clock.advance(2 * SECOND)
        assert clock.sleepers == 1
        await asyncio.sleep(0)
        assert woken == ["first", "second"]
        clock.advance(7 * SECOND)
    assert woken == ["first", "second", "late"]
    assert clock.monotonic() == 9
    assert clock.now() == FakeClock().now() + 9 * SECOND


async def test_a_cancelled_fake_sleep_is_no_sleeper() -> None:
    clock = FakeClock()
    sleeper = asyncio.create_task(clock.sleep(SECOND))
    await clock.wait_for_sleepers()
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert clock.sleepers == 0
    clock.advance(SECOND)


def test_fake_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="back"):
        FakeClock().advance(-SECOND)


def _prefix(time: datetime) -> str:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return encode_ulid((time - epoch) // timedelta(milliseconds=1) << 80)[:10]

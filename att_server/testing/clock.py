"""FakeClock: time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

from att_server.adapters.clock import encode_ulid


class FakeClock:
    """Implements `Clock`; starts at `start` and moves with `advance`.

    A test first waits until what it tests sleeps, then lets time pass:

        await clock.wait_for_sleepers()
        clock.advance(timedelta(seconds=15))
    """

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = timedelta()
        self._ids = 0
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []
        self._sleeps = 0
        self._slept = asyncio.Event()

    def now(self) -> datetime:
        """The start and all that was advanced."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """The seconds advanced so far."""
        return self._elapsed.total_seconds()

    async def sleep(self, duration: timedelta) -> None:
        """Returns once time was advanced by `duration`, at once if it is not positive."""
        if duration <= timedelta():
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleeps += 1
        heapq.heappush(self._sleepers, (self._elapsed + duration, self._sleeps, woken))
        self._slept.set()
        await woken

    def new_id(self) -> str:
        """A ULID of the fake time; the same in every run of a test."""
        self._ids += 1
        milliseconds = (self.now() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
        return encode_ulid(milliseconds << 80 | self._ids)

    @property
    def sleepers(self) -> int:
        """How many sleeps are waiting for time to pass."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Returns once at least `count` sleeps are waiting."""
        while self.sleepers < count:
            self._slept.clear()
            await self._slept.wait()

    def advance(self, duration: timedelta) -> None:
        """Lets `duration` (not negative) pass and wakes whom it is due, earliest first."""
        if duration < timedelta():
            raise ValueError("time does not go back")
        self._elapsed += duration
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

"""A way to wait for the next change of something that others change."""

from __future__ import annotations

import asyncio
from datetime import timedelta


class Bell:
    """Counts its rings; a waiter names the count it has seen, so none is missed."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[bool]] = set()

    def ring(self) -> None:
        """Wakes everyone who waits."""
        self.count += 1
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            _wake(waiter, True)

    async def wait(self, seen: int, timeout: timedelta | None = None) -> bool:
        """Returns True once the count is above `seen`, False after `timeout`."""
        if self.count > seen:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(waiter)
        # Not asyncio.timeout: every line of a followed log passes here.
        timer = None
        if timeout is not None:
            timer = loop.call_later(timeout.total_seconds(), _wake, waiter, False)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[bool], rung: bool) -> None:
    if not waiter.done():
        waiter.set_result(rung)

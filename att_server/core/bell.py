"""A way to wait for the next change of something that others change."""

from __future__ import annotations

import asyncio
from datetime import timedelta


class Bell:
    """Counts its rings; a waiter names the count it has seen, so none is missed."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes everyone who waits."""
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, seen: int, timeout: timedelta | None = None) -> bool:
        """Returns True once the count is above `seen`, False after `timeout`."""
        if self.count > seen:
            return True
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                await self._rung.wait()
        except TimeoutError:
            return False
        return True

"""Slots: how many commands of projects run at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Lets so many run at once and the others wait, first come first served.

    A project has one cycle at a time and a cycle one command, so with many
    projects everybody's turn comes after at most one command of each other.
    """

    def __init__(self, count: int) -> None:
        """count: at least 1; as a rule the number of processors."""
        if count < 1:
            raise ValueError(f"there has to be a slot, not {count}")
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Holds a slot within the context, once one is free."""
        async with self._free:
            yield

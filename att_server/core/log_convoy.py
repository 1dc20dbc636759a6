"""Keeps those who follow a log close together, so that what is read for one serves them all.

Who goes ahead through a flood waits for the others, who then find its pages in the store's
cache. Who does not move within `WITHIN` is left behind: a stopped follower costs the others
this once, and counts again when it has caught up by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

REACH = 8
"""Pages that the first may be ahead of the last; the store keeps about twice as many."""

WITHIN = timedelta(milliseconds=50)


class Convoy:
    """Those who follow one log."""

    def __init__(self) -> None:
        self.members: set[Member] = set()

    @contextmanager
    def member(self, cursor: int) -> Iterator[Member]:
        """One more, at `cursor`."""
        member = Member(self, cursor)
        self.members.add(member)
        try:
            yield member
        finally:
            self.members.discard(member)
            member.leave()


class Member:
    """One who follows. cursor: behind what it was given. counts: whether others wait for it."""

    __slots__ = ("_awaited", "_convoy", "counts", "cursor")

    def __init__(self, convoy: Convoy, cursor: int) -> None:
        self.cursor = cursor
        self.counts = False
        self._convoy = convoy
        # Those who wait until it is at a cursor.
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []

    def arrive(self, cursor: int) -> None:
        """It was given everything up to the log's end."""
        self.counts = True
        self._move(cursor)

    async def advance(self, cursor: int) -> None:
        """It was given a page up to `cursor`, with more behind it.

        Returns when those who count are near, or were waited for.
        """
        reach = REACH * (cursor - self.cursor)
        self._move(cursor)
        members = self._convoy.members
        if len(members) == 1:
            return
        if not self.counts:
            self.counts = max(member.cursor for member in members) - cursor <= reach // 2
        rear = cursor - reach
        for member in [each for each in members if each.counts and each.cursor < rear]:
            await member._passes(rear)

    def leave(self) -> None:
        """It is not waited for any more."""
        self.counts = False
        for _, waiter in self._awaited:
            if not waiter.done():
                waiter.set_result(None)
        self._awaited.clear()

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        if self._awaited:
            for wanted, waiter in self._awaited:
                if wanted <= cursor and not waiter.done():
                    waiter.set_result(None)
            self._awaited = [each for each in self._awaited if not each[1].done()]

    async def _passes(self, cursor: int) -> None:
        """Returns when it is at `cursor`, or does not count any more: after `WITHIN`."""
        if not self.counts or self.cursor >= cursor:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._awaited.append((cursor, waiter))
        late = loop.call_later(WITHIN.total_seconds(), self.leave)
        try:
            await waiter
        finally:
            late.cancel()
            waiter.cancel()

"""Keeps those who follow a log close together, so that what is read for one serves them all.

Who goes ahead through a flood waits for the others, who then find its pages in the store's
cache. One that does not move for `WITHIN` is left behind, and counts again when it has caught
up by itself. One that the others wait for all the time is slow, and counts again at the end
of the log: a follower that is stopped or slow costs the others a moment of a flood, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

REACH = 8
"""Pages that the first may be ahead of the last; the store keeps about twice as many."""

WITHIN = timedelta(milliseconds=50)
"""Several turns of a processor that many want."""

PERIOD = timedelta(milliseconds=500)
"""After so long it is looked at how much of it the others have waited for one."""

_ALL_THE_TIME = 0.75
"""Of the period. Where processors are short, each is waited for in turn."""


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

    __slots__ = (
        "_awaited",
        "_convoy",
        "_held",
        "_is_slow",
        "_left",
        "_page",
        "_period",
        "_since",
        "counts",
        "cursor",
    )

    def __init__(self, convoy: Convoy, cursor: int) -> None:
        self.cursor = cursor
        self.counts = False
        self._convoy = convoy
        self._page = 1  # as long as its pages are, in sequence numbers
        # Those who wait until it is at a cursor, and since when there are any.
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._since = 0.0
        self._left: asyncio.TimerHandle | None = None
        # For how long others have waited for it since the period began.
        self._held, self._period = 0.0, 0.0
        self._is_slow = False

    def arrive(self, cursor: int) -> None:
        """It was given everything up to the log's end."""
        self.counts, self._is_slow = True, False
        self._held, self._period = 0.0, asyncio.get_running_loop().time()
        self._move(cursor)

    async def advance(self, cursor: int) -> None:
        """It was given a page up to `cursor`, with more behind it.

        Returns when those who count are near, or were waited for.
        """
        # A page may be short, where it ends to meet another's.
        self._page = max(cursor - self.cursor, self._page * 7 // 8, 1)
        reach = REACH * self._page
        self._move(cursor)
        members = self._convoy.members
        if len(members) == 1:
            return
        if not self.counts and not self._is_slow:
            self.counts = max(member.cursor for member in members) - cursor <= reach // 2
        rear = cursor - reach
        late = [each for each in members if each.counts and each.cursor < rear]
        waiters = [member._await(rear) for member in late]
        try:
            for waiter in waiters:
                await waiter
        finally:
            for member, waiter in zip(late, waiters, strict=True):
                waiter.cancel()
                member._forget_waiters()

    def leave(self) -> None:
        """It is not waited for any more."""
        self.counts = False
        for _, waiter in self._awaited:
            if not waiter.done():
                waiter.set_result(None)
        self._forget_waiters()

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        if self._awaited:
            for wanted, waiter in self._awaited:
                if wanted <= cursor and not waiter.done():
                    waiter.set_result(None)
            self._forget_waiters()

    def _await(self, cursor: int) -> asyncio.Future[None]:
        """Done when it is at `cursor`, or does not count any more."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._awaited.append((cursor, waiter))
        if self._left is None:
            self._since = loop.time()
            self._left = loop.call_later(WITHIN.total_seconds(), self.leave)
        return waiter

    def _forget_waiters(self) -> None:
        """Forgets those who do not wait any more, and with the last one stops the clock."""
        self._awaited = [each for each in self._awaited if not each[1].done()]
        if self._left is not None and not self._awaited:
            self._left.cancel()
            self._left = None
            now = asyncio.get_running_loop().time()
            self._held += now - self._since
            past = now - self._period
            if past > PERIOD.total_seconds():
                self._is_slow = self._held > _ALL_THE_TIME * past
                self.counts = self.counts and not self._is_slow
                self._held, self._period = 0.0, now

"""EventManager: the audit log, by cursor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import timedelta

from att_server.core.bell import Bell
from att_server.core.model import Event, EventFilter
from att_server.core.ports import StateStore

WATCH_PAGE = 200


class EventManager:
    """Lists and follows what the other managers have stored."""

    def __init__(
        self, *, store: StateStore, stored: Bell, settle: Callable[[], Awaitable[None]]
    ) -> None:
        """stored: rung by whoever has stored events. settle: returns when nothing is due to be."""
        self._store = store
        self._stored = stored
        self._settle = settle

    async def list(
        self, selected: EventFilter, *, cursor: int, limit: int, tail: bool
    ) -> tuple[Sequence[Event], int, bool]:
        """Up to `limit` selected events, the cursor to go on from, and whether there is more.

        They tell of everything that was shown of apps before.
        """
        await self._settle()
        events, after = await self._store.list_events(
            selected, cursor=cursor, limit=limit, tail=tail
        )
        more, _ = await self._store.list_events(selected, cursor=after, limit=1)
        return events, after, bool(more)

    async def watch(
        self, selected: EventFilter, *, cursor: int | None, progress_interval: timedelta
    ) -> AsyncGenerator[tuple[Sequence[Event], int], None]:
        """Every selected event from `cursor` on (None: from now), as it comes.

        The first item comes at once, items without events report progress.
        """
        if cursor is None:
            _, cursor = await self._store.list_events(EventFilter(), cursor=0, limit=1, tail=True)
        first = True
        while True:
            seen = self._stored.count
            events, cursor = await self._store.list_events(
                selected, cursor=cursor, limit=WATCH_PAGE
            )
            if events or first or not await self._stored.wait(seen, progress_interval):
                yield events, cursor
            first = False

"""Checks of apps by what they print."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import LogChunk, LogGap, LogPage, LogStream, ProbeTarget
from att_server.core.ports import LogStore
from att_server.core.settings import LogProbe
from att_server.core.settings_rules import MAX_PATTERN_MEMORY

if TYPE_CHECKING:
    import re2

_PAGE_BYTES = 256 * 1024
_LOOK_BYTES = 4 * 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024
_MAX_REMEMBERED = 1_000
_THREADS = 2

_Key = tuple[str, str]
"""A run and a pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """How far a run was looked through for a pattern.

    unfinished: by stream, the end of a line that goes on behind `cursor`.
    """

    cursor: int
    matched: bool = False
    unfinished: Mapping[LogStream, bytes] = field(default_factory=dict)


class LogCheck:
    """Looks through a run once: each check goes on where the one before ended.

    A check looks at 4 MiB or a few more, so a long log takes several. What
    matched stays so. A match may span the parts of a long line, up to 64 KiB of
    them.
    """

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs
        # Of their own: a pattern that is slow on long lines takes seconds for one.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="att-pattern")
        self._places: OrderedDict[_Key, _Place] = OrderedDict()
        self._looks: dict[_Key, asyncio.Task[None]] = {}
        self._waiting: Counter[_Key] = Counter()

    async def check(self, probe: LogProbe, target: ProbeTarget) -> Outcome:
        """log_matched or log_not_matched.

        A page that its check is too short for is looked through all the same,
        and the next check goes on behind it.
        """
        key = (target.run_id, probe.pattern)
        if not self._place(key, target).matched:
            look = self._looks.get(key)
            if look is None:
                look = self._looks[key] = asyncio.create_task(self._look(key, target))
                look.add_done_callback(lambda look: self._looked(key, look))
            self._waiting[key] += 1
            try:
                await asyncio.shield(look)
            finally:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key]
        matched = self._place(key, target).matched
        return Outcome(reason="log_matched" if matched else "log_not_matched")

    async def aclose(self) -> None:
        """Ends the looks, a line that is being looked at once that is done."""
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _place(self, key: _Key, target: ProbeTarget) -> _Place:
        return self._places.get(key) or _Place(cursor=target.first_cursor)

    def _looked(self, key: _Key, look: asyncio.Task[None]) -> None:
        del self._looks[key]
        if not look.cancelled():
            look.exception()  # Marks it as seen: no check may be left that waits for it.

    async def _look(self, key: _Key, target: ProbeTarget) -> None:
        # Costs memory that a server without such probes does not need.
        import re2

        options = re2.Options()
        options.max_mem = MAX_PATTERN_MEMORY
        options.log_errors = False
        pattern = re2.compile(key[1].encode(), options)
        place = self._place(key, target)
        looked = 0
        while not place.matched and looked < _LOOK_BYTES and self._waiting[key]:
            page = await self._logs.read(
                target.project_id, target.log_id, cursor=place.cursor, max_bytes=_PAGE_BYTES
            )
            if not page.records:
                break
            place = await asyncio.get_running_loop().run_in_executor(
                self._threads, _look_at, pattern, page, target.run_id, place
            )
            looked += sum(len(r.lines) for r in page.records if isinstance(r, LogChunk))
            self._places[key] = place
            self._places.move_to_end(key)
            if len(self._places) > _MAX_REMEMBERED:
                self._places.popitem(last=False)


def _look_at(pattern: re2._Regexp, page: LogPage, run_id: str, place: _Place) -> _Place:
    """Looks through the page, up to the first match."""
    unfinished = dict(place.unfinished)
    for record in page.records:
        if isinstance(record, LogGap):
            unfinished.clear()
        if not isinstance(record, LogChunk) or record.run_id != run_id:
            continue
        for line in record.lines.split(b"\n")[:-1]:
            text = unfinished.pop(record.stream, b"") + line
            if pattern.search(text) is not None:
                return _Place(cursor=page.cursor, matched=True)
        if record.partial:
            unfinished[record.stream] = text[-_MAX_LINE_BYTES:]
    return _Place(cursor=page.cursor, unfinished=unfinished)

"""Finding what a filter selects in a log: onward from a place, and back from the end."""

from __future__ import annotations

import asyncio

from att_server.core.log_selection import LineSelection, LogFilter
from att_server.core.model import LogBounds, LogChunk, LogPage, LogRecord, Project
from att_server.core.ports import LogStore

SCAN_BYTES = 64 << 20
"""How much of a log one page is looked for in."""

_PAGE_BYTES = 256 << 10
# Records before a place that tell what it inherits, first the nearest.
_LOOK_BACK = (256, 4096, 16_384)
# The tail is looked for in parts of the log, each longer than the one behind it.
_FIRST_PART = 1_000
_PART_FACTOR = 4
_TAIL_RECORDS = 1 << 20
_TAIL_SECONDS = 2.0


class LogSearch:
    """Searches the logs of a store."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    async def select(
        self,
        project: Project,
        selection: LineSelection,
        cursor: int,
        *,
        max_lines: int,
        max_bytes: int,
        scan_bytes: int = SCAN_BYTES,
    ) -> LogPage:
        """The next page of what is selected, as `LogStore.select`.

        Its cursor is the end where nothing behind can be selected, for its time.
        """
        if selection.inherits and selection.cursor != cursor:
            await self._look_back(project, selection, cursor)
        page = await self._store.select(
            project.project_id,
            project.log_id,
            selection,
            cursor=cursor,
            max_lines=max_lines,
            max_bytes=max_bytes,
            scan_bytes=scan_bytes,
        )
        if not selection.past:
            return page
        # Times never decrease.
        return LogPage(records=page.records, cursor=page.bounds.end, bounds=page.bounds)

    async def first_in_time(
        self, project: Project, selected: LogFilter, cursor: int, bounds: LogBounds
    ) -> int:
        """`cursor`, or behind it the first record that did not arrive too early."""
        if selected.start_time is None:
            return cursor
        first = await self._store.seek_time(project.project_id, project.log_id, selected.start_time)
        # Of records before the first one that is kept nobody knows the time.
        return cursor if first <= bounds.start else max(cursor, first)

    async def tail(
        self, project: Project, selected: LogFilter, lines: int, bounds: LogBounds
    ) -> int:
        """The cursor before the last `lines` selected lines, or what was found of them.

        Looks back over about a million records, and for about two seconds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _TAIL_SECONDS
        oldest = max(bounds.start, bounds.end - _TAIL_RECORDS)
        found, stop, size = bounds.end, bounds.end, _FIRST_PART
        while lines > 0 and stop > oldest:
            start = max(oldest, stop - size)
            part = await self._selected_in(project, selected, start, stop, deadline)
            if part is None:
                break
            if part:
                found = part[max(0, len(part) - lines)]
                lines -= len(part)
            stop, size = start, size * _PART_FACTOR
        return found

    async def _selected_in(
        self, project: Project, selected: LogFilter, start: int, stop: int, deadline: float
    ) -> list[int] | None:
        """The sequence numbers of the selected lines of a part; None: there was no time."""
        loop = asyncio.get_running_loop()
        selection = LineSelection(selected)
        found: list[int] = []
        cursor = start
        while cursor < stop and not selection.past:
            if cursor > start and loop.time() > deadline:
                return None
            page = await self.select(
                project, selection, cursor, max_lines=stop - cursor, max_bytes=SCAN_BYTES
            )
            for record in page.records:
                if isinstance(record, LogChunk):
                    places = record.offsets or range(record.line_count)
                    found += [record.first_sequence + place for place in places]
            if page.cursor == cursor:
                break
            cursor = page.cursor
        return [sequence for sequence in found if sequence < stop]

    async def _look_back(self, project: Project, selection: LineSelection, cursor: int) -> None:
        """Has the selection know what the line at `cursor` inherits, as far as it is near."""
        project_id, log_id = project.project_id, project.log_id
        start = (await self._store.bounds(project_id, log_id)).start
        known = selection.look_back((), cursor)
        stop = cursor
        for distance in _LOOK_BACK:
            begin = max(start, cursor - distance)
            if known or begin >= stop:
                return
            records: list[LogRecord] = []
            at = begin
            while at < stop:
                page = await self._store.read(project_id, log_id, cursor=at, max_bytes=_PAGE_BYTES)
                if not page.records:
                    return
                records += page.records
                at = page.cursor
            while records and records[-1].first_sequence >= stop:
                records.pop()
            last = records[-1]
            if isinstance(last, LogChunk) and last.next_sequence > stop:
                records[-1] = last.slice(last.first_sequence, stop)
            known = selection.look_back(records, cursor)
            stop = begin

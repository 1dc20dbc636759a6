"""LogManager: pages and streams of a project's log, by cursor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from weakref import WeakValueDictionary

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.log_convoy import Convoy
from att_server.core.log_search import LogSearch
from att_server.core.log_selection import Gathering, LineSelection, LogFilter, LogPosition
from att_server.core.model import (
    LogBounds,
    LogChunk,
    LogPage,
    Project,
    RunEnded,
    RunStarted,
)
from att_server.core.ports import LogStore

ALL = LogFilter()
"""Selects every record."""

PAGE_BYTES = 256 * 1024
"""What one read of the store asks for: followers of one place share such pages."""

_FOLLOW_SCAN_BYTES = 8 << 20

END_KNOWN_WITHIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRead:
    """A page with what the reader has to know about its place.

    truncated: the cursor asked for lay below the log's start, by `skipped` numbers.
    """

    page: LogPage
    truncated: bool
    skipped: int
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The next page of a followed log; without records it only reports progress.

    bound_run_id: the run whose end ends the stream; empty: none yet.
    """

    page: LogPage
    bound_run_id: str


class _LogBell(Bell):
    """Rings when a log grew. read: the page up to its end that was read last, and for which
    ring, cursor and size. ended: for which of them that was the end of the log indeed. convoy:
    those who follow all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: tuple[tuple[int, int, int], LogPage] | None = None
        self.ended: tuple[int, int] | None = None
        self.convoy = Convoy()


class LogManager:
    """Reads and follows logs. It keeps a position per follower, never a queue."""

    def __init__(
        self,
        *,
        store: LogStore,
        find_project: Callable[[str], Project],
        current_run: Callable[[str], str],
    ) -> None:
        """find_project raises PROJECT_NOT_FOUND; current_run is empty while no app runs."""
        self._store = store
        self._search = LogSearch(store)
        self._find_project = find_project
        self._current_run = current_run
        self._bells: WeakValueDictionary[str, _LogBell] = WeakValueDictionary()

    async def read(
        self,
        project_id: str,
        position: LogPosition,
        *,
        limit: int,
        max_bytes: int,
        selected: LogFilter = ALL,
    ) -> LogRead:
        """What is selected from `position` on: up to `limit` lines and `max_bytes` bytes of lines.

        Never waits for more. The page's cursor is behind what was looked at, selected
        or not; a filtered page looks at up to 64 MiB of the log. Raises
        PROJECT_NOT_FOUND, LOG_CURSOR_AHEAD.
        """
        project = self._find_project(project_id)
        asked, bounds = await self._resolve(project, position, selected)
        if selected == ALL:
            page = await self._read_all(project, asked, bounds, limit, max_bytes)
        else:
            selection = LineSelection(selected)
            page = await self._search.select(
                project,
                selection,
                await self._search.first_in_time(project, selected, asked, bounds),
                max_lines=limit,
                max_bytes=max_bytes,
            )
        page = _not_before(page, bounds)
        bounds = page.bounds
        start = max(bounds.start, min(asked, bounds.end))
        return LogRead(
            page=page,
            truncated=asked < start,
            skipped=start - asked,
            has_more=page.cursor < bounds.end,
        )

    async def follow(
        self,
        project_id: str,
        position: LogPosition,
        *,
        until_exit: bool = False,
        until_run_id: str = "",
        progress_interval: timedelta,
        max_bytes: int = PAGE_BYTES,
        selected: LogFilter = ALL,
    ) -> AsyncGenerator[Followed, None]:
        """What is selected from `position` on, as it comes; the first page comes at once.

        A page without records tells how far it got, where nothing was selected for
        `progress_interval`, and once that it came to the end. Ends when the bound run
        has ended and all of it was given: the run `until_run_id`, or with `until_exit`
        the current run; without one the last run if its end lies behind the position,
        else the next. Ends also where nothing later can be selected, for its time.
        Otherwise it ends only by raising PROJECT_NOT_FOUND, when the project is
        deleted.
        """
        project = self._find_project(project_id)
        cursor, bounds = await self._resolve(project, position, selected)
        selection = None
        if selected != ALL:
            # The markers of the bound run are looked for below.
            selection = LineSelection(selected, markers=True)
            cursor = await self._search.first_in_time(project, selected, cursor, bounds)
        until_exit = until_exit or bool(until_run_id)
        bound_run = until_run_id
        if until_exit and not bound_run:
            bound_run = await self._run_ahead(project, cursor, bounds)
        bind_from = bounds.end
        bell = self._bells.setdefault(project_id, _LogBell())
        loop, silence = asyncio.get_running_loop(), progress_interval.total_seconds()
        # When a page without records is given all the same, the first one at once.
        due = loop.time()
        came_to_end = False
        # Who selects has another pace.
        convoy = bell.convoy if selection is None else Convoy()
        with convoy.member(cursor) as place:
            while True:
                if self._find_project(project_id).log_id != project.log_id:
                    raise AttError(
                        Reason.PROJECT_NOT_FOUND,
                        f"The project {project_id!r} was deleted and created anew. "
                        "Follow the new one from its beginning.",
                        project_id=project_id,
                    )
                # Both are looked at before the read: what they report then lies in it.
                seen = bell.count
                run_over = self._is_over(project_id, bound_run)
                if selection is None:
                    page = await self._shared_page(project, bell, seen, cursor, max_bytes)
                else:
                    page = await self._search.select(
                        project,
                        selection,
                        cursor,
                        max_lines=max_bytes,
                        max_bytes=max_bytes,
                        scan_bytes=_FOLLOW_SCAN_BYTES,
                    )
                page = _not_before(page, bounds)
                moved = page.cursor > cursor
                over = False
                if page.records and until_exit:
                    bound_run, page, over = _bind(page, bound_run, bind_from)
                past = False
                if selection is not None:
                    page, past = _without_markers(page, selection), selection.past
                now = loop.time()
                if page.cursor == page.bounds.end and not came_to_end:
                    came_to_end, due = True, now
                if page.records or run_over or over or past or now >= due:
                    yield Followed(page=page, bound_run_id=bound_run)
                    due = now + silence
                if over:
                    await self._end_known(project_id, bound_run, bell)
                if over or past or (run_over and not moved):
                    return
                cursor = page.cursor
                if cursor < page.bounds.end:
                    await place.advance(cursor)
                else:
                    place.arrive(cursor)
                if (
                    cursor == page.bounds.end
                    and not self._is_over(project_id, bound_run)
                    and self._ended(project, bell, seen, cursor)
                ):
                    await bell.wait(seen, timedelta(seconds=max(0.0, due - loop.time())))

    async def end_cursor(self, project_id: str) -> int:
        """The sequence number that the next record will get."""
        project = self._find_project(project_id)
        return (await self._store.bounds(project_id, project.log_id)).end

    async def last_lines(self, project_id: str, run_id: str, lines: int) -> list[str]:
        """The text of a run's up to `lines` last lines, with replacement characters.

        Empty where another run has printed so many since.
        """
        read = await self.read(
            project_id, LogPosition(tail=lines), limit=lines, max_bytes=PAGE_BYTES
        )
        texts: list[str] = []
        for record in read.page.records:
            if isinstance(record, LogChunk) and record.run_id == run_id:
                texts += record.lines.decode(errors="replace").split("\n")[:-1]
        return texts

    def grew(self, project_id: str) -> None:
        """Wakes the project's followers: there is more, its run ended, or it is gone."""
        bell = self._bells.get(project_id)
        if bell is not None:
            bell.ring()

    async def _shared_page(
        self, project: Project, bell: _LogBell, seen: int, cursor: int, max_bytes: int
    ) -> LogPage:
        """The page at `cursor`, read once for all followers that are there and saw as many rings.

        What was written since it was read, nobody was told of yet: they will be woken.
        """
        place = (seen, cursor, max_bytes)
        if bell.read is not None and bell.read[0] == place:
            return bell.read[1]
        project_id, log_id = project.project_id, project.log_id
        page = self._store.fresh(project_id, log_id, cursor=cursor, max_bytes=max_bytes)
        if page is None:
            page = await self._store.read(project_id, log_id, cursor=cursor, max_bytes=max_bytes)
        if page.records and page.cursor == page.bounds.end:
            bell.read = place, page
        return page

    def _ended(self, project: Project, bell: _LogBell, seen: int, cursor: int) -> bool:
        """Whether the log ends at `cursor`, where a page ended; looked at once for all followers.

        After the page was given out, since this takes longer than reading a line.
        """
        if bell.ended != (seen, cursor):
            if self._store.goes_on(project.project_id, project.log_id):
                return False
            bell.ended = seen, cursor
        return True

    def _is_over(self, project_id: str, run_id: str) -> bool:
        """Whether this run, if there is one, does not run any more."""
        return bool(run_id) and self._current_run(project_id) != run_id

    async def _end_known(self, project_id: str, run_id: str, bell: Bell) -> None:
        """Waits, not for long, until the runtime knows of the end that the log tells.

        The marker is written first; who follows to the end and then asks how the
        run ended must not be told that it still runs.
        """
        seen = bell.count
        while self._current_run(project_id) == run_id:
            if not await bell.wait(seen, END_KNOWN_WITHIN):
                return
            seen = bell.count

    async def _run_ahead(self, project: Project, cursor: int, bounds: LogBounds) -> str:
        """The current run, or the last one if its end lies behind `cursor`; else empty."""
        run_id = self._current_run(project.project_id)
        if run_id or cursor >= bounds.end:
            return run_id
        # Nothing follows the end of a run but the next run.
        page = await self._store.read(
            project.project_id, project.log_id, cursor=bounds.end - 1, max_bytes=PAGE_BYTES
        )
        last = page.records[-1] if page.records else None
        return last.run_id if isinstance(last, RunEnded) else ""

    async def _read_all(
        self, project: Project, cursor: int, bounds: LogBounds, limit: int, max_bytes: int
    ) -> LogPage:
        page = Gathering(LineSelection(ALL), cursor=cursor, max_lines=limit, max_bytes=max_bytes)
        while not page.ended:
            part = await self._store.read(
                project.project_id,
                project.log_id,
                cursor=page.cursor,
                max_bytes=min(page.bytes_left, PAGE_BYTES),
            )
            bounds = part.bounds
            if not part.records:
                break
            page.add_all(part.records)
        return LogPage(records=tuple(page.records), cursor=page.cursor, bounds=bounds)

    async def _resolve(
        self, project: Project, position: LogPosition, selected: LogFilter
    ) -> tuple[int, LogBounds]:
        """The cursor that `position` means now, and what the log holds."""
        project_id, log_id = project.project_id, project.log_id
        bounds = await self._store.bounds(project_id, log_id)
        if position.cursor is not None:
            if position.cursor > bounds.end or position.log_id not in ("", log_id):
                raise _cursor_ahead(project, position, bounds)
            return position.cursor, bounds
        if position.tail is not None:
            if selected != ALL:
                return await self._search.tail(project, selected, position.tail, bounds), bounds
            return await self._store.seek_tail(project_id, log_id, position.tail), bounds
        if position.since is not None:
            return await self._store.seek_time(project_id, log_id, position.since), bounds
        return (bounds.end if position.at_end else bounds.start), bounds


def _cursor_ahead(project: Project, position: LogPosition, bounds: LogBounds) -> AttError:
    cursor = position.cursor
    if position.log_id not in ("", project.log_id):
        text = (
            f"The cursor {cursor} belongs to log {position.log_id!r}, but the project "
            f"{project.project_id!r} was created anew and has log {project.log_id!r}. "
            "Read it from its beginning."
        )
    else:
        text = (
            f"The cursor {cursor} lies above the end {bounds.end} of the log of "
            f"{project.project_id!r}. Go on from a cursor that a response gave."
        )
    return AttError(
        Reason.LOG_CURSOR_AHEAD,
        text,
        project_id=project.project_id,
        cursor=cursor,
        end_cursor=bounds.end,
        log_id=project.log_id,
    )


def _bind(page: LogPage, bound_run: str, bind_from: int) -> tuple[str, LogPage, bool]:
    """Looks in `page` for the start of the run to bind, if none is, and for its end.

    Returns the bound run, the page up to the end marker, and whether it was there.
    """
    for index, record in enumerate(page.records):
        if isinstance(record, RunStarted) and not bound_run and record.sequence >= bind_from:
            bound_run = record.run_id
        elif isinstance(record, RunEnded) and bound_run and record.run_id == bound_run:
            cut = LogPage(
                records=page.records[: index + 1],
                cursor=record.next_sequence,
                bounds=page.bounds,
            )
            return bound_run, cut, True
    return bound_run, page, False


def _not_before(page: LogPage, bounds: LogBounds) -> LogPage:
    """The page, with an end that is not behind `bounds`.

    One that others read may be a little older than who asks now.
    """
    if page.bounds.end >= bounds.end:
        return page
    start = max(page.bounds.start, bounds.start)
    return replace(page, bounds=replace(bounds, start=start))


def _without_markers(page: LogPage, selection: LineSelection) -> LogPage:
    """The page without the run markers that are not selected."""
    kept = tuple(
        record
        for record in page.records
        if not isinstance(record, (RunStarted, RunEnded)) or selection.takes(record)
    )
    return LogPage(records=kept, cursor=page.cursor, bounds=page.bounds)

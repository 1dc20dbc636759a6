"""LogManager: pages and streams of a project's log, by cursor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from weakref import WeakValueDictionary

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    LogBounds,
    LogChunk,
    LogPage,
    LogPosition,
    LogRecord,
    Project,
    RunEnded,
    RunStarted,
)
from att_server.core.ports import LogStore

PAGE_BYTES = 256 * 1024
"""What one read of the store asks for: followers of one place share such pages."""

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
        self._find_project = find_project
        self._current_run = current_run
        self._bells: WeakValueDictionary[str, Bell] = WeakValueDictionary()

    async def read(
        self, project_id: str, position: LogPosition, *, limit: int, max_bytes: int
    ) -> LogRead:
        """The records from `position` on: up to `limit` lines and `max_bytes` bytes of lines.

        Never waits for more. Raises PROJECT_NOT_FOUND, LOG_CURSOR_AHEAD.
        """
        project = self._find_project(project_id)
        asked, bounds = await self._resolve(project, position)
        gathered: list[LogRecord] = []
        cursor, lines_left, bytes_left = asked, limit, max_bytes
        while lines_left > 0 and bytes_left > 0:
            page = await self._store.read(
                project_id, project.log_id, cursor=cursor, max_bytes=min(bytes_left, PAGE_BYTES)
            )
            bounds = page.bounds
            if not page.records:
                break
            for record in page.records:
                if isinstance(record, LogChunk):
                    fitting = _fit(record, lines_left, bytes_left, first=not gathered)
                    if fitting is not record:
                        bytes_left = 0
                    if fitting is None:
                        break
                    record = fitting
                    lines_left -= record.line_count
                    bytes_left -= len(record.lines)
                gathered.append(record)
                cursor = record.next_sequence
                if lines_left <= 0 or bytes_left <= 0:
                    break
        start = max(bounds.start, min(asked, bounds.end))
        return LogRead(
            page=LogPage(records=tuple(gathered), cursor=cursor, bounds=bounds),
            truncated=asked < start,
            skipped=start - asked,
            has_more=cursor < bounds.end,
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
    ) -> AsyncGenerator[Followed, None]:
        """Every record from `position` on, as it comes; the first page comes at once.

        Ends when the bound run has ended and all of it was given: the run
        `until_run_id`, or with `until_exit` the current run; without one the last
        run if its end lies behind the position, else the next.
        Otherwise it ends only by raising PROJECT_NOT_FOUND, when the project is
        deleted.
        """
        project = self._find_project(project_id)
        cursor, bounds = await self._resolve(project, position)
        until_exit = until_exit or bool(until_run_id)
        bound_run = until_run_id
        if until_exit and not bound_run:
            bound_run = await self._run_ahead(project, cursor, bounds)
        bind_from = bounds.end
        bell = self._bells.setdefault(project_id, Bell())
        # Whether this page reports progress if it holds no records.
        due = True
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
            page = await self._store.read(
                project_id, project.log_id, cursor=cursor, max_bytes=max_bytes
            )
            over = False
            if page.records and until_exit:
                bound_run, page, over = _bind(page, bound_run, bind_from)
            if page.records or due or run_over:
                yield Followed(page=page, bound_run_id=bound_run)
            if over:
                await self._end_known(project_id, bound_run, bell)
                return
            if run_over and not page.records:
                return
            due = False
            cursor = page.cursor
            if cursor < page.bounds.end or self._is_over(project_id, bound_run):
                continue
            due = not await bell.wait(seen, progress_interval)

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

    async def _resolve(self, project: Project, position: LogPosition) -> tuple[int, LogBounds]:
        """The cursor that `position` means now, and what the log holds."""
        project_id, log_id = project.project_id, project.log_id
        bounds = await self._store.bounds(project_id, log_id)
        if position.cursor is not None:
            if position.cursor > bounds.end or position.log_id not in ("", log_id):
                raise _cursor_ahead(project, position, bounds)
            return position.cursor, bounds
        if position.tail is not None:
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


def _fit(chunk: LogChunk, lines_left: int, bytes_left: int, *, first: bool) -> LogChunk | None:
    """The first lines of `chunk` within the bounds: all of it, a part, or None.

    The first line of a page always fits.
    """
    count = min(chunk.line_count, lines_left)
    if len(chunk.lines) > bytes_left:
        count = min(count, max(chunk.lines.count(b"\n", 0, bytes_left), 1 if first else 0))
    if count == 0:
        return None
    return chunk.slice(chunk.first_sequence, chunk.first_sequence + count)


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

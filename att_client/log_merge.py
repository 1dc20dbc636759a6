"""Several logs as one, by the time at which their lines arrived.

A log is waited for as long as it holds more than was read of it: something older
may come. One that was read to its end is not, so what comes then is given at once.
"""

from __future__ import annotations

import asyncio
import heapq
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from att_client.errors import AttError, ClosedError, ProjectNotFoundError
from att_client.log_batch import LogBatch
from att_client.log_items import LogItem
from att_client.log_messages import follow_response
from att_client.log_order import split
from att_client.log_page import Chunk, Page, Part
from att_client.log_reader import FollowedLog, PageReader
from att_client.runtime_watch import RuntimeWatch

OpenLog = Callable[[str, bool], FollowedLog]
"""Opens the log of a project; of one that was created anew, with True, from its beginning."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class ProjectItem(NamedTuple):
    """An item of merged logs, and whose it is."""

    project_id: str
    item: LogItem


class ProjectBatch(NamedTuple):
    """Consecutive records of one project in merged logs."""

    project_id: str
    batch: LogBatch


class LogMerge:
    """The logs of several projects, by time, and everything that comes.

    `async for project_id, item in merge` gives the items of `LogFollow`; `async for
    project_id, batch in merge.batches()` the records that follow one another in one
    log. Order and completeness within a project are those of `LogFollow`. Lines of
    different projects come by their time, but for those that arrive just now: the
    one that is known first comes first.

    Leaving the loop closes the calls; a later loop on the same object goes on behind
    what was given out.
    """

    def __init__(
        self,
        open_log: OpenLog,
        project_ids: Sequence[str],
        watch: RuntimeWatch | None,
        *,
        goes_on: bool,
    ) -> None:
        """watch: tells of projects that are added, with `goes_on` also of later ones."""
        self._open_log = open_log
        self._logs: dict[str, FollowedLog] = {}
        self._project_ids = project_ids
        self._watch = watch
        self._goes_on = goes_on
        # The loop that goes on belongs to who runs it: dropped there, it is closed.
        self._loop: weakref.ref[Merged] | None = None
        self._closed = False

    @property
    def cursors(self) -> Mapping[str, int]:
        """Where to go on in each project, behind what was given out last.

        A project of which nothing was heard yet is not there.
        """
        found = ((name, log.cursor) for name, log in self._logs.items())
        return {name: cursor for name, cursor in found if cursor is not None}

    def __aiter__(self) -> AsyncIterator[ProjectItem]:
        return _Items(self._new_loop())

    def batches(self) -> AsyncIterator[ProjectBatch]:
        """The records by time, as many at once as follow one another in one project.

        Run markers are always among them.
        """
        return _Batches(self._new_loop())

    async def aclose(self) -> None:
        """Closes the calls. A loop that still waits raises ClosedError."""
        self._closed = True
        self._close_loop()

    def _new_loop(self) -> Merged:
        """What reads on from here. Closes the one before. Raises ClosedError."""
        if self._closed:
            raise ClosedError("The merge was closed.")
        self._close_loop()
        loop = Merged(self._log, self._project_ids, self._watch, goes_on=self._goes_on)
        self._loop = weakref.ref(loop)
        return loop

    def _close_loop(self) -> None:
        loop = None if self._loop is None else self._loop()
        if loop is not None:
            loop.close()

    def _log(self, project_id: str, is_new: bool) -> FollowedLog:
        if is_new or project_id not in self._logs:
            self._logs[project_id] = self._open_log(project_id, is_new)
        return self._logs[project_id]


class MergedPage(NamedTuple):
    """The next records, all of one project; `log` gives their items out."""

    project_id: str
    log: FollowedLog
    page: Page


class _Source:
    """One of the logs, and the page of it that comes next."""

    def __init__(self, project_id: str, log: FollowedLog, number: int, *, may_go: bool) -> None:
        """may_go: whether the project may be deleted without a word."""
        self.project_id = project_id
        self.log = log
        self.number = number
        self.may_go = may_go
        self.page: Page | None = None
        self.failure: AttError | None = None
        self.taken = asyncio.Event()
        self._time = _BEGINNING

    def next_time(self) -> datetime:
        """When the first part of the page arrived; what has no time, with what is before."""
        assert self.page is not None
        self._time = _time(self.page.parts[0]) or self._time
        return self._time

    def take(self, until: datetime | None) -> tuple[Page, Page | None]:
        """The page's parts that arrived up to then, at least one, and the rest."""
        page = self.page
        assert page is not None
        if until is not None:
            for index, part in enumerate(page.parts[1:], 1):
                time = _time(part)
                if time is not None and time > until:
                    return split(page, index)
        return page, None


class _Inbox:
    """What the tasks of a merge have brought."""

    def __init__(self, project_ids: Sequence[str], *, is_complete: bool) -> None:
        self.news = asyncio.Event()
        self.sources: deque[_Source] = deque()
        self.project_ids: deque[str] = deque(project_ids)
        self.is_complete = is_complete
        self.failure: AttError | None = None


class Merged:
    """The pages of one loop over merged logs. Dropping it closes the calls."""

    def __init__(
        self,
        find_log: OpenLog,
        project_ids: Sequence[str],
        watch: RuntimeWatch | None,
        *,
        goes_on: bool,
    ) -> None:
        self._find_log = find_log
        self._may_go = watch is not None
        self._inbox = _Inbox(project_ids, is_complete=watch is None)
        self._opened: set[str] = set()
        self._live: dict[_Source, PageReader] = {}
        self._behind: set[_Source] = set()
        self._ready: list[tuple[datetime, int, _Source]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        if watch is not None:
            task = asyncio.ensure_future(_tell_projects(watch, self._inbox, goes_on=goes_on))
            self._tasks.append(task)

    def __aiter__(self) -> Merged:
        return self

    async def __anext__(self) -> MergedPage:
        while True:
            if self._closed:
                raise ClosedError("The merge was closed.")
            try:
                self._sort_in()
            except BaseException:
                self.close()
                raise
            if self._ready and not self._behind:
                return self._take()
            if not self._live and self._inbox.is_complete:
                raise StopAsyncIteration
            self._inbox.news.clear()
            await self._inbox.news.wait()

    def close(self) -> None:
        """Ends the calls. A wait raises ClosedError."""
        self._closed = True
        self._inbox.news.set()
        for reader in self._live.values():
            reader.close()
        for task in self._tasks:
            task.cancel()

    def __del__(self) -> None:
        self.close()

    def _sort_in(self) -> None:
        if self._inbox.failure is not None:
            raise self._inbox.failure
        while self._inbox.project_ids:
            self._open(self._inbox.project_ids.popleft())
        while self._inbox.sources:
            source = self._inbox.sources.popleft()
            if source.failure is not None:
                if not (source.may_go and isinstance(source.failure, ProjectNotFoundError)):
                    raise source.failure
                self._end(source)
            elif source.page is None:
                self._end(source)
            elif source.page.parts:
                self._behind.discard(source)
                heapq.heappush(self._ready, (source.next_time(), source.number, source))
            else:
                source.log.go_to(source.page.cursor)
                self._ask(source, source.page)

    def _open(self, project_id: str) -> None:
        log = self._find_log(project_id, project_id in self._opened)
        self._opened.add(project_id)
        source = _Source(project_id, log, len(self._tasks), may_go=self._may_go)
        reader = log.new_reader()
        self._live[source] = reader
        self._behind.add(source)
        self._tasks.append(asyncio.ensure_future(_bring(source, reader, self._inbox)))

    def _end(self, source: _Source) -> None:
        self._live.pop(source)
        self._behind.discard(source)

    def _ask(self, source: _Source, page: Page) -> None:
        """Has the next page brought, behind `page`."""
        if page.cursor < page.end_cursor:
            self._behind.add(source)
        else:
            self._behind.discard(source)
        source.page = None
        source.taken.set()

    def _take(self) -> MergedPage:
        _, _, source = heapq.heappop(self._ready)
        page, rest = source.take(self._ready[0][0] if self._ready else None)
        if rest is None:
            self._ask(source, page)
        else:
            source.page = rest
            heapq.heappush(self._ready, (source.next_time(), source.number, source))
        return MergedPage(source.project_id, source.log, page)


# Not methods: a task that held the merge would keep it from being dropped.


async def _bring(source: _Source, reader: PageReader, inbox: _Inbox) -> None:
    """Brings the source's pages, each once the one before was taken."""
    is_over = False
    while not is_over:
        try:
            source.page = await reader.read()
            is_over = source.page is None
        except AttError as error:
            source.failure, is_over = error, True
        source.taken.clear()
        inbox.sources.append(source)
        inbox.news.set()
        if not is_over:
            await source.taken.wait()


async def _tell_projects(watch: RuntimeWatch, inbox: _Inbox, *, goes_on: bool) -> None:
    """Tells of all projects; with `goes_on` of each that is created, too."""
    told: set[str] = set()
    try:
        async for change in watch:
            ids = {runtime.project_id for runtime in change.runtimes}
            inbox.project_ids += sorted(ids - told)
            told = (told | ids) - set(change.deleted_project_ids)
            inbox.is_complete = not goes_on
            inbox.news.set()
            if not goes_on:
                return
    except AttError as error:
        inbox.failure = error
        inbox.news.set()


class _Batches:
    """The batches of one loop."""

    def __init__(self, merged: Merged) -> None:
        self._merged = merged

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> ProjectBatch:
        project_id, log, page = await anext(self._merged)
        log.go_to(page.cursor)
        return ProjectBatch(project_id, follow_response(page))


class _Items:
    """The items of one loop."""

    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self._project_id = ""
        self._items: Iterator[LogItem] = iter(())

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> ProjectItem:
        while True:
            try:
                for item in self._items:
                    return ProjectItem(self._project_id, item)
            except BaseException:
                # The rest of the page is lost: nothing may come after it.
                self._merged.close()
                raise
            self._project_id, log, page = await anext(self._merged)
            self._items = log.items(page)


def _time(part: Part) -> datetime | None:
    return part.time() if isinstance(part, Chunk) else getattr(part, "time", None)

"""The log store: reads the segments that supervisors write."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

from att_server.adapters.open_segments import OpenSegments
from att_server.adapters.project_log import ProjectLog
from att_server.adapters.segment_sweep import MAX_SECONDS
from att_server.core.errors import AttError, Reason
from att_server.core.log_facts import FreeSpace, LogInfo, LogSegment
from att_server.core.log_selection import Gathering, LineSelection
from att_server.core.model import GapReason, LogBounds, LogChunk, LogPage

_CACHE_BYTES = 4 << 20
_RECORD_BYTES = 512
_OPEN_SEGMENTS = 128
# A page from before the end may be handed out with bounds of this age.
_FRESH_SECONDS = 0.25
# What a follower asks for: a filtered one shares its pages.
_PAGE_BYTES = 256 << 10
# So little is looked through at once.
_SHORT_BYTES = 16 << 10
_THREADS = 2
# How often a question is asked anew because segments were removed under it.
_TRIES = 10

_T = TypeVar("_T")


class SegmentLogStore:
    """Reads logs under `state_dir` (`core.ports.LogStore`).

    cache_bytes: bound of the pages kept for readers at the same place.
    """

    def __init__(self, state_dir: Path, *, cache_bytes: int = _CACHE_BYTES) -> None:
        self._projects = state_dir / "projects"
        self._opened = OpenSegments(_OPEN_SEGMENTS)
        self._logs: dict[str, tuple[str, ProjectLog]] = {}
        self._pages = _PageCache(cache_bytes)
        # Of their own: a pattern may take long.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="att-select")
        self._tending = ThreadPoolExecutor(1, thread_name_prefix="att-index")

    async def bounds(self, project_id: str, log_id: str) -> LogBounds:
        """What the log holds now; 0 to 0 before the first record."""
        return await self._ask(project_id, log_id, ProjectLog.look)

    async def read(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage:
        """The page from `cursor` on. Raises ValueError for a cursor beyond the end."""
        key = (log_id, cursor, max_bytes)
        log = self._log(project_id, log_id)
        fresh = log.fresh_page(cursor, max_bytes)
        if fresh is not None and not log.goes_on:
            return fresh

        async def page(log: ProjectLog) -> LogPage:
            newest = log.newest_page(cursor, max_bytes)
            if newest is not None:
                return newest
            kept = self._pages.get(key)
            if kept is not None:
                if kept.page.cursor < kept.page.bounds.end:
                    if monotonic() - kept.time < _FRESH_SECONDS:
                        return kept.page
                elif kept.page.bounds == log.known and not log.grown:
                    return kept.page
                if kept.whole and cursor >= log.known.start:
                    bounds = await log.look()
                    records, after = kept.page.records, kept.page.cursor
                    page = LogPage(records=records, cursor=after, bounds=bounds)
                    self._pages.put(key, page, whole=True, leads=kept.leads)
                    return page
            # Who reads behind others comes to pages that begin where theirs do.
            until = self._pages.next_lead(key)
            page, whole = await log.page(cursor, max_bytes, until=until)
            self._pages.put(key, page, whole=whole, leads=whole and page.cursor != until)
            return page

        return await self._ask(project_id, log_id, page)

    def fresh(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage | None:
        """What is new at `cursor`, if that was the end and it can be had at once."""
        return self._log(project_id, log_id).fresh_page(cursor, max_bytes)

    def goes_on(self, project_id: str, log_id: str) -> bool:
        """Whether a segment has begun that was not looked at yet."""
        return self._log(project_id, log_id).goes_on

    async def select(
        self,
        project_id: str,
        log_id: str,
        selection: LineSelection,
        *,
        cursor: int,
        max_lines: int,
        max_bytes: int,
        scan_bytes: int,
    ) -> LogPage:
        """What is selected from `cursor` on, of about `scan_bytes` bytes of the log."""
        page = Gathering(selection, cursor=cursor, max_lines=max_lines, max_bytes=max_bytes)
        left, deadline = scan_bytes, monotonic() + MAX_SECONDS
        bounds = self._log(project_id, log_id).known
        while left > 0 and not page.ended and monotonic() < deadline:
            # As every reader, from pages that are shared; what is odd is told there.
            part = await self.read(project_id, log_id, cursor=page.cursor, max_bytes=_PAGE_BYTES)
            bounds = part.bounds
            size = sum(len(r.lines) for r in part.records if isinstance(r, LogChunk))
            if size <= _SHORT_BYTES:
                page.add_all(part.records)
            else:
                await asyncio.get_running_loop().run_in_executor(
                    self._threads, page.add_all, part.records
                )
            left -= size
            if page.cursor == bounds.end:
                break
            # A long way lies ahead.
            left -= await self._ask(project_id, log_id, partial(_sweep, page, self._threads, left))
        return LogPage(records=tuple(page.records), cursor=page.cursor, bounds=bounds)

    async def seek_tail(self, project_id: str, log_id: str, lines: int) -> int:
        """The cursor before the last `lines` lines; the start if there are fewer."""
        return await self._ask(project_id, log_id, lambda log: log.seek_tail(lines))

    async def seek_time(self, project_id: str, log_id: str, time: datetime) -> int:
        """The cursor before the first record that arrived at or after `time`, else the end."""
        return await self._ask(project_id, log_id, lambda log: log.seek_time(time))

    async def segments(self, project_id: str, log_id: str) -> Sequence[LogSegment]:
        """The log's segments, in order."""
        return await self._ask(project_id, log_id, ProjectLog.segments)

    async def remove(
        self, project_id: str, log_id: str, *, before: int, reason: GapReason
    ) -> LogBounds:
        """Removes complete segments that lie before a sequence number as a whole."""
        try:
            left = await self._ask(project_id, log_id, lambda log: log.remove(before, reason))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise AttError(
                Reason.STORAGE_FULL,
                "There is no space left to note what is removed. Free some and call again.",
                path=self._projects / project_id,
            ) from error
        finally:
            self._pages.drop(log_id)
        return left

    async def info(self, project_id: str, log_id: str, *, since: datetime) -> LogInfo:
        """The log's range, size, and pace since a time."""
        return await self._ask(project_id, log_id, lambda log: log.info(since))

    async def tend(self, project_id: str, log_id: str) -> bool:
        """Makes the index of a complete segment, if there is one without."""
        return await self._ask(project_id, log_id, lambda log: log.make_index(self._tending))

    async def free_space(self) -> FreeSpace:
        """The room on the file system of the state directory."""
        found = await asyncio.to_thread(os.statvfs, self._projects.parent)
        return FreeSpace(
            free_bytes=found.f_bavail * found.f_frsize, total_bytes=found.f_blocks * found.f_frsize
        )

    async def delete(self, project_id: str) -> None:
        """Removes the project's segments and head; without effect if there are none."""
        self._drop(project_id)
        await asyncio.to_thread(_remove, self._projects / project_id / "logs")

    async def aclose(self) -> None:
        """Closes all files."""
        for project_id in list(self._logs):
            self._drop(project_id)
        self._opened.close()
        for threads in (self._threads, self._tending):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self, project_id: str, log_id: str, question: Callable[[ProjectLog], Awaitable[_T]]
    ) -> _T:
        log = self._log(project_id, log_id)
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                return await question(log)
            # A segment was removed since it was seen.
            log.list_segments()
        return await question(log)

    def _log(self, project_id: str, log_id: str) -> ProjectLog:
        kept = self._logs.get(project_id)
        if kept is not None and kept[0] == log_id:
            return kept[1]
        self._drop(project_id)
        log = ProjectLog(self._projects / project_id / "logs", log_id, self._opened)
        self._logs[project_id] = (log_id, log)
        return log

    def _drop(self, project_id: str) -> None:
        kept = self._logs.pop(project_id, None)
        if kept is not None:
            kept[1].close()
            self._pages.drop(kept[0])


def _sweep(
    page: Gathering, threads: ThreadPoolExecutor, max_bytes: int, log: ProjectLog
) -> Awaitable[int]:
    return log.sweep(page, threads, max_bytes=max_bytes)


class _Kept:
    """A page. whole: it stays as it is. leads: it is as large as was asked for."""

    __slots__ = ("leads", "page", "size", "time", "whole")

    def __init__(self, page: LogPage, whole: bool, leads: bool, size: int) -> None:
        self.page = page
        self.whole = whole
        self.leads = leads
        self.size = size
        self.time = monotonic()


_Key = tuple[str, int, int]


class _PageCache:
    """The pages read last, by log, cursor and bytes asked for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._pages: OrderedDict[_Key, _Kept] = OrderedDict()
        # Where those that lead begin, ascending, by log and bytes asked for.
        self._leads: dict[tuple[str, int], list[int]] = {}

    def get(self, key: _Key) -> _Kept | None:
        kept = self._pages.get(key)
        if kept is not None:
            self._pages.move_to_end(key)
        return kept

    def next_lead(self, key: _Key) -> int | None:
        """Where behind the key's cursor the next page that leads begins."""
        log_id, cursor, max_bytes = key
        leads = self._leads.get((log_id, max_bytes), [])
        at = bisect_right(leads, cursor)
        return leads[at] if at < len(leads) else None

    def put(self, key: _Key, page: LogPage, *, whole: bool, leads: bool) -> None:
        if key in self._pages:
            self._forget(key)
        size = _RECORD_BYTES * (1 + len(page.records)) + sum(
            len(record.lines) for record in page.records if isinstance(record, LogChunk)
        )
        self._pages[key] = _Kept(page, whole, leads, size)
        self._size += size
        if leads:
            insort(self._leads.setdefault((key[0], key[2]), []), key[1])
        while self._size > self._limit:
            self._forget(next(iter(self._pages)))

    def drop(self, log_id: str) -> None:
        for key in [key for key in self._pages if key[0] == log_id]:
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        gone = self._pages.pop(key)
        self._size -= gone.size
        if gone.leads:
            log_id, cursor, max_bytes = key
            leads = self._leads[log_id, max_bytes]
            leads.remove(cursor)
            if not leads:
                del self._leads[log_id, max_bytes]


def _remove(directory: Path) -> None:
    # Renamed first: a log that is half removed must not be taken for a whole one.
    doomed = directory.with_name("logs.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        directory.rename(doomed)
        shutil.rmtree(doomed)
    with suppress(OSError):  # something else of the project's is kept there
        directory.parent.rmdir()

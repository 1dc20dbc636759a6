"""Follows a log over every interruption: each record once, in order, or an error.

The follow knows which sequence number comes next. It resumes there after a
broken call, and takes nothing else: what the server sends has to begin there
and to be dense. So an interruption neither loses nor doubles a line.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

from att_client._proto.att.v1 import FollowLogsRequest, FollowLogsResponse, LogGap, LogPosition
from att_client.errors import ClosedError, LogGapError, ProtocolError
from att_client.log_items import LogItem, LogLine, part_items
from att_client.log_messages import follow_response, parse_page
from att_client.log_order import RunEnd, check_dense, cut, gap_end
from att_client.log_page import Page
from att_client.resume import ResumingStream
from att_client.transport import Transport

_METHOD = "/att.v1.LogService/FollowLogs"


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """What a follow was asked for; see `Logs.follow`."""

    project_id: str
    start: LogPosition
    until_exit: bool
    raise_gaps: bool
    markers: bool
    progress_interval: timedelta | None
    max_elapsed: timedelta | None


class LogFollow:
    """A project's log from a position on, and everything that comes.

    `async for item in follow` gives lines (`LogLine`), gaps (`LogGap`) and, if
    asked for, run markers (`RunMarker`); `async for batch in follow.batches()`
    gives whole messages and is many times faster. Both end only when nothing can
    come any more; a failure is raised and never looks like an end. A server that
    cannot be reached is waited for.

    Leaving the loop closes the call. A later loop on the same object goes on
    behind the last item that was given out, and an earlier one that still waits
    raises ClosedError. A cancelled wait for an item loses nothing.
    """

    def __init__(self, transport: Transport, options: FollowOptions) -> None:
        self._transport = transport
        self._options = options
        self._reader: _Reader | None = None
        self._closed = False
        # What outlives a loop: how far it came, in which log, and until when.
        self._cursor = options.start.cursor
        self._last_item: LogItem | None = None
        self._log_id = options.start.log_id
        self._run_end: RunEnd | None = None

    @property
    def cursor(self) -> int | None:
        """Where to go on, behind the last item or batch that was given out.

        None before the first answer, unless the follow began at a cursor.
        """
        item = self._last_item
        if item is None:
            return self._cursor
        if isinstance(item, LogLine):
            return item.cursor
        return gap_end(item) if isinstance(item, LogGap) else item.sequence + 1

    @property
    def log_id(self) -> str:
        """The life of the log that the cursor belongs to; empty before the first answer."""
        return self._log_id

    def __aiter__(self) -> AsyncIterator[LogItem]:
        return _Items(self, self._new_reader(), self._options.markers)

    def batches(self) -> AsyncIterator[FollowLogsResponse]:
        """The log as messages of up to 256 KiB: records, the cursors and `log_id`.

        Run markers are always among the records. A batch without records
        reports progress; the first one comes at once, with the cursor that the
        follow is bound to. Raises like the loop over items.
        """
        return _Batches(self, self._new_reader())

    async def aclose(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()

    def _new_reader(self) -> _Reader:
        if self._closed:
            raise ClosedError("The follow was closed.")
        if self._reader is not None:
            self._reader.close()
        self._reader = _Reader(self, self._transport, self._options)
        return self._reader

    def _go_to(self, cursor: int) -> None:
        self._cursor = cursor
        self._last_item = None


class _Batches:
    """The batches of one loop. Dropping it closes the call."""

    def __init__(self, follow: LogFollow, reader: _Reader) -> None:
        self._follow = follow
        self._reader = reader

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> FollowLogsResponse:
        page = await self._reader.read()
        if page is None:
            raise StopAsyncIteration
        batch = follow_response(page)
        self._follow._go_to(batch.cursor)
        return batch

    def __del__(self) -> None:
        self._reader.close()


class _Items:
    """The items of one loop. Dropping it closes the call."""

    def __init__(self, follow: LogFollow, reader: _Reader, markers: bool) -> None:
        self._follow = follow
        self._reader = reader
        self._markers = markers
        self._items: Iterator[LogItem] = iter(())
        self._page_cursor: int | None = None

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> LogItem:
        while True:
            try:
                for item in self._items:
                    self._follow._last_item = item
                    return item
            except BaseException:
                # The rest of the page is lost: nothing may come after it.
                self._page_cursor = None
                self._reader.close()
                raise
            # Progress, and a marker that was not asked for, move the cursor too.
            if self._page_cursor is not None:
                self._follow._go_to(self._page_cursor)
                self._page_cursor = None
            page = await self._reader.read()
            if page is None:
                raise StopAsyncIteration
            self._items = part_items(page.parts, markers=self._markers)
            self._page_cursor = page.cursor

    def __del__(self) -> None:
        self._reader.close()


class _Reader:
    """Reads on from where a follow is, over any number of calls, and checks it all."""

    def __init__(self, follow: LogFollow, transport: Transport, options: FollowOptions) -> None:
        self._follow = follow
        self._options = options
        self._cursor = follow.cursor
        self._gap: LogGap | None = None
        self._server_binds = False
        self._stream = ResumingStream(
            transport,
            _METHOD,
            request=self._request,
            parse=parse_page,
            progress_interval=options.progress_interval,
            max_elapsed=options.max_elapsed,
        )

    def close(self) -> None:
        """Ends the call. A read that waits raises ClosedError."""
        self._stream.close()

    async def read(self) -> Page | None:
        """The next page; None when nothing can come any more. Raises AttError."""
        if self._gap is not None:
            self._raise_gap(self._gap)
        if self._is_past_run_end() and not self._server_ends:
            self.close()
            return None
        page = await self._stream.read()
        if page is None:
            return None
        try:
            self._accept(page)
        except BaseException:
            self.close()
            raise
        return page

    def _request(self) -> FollowLogsRequest | None:
        """The request for the next call; None if there is nothing left to ask for."""
        if self._is_past_run_end():
            return None
        start = self._options.start
        if self._cursor is not None:
            start = LogPosition(cursor=self._cursor, log_id=self._follow._log_id)
        # A call with `until_exit` binds a run. One that resumes must not bind another.
        run_end = self._follow._run_end
        until_exit = self._options.until_exit and run_end is None
        until_run_id = "" if run_end is None else run_end.run_id
        self._server_binds = until_exit or bool(until_run_id)
        return FollowLogsRequest(
            project_id=self._options.project_id,
            start=start,
            until_exit=until_exit,
            until_run_id=until_run_id,
            progress_interval=self._options.progress_interval,
        )

    @property
    def _server_ends(self) -> bool:
        """Whether the server is about to end the call by itself, as it does after the marker.

        It does so once the runtime knows of the end too; who asks then how the run
        ended is told.
        """
        run_end = self._follow._run_end
        return self._server_binds and run_end is not None and run_end.marked

    def _is_past_run_end(self) -> bool:
        run_end = self._follow._run_end
        if run_end is None or run_end.cursor is None or self._cursor is None:
            return False
        return self._cursor >= run_end.cursor

    def _accept(self, page: Page) -> None:
        """Checks the page, and takes off it what is not to be given out."""
        follow = self._follow
        if follow._log_id not in ("", page.log_id):
            raise ProtocolError(
                f"The server went on in log {page.log_id} of {self._options.project_id!r}; "
                f"the follow is in {follow._log_id}."
            )
        check_dense(page, self._cursor)
        follow._log_id = page.log_id
        if self._options.until_exit:
            if follow._run_end is None:
                follow._run_end = RunEnd(page.end_cursor)
            follow._run_end.observe(page)
            if follow._run_end.cursor is not None:
                cut(page, follow._run_end.cursor)
        if self._options.raise_gaps:
            self._stop_at_gap(page)
        self._cursor = page.cursor

    def _stop_at_gap(self, page: Page) -> None:
        for index, part in enumerate(page.parts):
            if isinstance(part, LogGap):
                if index == 0:
                    self._raise_gap(part)
                self._gap = part
                cut(page, part.first_sequence)
                return

    def _raise_gap(self, gap: LogGap) -> None:
        self.close()
        self._follow._go_to(gap_end(gap))
        raise LogGapError(
            f"{gap.count} records of {self._options.project_id!r} are missing from "
            f"{gap.first_sequence} on: {gap.reason}. Follow again to go on behind them.",
            gap,
        )

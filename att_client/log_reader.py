"""Reads on in a log over every interruption: each record once, in order, or an error.

A reader knows which sequence number comes next. It resumes there after a broken
call, and takes nothing else: what the server sends has to begin there and to be
dense, or rising where a filter leaves some out. So an interruption neither loses
nor doubles a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from att_client._proto.att.v1 import FollowLogsRequest, LogFilter, LogGap, LogPosition
from att_client.errors import ClosedError, LogGapError, ProtocolError
from att_client.log_items import LogItem, LogLine, part_items
from att_client.log_messages import parse_page
from att_client.log_order import RunEnd, check_order, cut, gap_end
from att_client.log_page import Page
from att_client.resume import ResumingStream
from att_client.transport import Transport

_METHOD = "/att.v1.LogService/FollowLogs"


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions:
    """What a follow was asked for; see `Logs.follow`."""

    project_id: str
    start: LogPosition
    filter: LogFilter | None
    until_exit: bool
    until_now: bool
    raise_gaps: bool
    markers: bool
    progress_interval: timedelta | None
    max_elapsed: timedelta | None


class FollowedLog:
    """What outlives the loops of a follow: how far they came, in which log, until when."""

    def __init__(self, transport: Transport, options: FollowOptions) -> None:
        self._transport = transport
        self._options = options
        self._reader: PageReader | None = None
        self._closed = False
        self._cursor = options.start.cursor
        self._last_item: LogItem | None = None
        self.log_id = options.start.log_id
        self.run_end: RunEnd | None = None
        self.now: int | None = None
        """With `until_now`, the log's end when the follow began."""

    @property
    def cursor(self) -> int | None:
        """Where to go on, behind what was given out last; None before the first answer."""
        item = self._last_item
        if item is None:
            return self._cursor
        if isinstance(item, LogLine):
            return item.cursor
        return gap_end(item) if isinstance(item, LogGap) else item.sequence + 1

    def go_to(self, cursor: int | None) -> None:
        """Moves to `cursor`."""
        self._cursor = cursor
        self._last_item = None

    def new_reader(self) -> PageReader:
        """What reads on from here. Closes the one before. Raises ClosedError."""
        if self._closed:
            raise ClosedError("The follow was closed.")
        if self._reader is not None:
            self._reader.close()
        self._reader = PageReader(self, self._transport, self._options)
        return self._reader

    def items(self, page: Page) -> Iterator[LogItem]:
        """The items of the page, of which each moves behind itself as it is given out.

        After the last it moves behind the page: progress, and a marker that was not
        asked for, are no items.
        """
        for item in part_items(page.parts, markers=self._options.markers):
            self._last_item = item
            yield item
        self.go_to(page.cursor)

    def pass_gap(self, error: LogGapError) -> None:
        """Moves behind a gap, as who follows is told of it by `error`."""
        self.go_to(gap_end(error.gap))

    def close(self) -> None:
        """Closes the call, and every later one."""
        self._closed = True
        if self._reader is not None:
            self._reader.close()


class PageReader:
    """Reads on from where a follow is, over any number of calls, and checks it all."""

    def __init__(self, follow: FollowedLog, transport: Transport, options: FollowOptions) -> None:
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
        """The next page; None when nothing can come any more.

        Raises AttError, of which a LogGapError is for the caller to pass.
        """
        if self._gap is not None:
            self._raise_gap(self._gap)
        if self._is_past_now() or (self._is_past_run_end() and not self._server_ends):
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
        if self._is_past_now() or self._is_past_run_end():
            return None
        start = self._options.start
        if self._cursor is not None:
            start = LogPosition(cursor=self._cursor, log_id=self._follow.log_id)
        # A call with `until_exit` binds a run. One that resumes must not bind another; but
        # of a run that a filter hides, only the server can tell that it ends.
        run_end = self._follow.run_end
        until_run_id = "" if run_end is None else run_end.run_id
        is_bound = run_end is not None and (until_run_id or self._options.filter is None)
        until_exit = self._options.until_exit and not is_bound
        self._server_binds = until_exit or bool(until_run_id)
        return FollowLogsRequest(
            project_id=self._options.project_id,
            start=start,
            filter=self._options.filter,
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
        run_end = self._follow.run_end
        return self._server_binds and run_end is not None and run_end.marked

    def _is_past_now(self) -> bool:
        now = self._follow.now
        return now is not None and self._cursor is not None and self._cursor >= now

    def _is_past_run_end(self) -> bool:
        run_end = self._follow.run_end
        if run_end is None or run_end.cursor is None or self._cursor is None:
            return False
        return self._cursor >= run_end.cursor

    def _accept(self, page: Page) -> None:
        """Checks the page, and takes off it what is not to be given out."""
        follow = self._follow
        if follow.log_id not in ("", page.log_id):
            raise ProtocolError(
                f"The server went on in log {page.log_id} of {self._options.project_id!r}; "
                f"the follow is in {follow.log_id}."
            )
        check_order(page, self._cursor, is_filtered=self._options.filter is not None)
        follow.log_id = page.log_id
        if self._options.until_exit:
            if follow.run_end is None:
                follow.run_end = RunEnd(page.end_cursor)
            follow.run_end.observe(page)
            if follow.run_end.cursor is not None:
                cut(page, follow.run_end.cursor)
        if self._options.until_now:
            if follow.now is None:
                follow.now = page.end_cursor
            cut(page, follow.now)
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
        raise LogGapError(
            f"{gap.count} records of {self._options.project_id!r} are missing from "
            f"{gap.first_sequence} on: {gap.reason}. Follow again to go on behind them.",
            gap,
        )

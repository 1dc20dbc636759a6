"""Reads and follows logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal, Unpack

from att_client._proto.att.v1 import (
    GetLogInfoRequest,
    GetLogInfoResponse,
    LogAnchor,
    ReadLogsRequest,
    TrimLogsRequest,
    TrimLogsResponse,
    WatchRuntimesRequest,
)
from att_client.log_batch import LogPage
from att_client.log_follow import LogFollow
from att_client.log_merge import LogMerge
from att_client.log_messages import parse_read_response
from att_client.log_reader import FollowedLog, FollowOptions
from att_client.log_selection import LogSelection, log_filter, position
from att_client.runtime_watch import RuntimeWatch
from att_client.transport import Service, Transport


class Logs:
    """The logs: every line that a project's app printed, over all its runs."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._transport = transport
        self._timeout = timeout
        self._service = Service(transport, "LogService", timeout)

    async def read(
        self,
        project_id: str,
        *,
        cursor: int | None = None,
        tail: int | None = None,
        since: datetime | None = None,
        anchor: LogAnchor | None = None,
        log_id: str = "",
        limit: int = 0,
        max_bytes: int = 0,
        **selection: Unpack[LogSelection],
    ) -> LogPage:
        """A page of what the log holds now; never waits for more.

        At most one of cursor, tail (that many last lines), since (aware) and
        anchor says where it begins; without, at the first record that is kept.
        log_id: the life of the log that the cursor belongs to; another one is
            refused. Empty: not checked.
        limit: lines, 1 to 100,000; 0 is 1,000. max_bytes: of lines, 1 to
            3,145,728; 0 is 1,048,576.
        selection: which records; see `LogSelection`. A page looks at up to 64 MiB
            of the log, so one without records may have more.

        Go on at the page's `cursor` while it `has_more`; `log_items` gives its
        lines, `text()` all of them at once. Raises ProjectNotFoundError,
        LogCursorAheadError, FieldInvalidError.
        """
        request = ReadLogsRequest(
            project_id=project_id,
            start=position(cursor, tail, since, anchor, log_id),
            filter=log_filter(selection),
            limit=limit,
            max_bytes=max_bytes,
        )
        return await self._transport.unary(
            "/att.v1.LogService/ReadLogs", request, parse_read_response, self._timeout
        )

    async def info(self, project_id: str) -> GetLogInfoResponse:
        """The log's range, size on disk and pace. Raises ProjectNotFoundError."""
        return await self._service.call(
            GetLogInfoRequest(project_id=project_id), GetLogInfoResponse
        )

    async def trim(self, project_id: str, *, before_cursor: int) -> int:
        """Removes old records; returns the first sequence number that is kept then.

        before_cursor: what lies below may go. Whole segments go, and never the one
            that is written, so less may go than was named; readers get a gap.
        Needs the role operator. Raises PermissionDeniedError, ProjectNotFoundError,
        FieldInvalidError.
        """
        response = await self._service.call(
            TrimLogsRequest(project_id=project_id, before_cursor=before_cursor), TrimLogsResponse
        )
        return response.start_cursor

    def follow(
        self,
        project_id: str,
        *,
        cursor: int | None = None,
        tail: int | None = None,
        since: datetime | None = None,
        anchor: LogAnchor | None = None,
        log_id: str = "",
        until_exit: bool = False,
        until_now: bool = False,
        on_gap: Literal["yield", "raise"] = "yield",
        markers: bool = False,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
        **selection: Unpack[LogSelection],
    ) -> LogFollow:
        """The log from a position on, and everything that comes; see `LogFollow`.

        cursor, tail, since, anchor, log_id: as for `read`. Nothing is asked for
            before the loop.
        until_exit: ends when the current run has ended and all of it was given
            out; if none runs, the last one where its end is still to come, else
            the next.
        until_now: ends when all was given out that the log held at the begin of the
            loop: the way to read a whole log.
        on_gap: whether missing records come as a `LogGap` or raise LogGapError.
        markers: whether the loop over items gives run markers.
        progress_interval: how often an idle server reports, 1 s to 5 minutes;
            None is 15 s. After three intervals of silence the call is resumed.
        max_elapsed: bounds one outage, after which UnavailableError is raised;
            None waits for ever.
        selection: which records; see `LogSelection`.

        The loop raises ProjectNotFoundError, LogCursorAheadError (also when the
        project was created anew during an outage), and what else AttError names.
        """
        _check_ends(until_exit=until_exit, until_now=until_now)
        options = FollowOptions(
            project_id=project_id,
            start=position(cursor, tail, since, anchor, log_id),
            filter=log_filter(selection),
            until_exit=until_exit,
            until_now=until_now,
            raise_gaps=_raises(on_gap),
            markers=markers,
            progress_interval=progress_interval,
            max_elapsed=max_elapsed,
        )
        return LogFollow(FollowedLog(self._transport, options))

    def merge(
        self,
        project_ids: Sequence[str] = (),
        *,
        cursors: Mapping[str, int] | None = None,
        tail: int | None = None,
        since: datetime | None = None,
        anchor: LogAnchor | None = None,
        until_exit: bool = False,
        until_now: bool = False,
        markers: bool = False,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
        **selection: Unpack[LogSelection],
    ) -> LogMerge:
        """The logs of these projects as one, by time; see `LogMerge`.

        project_ids: empty for all, also those that are created later.
        cursors: where to begin, by project; at most one of the next three says it
            for the others: the last `tail` lines of each, and so on.
        The other arguments are those of `follow`, for each project: with
            `until_exit` and `until_now` it ends when all of them have ended.
        """
        if isinstance(project_ids, str):
            raise TypeError("`project_ids` is a list of ids.")
        _check_ends(until_exit=until_exit, until_now=until_now)
        start = position(None, tail, since, anchor)
        known = dict(cursors or {})
        options = FollowOptions(
            project_id="",
            start=start,
            filter=log_filter(selection),
            until_exit=until_exit,
            until_now=until_now,
            raise_gaps=False,
            markers=markers,
            progress_interval=progress_interval,
            max_elapsed=max_elapsed,
        )

        def open_log(project_id: str, is_new: bool) -> FollowedLog:
            place = start
            if is_new:
                place = position()
            elif project_id in known:
                place = position(known[project_id])
            asked = replace(options, project_id=project_id, start=place)
            return FollowedLog(self._transport, asked)

        watch = None
        if not project_ids:
            asked = WatchRuntimesRequest(progress_interval=progress_interval)
            watch = RuntimeWatch(self._transport, asked, max_elapsed)
        goes_on = not (until_exit or until_now)
        return LogMerge(open_log, list(dict.fromkeys(project_ids)), watch, goes_on=goes_on)


def _raises(on_gap: str) -> bool:
    if on_gap not in ("yield", "raise"):
        raise ValueError(f'on_gap is "yield" or "raise", not {on_gap!r}.')
    return on_gap == "raise"


def _check_ends(*, until_exit: bool, until_now: bool) -> None:
    if until_exit and until_now:
        raise TypeError("Give `until_exit` or `until_now`, not both.")

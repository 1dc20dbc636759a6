"""Reads and follows logs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from att_client._proto.att.v1 import LogAnchor, LogPosition, ReadLogsRequest, ReadLogsResponse
from att_client.log_follow import FollowOptions, LogFollow
from att_client.log_messages import parse_read_response
from att_client.transport import Transport

_SERVICE = "/att.v1.LogService/"


class Logs:
    """The logs: every line that a project's app printed, over all its runs."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._transport = transport
        self._timeout = timeout

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
    ) -> ReadLogsResponse:
        """A page of what the log holds now; never waits for more.

        At most one of cursor, tail (that many last lines), since (aware) and
        anchor says where it begins; without, at the first record that is kept.
        log_id: the life of the log that the cursor belongs to; another one is
            refused. Empty: not checked.
        limit: lines, 1 to 100,000; 0 is 1,000. max_bytes: of lines, 1 to
            3,145,728; 0 is 1,048,576.

        Go on at the page's `cursor` while it `has_more`; `log_items` gives its
        lines. Raises ProjectNotFoundError, LogCursorAheadError, FieldInvalidError.
        """
        request = ReadLogsRequest(
            project_id=project_id,
            start=_position(cursor, tail, since, anchor, log_id),
            limit=limit,
            max_bytes=max_bytes,
        )
        return await self._transport.unary(
            _SERVICE + "ReadLogs", request, parse_read_response, self._timeout
        )

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
        on_gap: Literal["yield", "raise"] = "yield",
        markers: bool = False,
        progress_interval: timedelta | None = None,
        max_elapsed: timedelta | None = None,
    ) -> LogFollow:
        """The log from a position on, and everything that comes; see `LogFollow`.

        cursor, tail, since, anchor, log_id: as for `read`. Nothing is asked for
            before the loop.
        until_exit: ends when the current run has ended and all of it was given
            out; if none runs, the last one where its end is still to come, else
            the next.
        on_gap: whether missing records come as a `LogGap` or raise LogGapError.
        markers: whether the loop over items gives run markers.
        progress_interval: how often an idle server reports, 1 s to 5 minutes;
            None is 15 s. After three intervals of silence the call is resumed.
        max_elapsed: bounds one outage, after which UnavailableError is raised;
            None waits for ever.

        The loop raises ProjectNotFoundError, LogCursorAheadError (also when the
        project was created anew during an outage), and what else AttError names.
        """
        return LogFollow(
            self._transport,
            FollowOptions(
                project_id=project_id,
                start=_position(cursor, tail, since, anchor, log_id),
                until_exit=until_exit,
                raise_gaps=_raises(on_gap),
                markers=markers,
                progress_interval=progress_interval,
                max_elapsed=max_elapsed,
            ),
        )


def _position(
    cursor: int | None,
    tail: int | None,
    since: datetime | None,
    anchor: LogAnchor | None,
    log_id: str,
) -> LogPosition:
    if sum(place is not None for place in (cursor, tail, since, anchor)) > 1:
        raise TypeError("Give at most one of cursor, tail, since and anchor.")
    if since is not None and since.tzinfo is None:
        raise ValueError("`since` has no time zone. Use datetime.now(UTC) or astimezone().")
    return LogPosition(cursor=cursor, tail=tail, since=since, anchor=anchor, log_id=log_id)


def _raises(on_gap: str) -> bool:
    if on_gap not in ("yield", "raise"):
        raise ValueError(f'on_gap is "yield" or "raise", not {on_gap!r}.')
    return on_gap == "raise"

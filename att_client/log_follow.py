"""Follows a log: everything it holds from a position on, and everything that comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from att_client.errors import LogGapError
from att_client.log_batch import LogBatch
from att_client.log_items import LogItem
from att_client.log_messages import follow_response
from att_client.log_page import Page
from att_client.log_reader import FollowedLog, PageReader


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

    def __init__(self, log: FollowedLog) -> None:
        # Also what `att_client.sync` gives out from, item by item, in its caller's thread.
        self._log = log

    @property
    def cursor(self) -> int | None:
        """Where to go on, behind the last item or batch that was given out.

        None before the first answer, unless the follow began at a cursor.
        """
        return self._log.cursor

    @property
    def log_id(self) -> str:
        """The life of the log that the cursor belongs to; empty before the first answer."""
        return self._log.log_id

    def __aiter__(self) -> AsyncIterator[LogItem]:
        return _Items(self._log, self._log.new_reader())

    def batches(self) -> AsyncIterator[LogBatch]:
        """The log as messages of up to 256 KiB: records, the cursors and `log_id`.

        Run markers are always among the records. A batch without records
        reports progress; the first one comes at once, with the cursor that the
        follow is bound to. Raises like the loop over items.
        """
        return _Batches(self._log, self._log.new_reader())

    async def aclose(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._log.close()


async def _read(log: FollowedLog, reader: PageReader) -> Page | None:
    try:
        return await reader.read()
    except LogGapError as error:
        log.pass_gap(error)
        raise


class _Batches:
    """The batches of one loop. Dropping it closes the call."""

    def __init__(self, log: FollowedLog, reader: PageReader) -> None:
        self._log = log
        self._reader = reader

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> LogBatch:
        page = await _read(self._log, self._reader)
        if page is None:
            raise StopAsyncIteration
        batch = follow_response(page)
        self._log.go_to(batch.cursor)
        return batch

    def __del__(self) -> None:
        self._reader.close()


class _Items:
    """The items of one loop. Dropping it closes the call."""

    def __init__(self, log: FollowedLog, reader: PageReader) -> None:
        self._log = log
        self._reader = reader
        self._items: Iterator[LogItem] = iter(())

    def __aiter__(self) -> _Items:
        return self

    async def __anext__(self) -> LogItem:
        while True:
            try:
                for item in self._items:
                    return item
            except BaseException:
                # The rest of the page is lost: nothing may come after it.
                self._reader.close()
                raise
            page = await _read(self._log, self._reader)
            if page is None:
                raise StopAsyncIteration
            self._items = self._log.items(page)

    def __del__(self) -> None:
        self._reader.close()

"""Follows a log, blocking: a page at a time comes over from the loop's thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from att_client import log_follow
from att_client.errors import LogGapError
from att_client.log_batch import LogBatch
from att_client.log_items import LogItem
from att_client.log_messages import follow_response
from att_client.log_page import Page
from att_client.log_reader import FollowedLog, PageReader
from att_client.sync.background_loop import BackgroundLoop


class LogFollow:
    """A project's log from a position on, and everything that comes.

    `for item in follow` and `for batch in follow.batches()`, as with
    `att_client.LogFollow`.
    """

    def __init__(self, loop: BackgroundLoop, follow: log_follow.LogFollow) -> None:
        self._loop = loop
        self._follow = follow
        self._log: FollowedLog = follow._log

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

    def __iter__(self) -> Iterator[LogItem]:
        for page in self._pages():
            yield from self._log.items(page)

    def batches(self) -> Iterator[LogBatch]:
        """The log as messages, as those of `att_client.LogFollow.batches`."""
        for page in self._pages():
            batch = follow_response(page)
            self._log.go_to(batch.cursor)
            yield batch

    def close(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._loop.close(self._follow.aclose)

    def _pages(self) -> Iterator[Page]:
        try:
            yield from self._loop.iterate(lambda: _pages(self._log.new_reader()))
        except LogGapError as error:
            # Not in the loop's thread: an interrupted wait hears of no error there.
            self._log.pass_gap(error)
            raise


async def _pages(reader: PageReader) -> AsyncGenerator[Page, None]:
    try:
        while (page := await reader.read()) is not None:
            yield page
    finally:
        reader.close()

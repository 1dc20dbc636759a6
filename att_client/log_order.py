"""The order of a log's records: what follows what, and where a run ends."""

from __future__ import annotations

from copy import copy

from att_client._proto.att.v1 import LogGap, RunMarker
from att_client.errors import ProtocolError
from att_client.log_page import Chunk, Page, Part


def check_order(page: Page, cursor: int | None, *, is_filtered: bool) -> None:
    """Raises ProtocolError unless the page begins at `cursor` and leaves nothing out.

    cursor: None takes any beginning. A record of an unknown kind may be of any
        length, up to the next one.
    is_filtered: what is left out may be what a filter does not select.
    """
    for part in page.parts:
        first, end = _span(part)
        _check_next(cursor, first, is_filtered=is_filtered)
        cursor = end
    _check_next(cursor, page.cursor, is_filtered=is_filtered)


def _check_next(expected: int | None, got: int | None, *, is_filtered: bool) -> None:
    if expected is None or got is None or got == expected or (is_filtered and got > expected):
        return
    raise ProtocolError(
        f"The log's next sequence number is {expected}, and the server sent {got}: "
        "records are missing or doubled."
    )


def gap_end(gap: LogGap) -> int:
    """The cursor behind the gap."""
    return gap.first_sequence + gap.count


def cut(page: Page, cursor: int) -> None:
    """Takes its records from `cursor` on, which lies between two of them, off the page."""
    if page.cursor <= cursor:
        return
    page.cursor = cursor
    for index, part in enumerate(page.parts):
        first, _ = _span(part)
        if first is not None and first >= cursor:
            del page.parts[index:]
            return


def split(page: Page, index: int) -> tuple[Page, Page | None]:
    """The page before its record `index`, and from it on; None if no place between is known."""
    starts = (_span(part)[0] for part in page.parts[index:])
    cursor = next((start for start in starts if start is not None), None)
    if cursor is None:
        return page, None
    head, rest = copy(page), copy(page)
    head.parts, rest.parts = page.parts[:index], page.parts[index:]
    head.cursor = cursor
    return head, rest


class RunEnd:
    """Finds in the log where the run ends that a follow with `until_exit` is bound to.

    bound: the log's end when the follow began. The run is the one that the server
        names; or, if it named none before the call broke, the first one that shows
        from there on, because runs follow one another.

    run_id: the run; empty while it is not known.
    cursor: behind the run's last record; None while it was not seen.
    marked: whether the run's end marker was seen.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._shown = False
        self.run_id = ""
        self.cursor: int | None = None
        self.marked = False

    def observe(self, page: Page) -> None:
        """Looks at the next records. Looking at some twice changes nothing."""
        self.run_id = self.run_id or page.bound_run_id
        for part in page.parts:
            if self.cursor is not None:
                return
            if isinstance(part, Chunk):
                self._show(part.run_id, part.first_sequence)
            elif isinstance(part, RunMarker):
                self._show(part.run_id, part.sequence)
                if part.run_id == self.run_id and part.ended is not None:
                    self.cursor, self.marked = part.sequence + 1, True

    def _show(self, run_id: str, sequence: int) -> None:
        if not self.run_id and sequence >= self._bound:
            self.run_id = run_id
        if run_id == self.run_id:
            self._shown = True
        elif self._shown:
            # Its end marker was lost in a gap.
            self.cursor = sequence


def _span(part: Part) -> tuple[int | None, int | None]:
    """The part's first sequence number and the one behind it; None where unknown."""
    if isinstance(part, Chunk):
        return part.first_sequence, part.end()
    if isinstance(part, RunMarker):
        return part.sequence, part.sequence + 1
    if isinstance(part, LogGap):
        return part.first_sequence, gap_end(part)
    return None, None

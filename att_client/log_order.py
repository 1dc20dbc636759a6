"""The order of a log's records: what follows what, and where a run ends."""

from __future__ import annotations

from att_client._proto.att.v1 import LogGap, RunMarker
from att_client.errors import ProtocolError
from att_client.log_page import Chunk, Page, Part


def check_dense(page: Page, cursor: int | None) -> None:
    """Raises ProtocolError unless the page begins at `cursor` and leaves nothing out.

    cursor: None takes any beginning. A record of an unknown kind may be of any
    length, up to the next one.
    """
    for part in page.parts:
        first, end = _span(part)
        if first is not None and cursor is not None and first != cursor:
            raise _not_dense(cursor, first)
        cursor = end
    if cursor is not None and page.cursor != cursor:
        raise _not_dense(cursor, page.cursor)


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


def _not_dense(expected: int, got: int) -> ProtocolError:
    return ProtocolError(
        f"The log's next sequence number is {expected}, and the server sent {got}: "
        "records are missing or doubled."
    )

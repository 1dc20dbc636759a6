"""The order of a log's records: what follows what, and where a run ends."""

from __future__ import annotations

from att.v1 import log_pb2
from att_client._proto.att.v1 import LogGap
from att_client.errors import ProtocolError
from att_client.log_messages import Page, page_records


def check_dense(page: Page, cursor: int | None) -> None:
    """Raises ProtocolError unless the page begins at `cursor` and leaves nothing out.

    cursor: None takes any beginning. A record of an unknown kind may be of any
    length, up to the next one.
    """
    for record in page_records(page):
        first, end = _span(record)
        if first is not None and cursor is not None and first != cursor:
            raise _not_dense(cursor, first)
        cursor = end
    if cursor is not None and page.cursor != cursor:
        raise _not_dense(cursor, page.cursor)


def gap_end(gap: LogGap | log_pb2.LogGap) -> int:
    """The cursor behind the gap."""
    return gap.first_sequence + gap.count


def cut(page: Page, cursor: int) -> None:
    """Takes its records from `cursor` on, which lies between two of them, off the page."""
    if page.cursor <= cursor:
        return
    page.cursor = cursor
    for index, record in enumerate(page_records(page)):
        first, _ = _span(record)
        if first is not None and first >= cursor:
            del page.records[index:]
            return


class RunEnd:
    """Finds in the log where the run ends that a follow with `until_exit` is bound to.

    bound: the log's end when the follow began. The run is the one that the server
        names; or, if it named none before the call broke, the first one that shows
        from there on, because runs follow one another.

    run_id: the run; empty while it is not known.
    cursor: behind the run's last record; None while it was not seen.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._shown = False
        self.run_id = ""
        self.cursor: int | None = None

    def observe(self, page: Page) -> None:
        """Looks at the next records. Looking at some twice changes nothing."""
        self.run_id = self.run_id or page.bound_run_id
        for record in page_records(page):
            if self.cursor is not None:
                return
            if record.HasField("chunk"):
                self._show(record.chunk.run_id, record.chunk.first_sequence)
            elif record.HasField("run"):
                run = record.run
                self._show(run.run_id, run.sequence)
                if run.run_id == self.run_id and run.HasField("ended"):
                    self.cursor = run.sequence + 1

    def _show(self, run_id: str, sequence: int) -> None:
        if not self.run_id and sequence >= self._bound:
            self.run_id = run_id
        if run_id == self.run_id:
            self._shown = True
        elif self._shown:
            # Its end marker was lost in a gap.
            self.cursor = sequence


def _span(record: log_pb2.LogRecord) -> tuple[int | None, int | None]:
    """The record's first sequence number and the one behind it; None where unknown."""
    if record.HasField("chunk"):
        chunk = record.chunk
        first, offsets = chunk.first_sequence, chunk.sequence_offsets
        return first, first + (offsets[-1] + 1 if offsets else chunk.line_count)
    if record.HasField("run"):
        return record.run.sequence, record.run.sequence + 1
    if record.HasField("gap"):
        return record.gap.first_sequence, gap_end(record.gap)
    return None, None


def _not_dense(expected: int, got: int) -> ProtocolError:
    return ProtocolError(
        f"The log's next sequence number is {expected}, and the server sent {got}: "
        "records are missing or doubled."
    )

"""The order of a log's records: what follows what, and where a run ends."""

from __future__ import annotations

from dataclasses import replace

from att_client._proto.att.v1 import FollowLogsResponse, LogGap, LogRecord
from att_client.errors import ProtocolError


def check_dense(batch: FollowLogsResponse, cursor: int | None) -> None:
    """Raises ProtocolError unless the batch begins at `cursor` and leaves nothing out.

    cursor: None takes any beginning. A record of an unknown kind may be of any
    length, up to the next one.
    """
    for record in batch.records:
        first, end = _span(record)
        if first is not None and cursor is not None and first != cursor:
            raise _not_dense(cursor, first)
        cursor = end
    if cursor is not None and batch.cursor != cursor:
        raise _not_dense(cursor, batch.cursor)


def gap_end(gap: LogGap) -> int:
    """The cursor behind the gap."""
    return gap.first_sequence + gap.count


def before(batch: FollowLogsResponse, cursor: int) -> FollowLogsResponse:
    """The batch without its records from `cursor` on, which lies between two of them."""
    if batch.cursor <= cursor:
        return batch
    records = [record for record in batch.records if (_span(record)[0] or 0) < cursor]
    return replace(batch, records=records, cursor=cursor)


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

    def observe(self, batch: FollowLogsResponse) -> None:
        """Looks at the next records. Looking at some twice changes nothing."""
        self.run_id = self.run_id or batch.bound_run_id
        for record in batch.records:
            if self.cursor is not None:
                return
            self._observe(record)

    def _observe(self, record: LogRecord) -> None:
        part = record.chunk or record.run
        first, end = _span(record)
        if part is None or first is None:
            return
        if not self.run_id and first >= self._bound:
            self.run_id = part.run_id
        if part.run_id == self.run_id:
            self._shown = True
            if record.run is not None and record.run.ended is not None:
                self.cursor = end
        elif self._shown:
            # Its end marker was lost in a gap.
            self.cursor = first


def _span(record: LogRecord) -> tuple[int | None, int | None]:
    """The record's first sequence number and the one behind it; None where unknown."""
    if (chunk := record.chunk) is not None:
        offsets = chunk.sequence_offsets
        return chunk.first_sequence, chunk.first_sequence + (
            offsets[-1] + 1 if offsets else chunk.line_count
        )
    if (run := record.run) is not None:
        return run.sequence, run.sequence + 1
    if (gap := record.gap) is not None:
        return gap.first_sequence, gap_end(gap)
    return None, None


def _not_dense(expected: int, got: int) -> ProtocolError:
    return ProtocolError(
        f"The log's next sequence number is {expected}, and the server sent {got}: "
        "records are missing or doubled."
    )

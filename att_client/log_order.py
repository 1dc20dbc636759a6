"""The order of a log's records: what follows what, and where a run ends."""

from __future__ import annotations

from collections.abc import Iterable

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
    return FollowLogsResponse(
        records=[record for record in batch.records if (_span(record)[0] or 0) < cursor],
        cursor=cursor,
        start_cursor=batch.start_cursor,
        end_cursor=batch.end_cursor,
        log_id=batch.log_id,
    )


class RunEnd:
    """Finds in the log where the run ends that a follow with `until_exit` is bound to.

    A project has one run at a time, in order. So the run that was current at
    `bound`, the log's end when the follow began, or else the next one, is over
    with the first end marker from there on; or, should that marker be lost in a
    gap, where another run appears.

    cursor: behind the run's last record; None while it was not seen.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._run_id = ""
        self.cursor: int | None = None

    def observe(self, records: Iterable[LogRecord]) -> None:
        """Looks at the next records. Looking at some twice changes nothing."""
        for record in records:
            if self.cursor is not None:
                return
            self._observe(record)

    def _observe(self, record: LogRecord) -> None:
        known = record.chunk or record.run
        first, end = _span(record)
        if known is None or first is None:
            return
        ended = record.run is not None and record.run.ended is not None
        if first < self._bound:
            self._run_id = "" if ended else known.run_id
        elif self._run_id not in ("", known.run_id):
            self.cursor = first
        elif ended:
            self.cursor = end
        else:
            self._run_id = known.run_id


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

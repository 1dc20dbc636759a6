"""Pages and batches of a log as a user is given them: the contract's messages, as text too."""

from __future__ import annotations

from collections.abc import Iterable

from att_client._proto.att.v1 import FollowLogsResponse, LogRecord, LogStream, ReadLogsResponse


class LogPage(ReadLogsResponse):
    """A page of what a log holds; see `Logs.read`."""

    def text(self) -> str:
        """The page's lines as they were printed; see `LogBatch.text`."""
        return _text(self.records)


class LogBatch(FollowLogsResponse):
    """The next records of a followed log; see `LogFollow.batches`."""

    def text(self) -> str:
        """The batch's lines as they were printed, of both streams, as UTF-8 with replacement.

        A newline that the log added, to a line that was cut or that the app has not
        ended, is left out, unless another stream or run follows: the texts of
        batches, joined, are the app's output. Markers and gaps are no text.
        """
        return _text(self.records)


def _text(records: Iterable[LogRecord]) -> str:
    parts: list[bytes] = []
    unended: tuple[LogStream, str] | None = None
    for record in records:
        if (chunk := record.chunk) is None:
            continue
        source = (chunk.stream, chunk.run_id)
        if unended not in (None, source):
            parts.append(b"\n")
        is_ended = not (chunk.partial or chunk.unterminated)
        parts.append(chunk.lines if is_ended else chunk.lines[:-1])
        unended = None if is_ended else source
    return b"".join(parts).decode(errors="replace")

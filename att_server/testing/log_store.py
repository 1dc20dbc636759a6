"""A log store in memory, and ways to fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from att_server.core.model import (
    GapReason,
    LogBounds,
    LogChunk,
    LogGap,
    LogPage,
    LogRecord,
    LogStream,
    RunEnded,
    RunExit,
    RunStarted,
)

_FIRST_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryLogStore:
    """Keeps logs in memory (`core.ports.LogStore`).

    The `append_…` methods take the place of a supervisor. Each returns the
    sequence number of the first record it appended. time: of arrival; without
    one, a millisecond after the record before.
    """

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}

    def append_lines(
        self,
        project_id: str,
        log_id: str,
        *lines: bytes,
        stream: LogStream = LogStream.STDOUT,
        run_id: str = "",
        time: datetime | None = None,
        partial: bool = False,
        unterminated: bool = False,
    ) -> int:
        """Appends lines (without newline) as one chunk; at least one line."""
        log = self._log(project_id, log_id)
        return log.append(
            LogChunk(
                first_sequence=log.end,
                line_count=len(lines),
                time=log.next_time(time),
                stream=stream,
                run_id=run_id,
                lines=b"\n".join(lines) + b"\n",
                partial=partial,
                unterminated=unterminated,
            )
        )

    def append_started(
        self,
        project_id: str,
        log_id: str,
        run_id: str,
        *,
        command: Sequence[str] = ("app",),
        pid: int = 1,
        release_id: str = "",
        time: datetime | None = None,
    ) -> int:
        """Appends the start marker of a run."""
        log = self._log(project_id, log_id)
        return log.append(
            RunStarted(
                sequence=log.end,
                time=log.next_time(time),
                run_id=run_id,
                command=tuple(command),
                pid=pid,
                release_id=release_id,
            )
        )

    def append_ended(
        self,
        project_id: str,
        log_id: str,
        run_id: str,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        start_error: str | None = None,
        supervisor_lost: bool = False,
        duration: timedelta = timedelta(),
        time: datetime | None = None,
    ) -> int:
        """Appends the end marker of a run, which says exactly one way to end."""
        log = self._log(project_id, log_id)
        return log.append(
            RunEnded(
                sequence=log.end,
                run_id=run_id,
                exit=RunExit(
                    exit_code=exit_code,
                    signal=signal,
                    start_error=start_error,
                    supervisor_lost=supervisor_lost,
                    time=log.next_time(time),
                    duration=duration,
                ),
            )
        )

    def append_gap(
        self,
        project_id: str,
        log_id: str,
        count: int,
        *,
        reason: GapReason = GapReason.MACHINE_CRASH,
        lost_lines: int | None = None,
    ) -> int:
        """Appends a gap of `count` sequence numbers."""
        log = self._log(project_id, log_id)
        return log.append(
            LogGap(first_sequence=log.end, count=count, reason=reason, lost_lines=lost_lines)
        )

    def trim(self, project_id: str, log_id: str, before: int) -> None:
        """Removes the records that lie before sequence number `before` as a whole."""
        log = self._log(project_id, log_id)
        while log.records and log.records[0].next_sequence <= before:
            log.start = log.records.pop(0).next_sequence

    async def bounds(self, project_id: str, log_id: str) -> LogBounds:
        """What the log holds now; 0 to 0 before the first record."""
        return self._log(project_id, log_id).bounds

    async def read(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage:
        """The page from `cursor` on. Raises ValueError for a cursor beyond the end."""
        log = self._log(project_id, log_id)
        if not 0 <= cursor <= log.end:
            raise ValueError(f"cursor {cursor} is not within 0 to {log.end}")
        records: list[LogRecord] = []
        if cursor < log.start:
            missing = log.start - cursor
            records.append(LogGap(first_sequence=cursor, count=missing, reason=GapReason.RETENTION))
            cursor = log.start
        size, first = 0, True
        for record in log.records:
            if record.next_sequence <= cursor:
                continue
            size += len(record.lines) if isinstance(record, LogChunk) else 0
            if not first and size > max_bytes:
                break
            records.append(_from(record, cursor) if record.first_sequence < cursor else record)
            cursor, first = record.next_sequence, False
        return LogPage(records=tuple(records), cursor=cursor, bounds=log.bounds)

    async def seek_tail(self, project_id: str, log_id: str, lines: int) -> int:
        """The cursor before the last `lines` lines; the start if there are fewer."""
        log = self._log(project_id, log_id)
        if lines <= 0:
            return log.end
        for record in reversed(log.records):
            if isinstance(record, LogChunk):
                if record.line_count >= lines:
                    return record.next_sequence - lines
                lines -= record.line_count
        return log.start

    async def seek_time(self, project_id: str, log_id: str, time: datetime) -> int:
        """The cursor before the first record that arrived at or after `time`, else the end."""
        log = self._log(project_id, log_id)
        for record, arrival in zip(log.records, log.times[-len(log.records) :], strict=False):
            if arrival >= time:
                return record.first_sequence
        return log.end

    async def delete(self, project_id: str) -> None:
        """Removes the project's log; without effect if there is none."""
        self._logs.pop(project_id, None)

    async def aclose(self) -> None:
        """Does nothing; the logs stay readable."""

    def _log(self, project_id: str, log_id: str) -> _Log:
        log = self._logs.get(project_id)
        if log is None or log.log_id != log_id:
            log = self._logs[project_id] = _Log(log_id)
        return log


class _Log:
    def __init__(self, log_id: str) -> None:
        self.log_id = log_id
        self.records: list[LogRecord] = []
        self.times: list[datetime] = []
        self.start = 0
        self.end = 0
        self._time = _FIRST_TIME

    @property
    def bounds(self) -> LogBounds:
        return LogBounds(log_id=self.log_id, start=self.start, end=self.end)

    def next_time(self, time: datetime | None) -> datetime:
        self._time = max(self._time, time or self._time + timedelta(milliseconds=1))
        return self._time

    def append(self, record: LogRecord) -> int:
        self.records.append(record)
        self.times.append(self._time)
        self.end = record.next_sequence
        return record.first_sequence


def _from(record: LogRecord, cursor: int) -> LogRecord:
    if isinstance(record, LogChunk):
        return record.slice(cursor, record.next_sequence)
    assert isinstance(record, LogGap), "a marker has one sequence number"
    count = record.next_sequence - cursor
    return replace(record, first_sequence=cursor, count=count, lost_lines=None)

"""A log store in memory, and ways to fill it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from att_server.core.log_facts import FreeSpace, LogInfo, LogSegment
from att_server.core.log_selection import Gathering, LineSelection
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
    space: what `free_space` says; what is removed is added to it.
    """

    def __init__(self) -> None:
        self.space = FreeSpace(free_bytes=1 << 40, total_bytes=1 << 40)
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

    def trim(
        self,
        project_id: str,
        log_id: str,
        before: int,
        *,
        reason: GapReason = GapReason.RETENTION,
    ) -> None:
        """Removes the records that lie before sequence number `before` as a whole."""
        log = self._log(project_id, log_id)
        while log.records and log.records[0].next_sequence <= before:
            gone = log.records.pop(0)
            log.times.pop(0)
            log.start = gone.next_sequence
            last = log.removed[-1] if log.removed else None
            if last is not None and last.reason is reason:
                last = log.removed.pop()
            else:
                last = LogGap(first_sequence=gone.first_sequence, count=0, reason=reason)
            log.removed.append(replace(last, count=log.start - last.first_sequence))

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
            missing = [gap for gap in log.removed if gap.next_sequence > cursor]
            records += [_from(gap, max(cursor, gap.first_sequence)) for gap in missing]
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

    def fresh(self, project_id: str, log_id: str, *, cursor: int, max_bytes: int) -> LogPage | None:
        """None: all of it is looked at."""
        return None

    def goes_on(self, project_id: str, log_id: str) -> bool:
        """Never: the log has one part."""
        return False

    async def select(
        self,
        project_id: str,
        log_id: str,
        selection: LineSelection,
        *,
        cursor: int,
        max_lines: int,
        max_bytes: int,
        scan_bytes: int,
    ) -> LogPage:
        """What is selected from `cursor` on, of up to `scan_bytes` bytes of lines."""
        page = await self.read(project_id, log_id, cursor=cursor, max_bytes=scan_bytes)
        gathering = Gathering(selection, cursor=cursor, max_lines=max_lines, max_bytes=max_bytes)
        gathering.add_all(page.records)
        return LogPage(
            records=tuple(gathering.records), cursor=gathering.cursor, bounds=page.bounds
        )

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
        for record, arrival in zip(log.records, log.times, strict=True):
            if arrival >= time:
                return record.first_sequence
        return log.end

    async def segments(self, project_id: str, log_id: str) -> Sequence[LogSegment]:
        """Each record is a part of its own; the last one is not removable."""
        log = self._log(project_id, log_id)
        return [
            LogSegment(
                first_sequence=record.first_sequence,
                next_sequence=record.next_sequence,
                size_bytes=len(record.lines) if isinstance(record, LogChunk) else 0,
                first_time=time,
                removable=record is not log.records[-1],
            )
            for record, time in zip(log.records, log.times, strict=True)
        ]

    async def remove(
        self, project_id: str, log_id: str, *, before: int, reason: GapReason
    ) -> LogBounds:
        """Removes records, but for the last."""
        log = self._log(project_id, log_id)
        for segment in await self.segments(project_id, log_id):
            if segment.removable and segment.next_sequence <= before:
                self.trim(project_id, log_id, segment.next_sequence, reason=reason)
                self.space = replace(
                    self.space, free_bytes=self.space.free_bytes + segment.size_bytes
                )
        return log.bounds

    async def info(self, project_id: str, log_id: str, *, since: datetime) -> LogInfo:
        """What the records add up to."""
        log = self._log(project_id, log_id)
        segments = await self.segments(project_id, log_id)
        recent = await self.seek_time(project_id, log_id, since)
        return LogInfo(
            bounds=log.bounds,
            size_bytes=sum(segment.size_bytes for segment in segments),
            segment_count=len(segments),
            first_time=log.times[0] if log.times else None,
            last_time=log.times[-1] if log.times else None,
            recent_records=log.end - recent,
            recent_bytes=sum(s.size_bytes for s in segments if s.first_sequence >= recent),
        )

    async def tend(self, project_id: str, log_id: str) -> bool:
        """There is nothing to do."""
        return False

    async def free_space(self) -> FreeSpace:
        """`space`."""
        return self.space

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
        self.removed: list[LogGap] = []
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
    if cursor == record.first_sequence:
        return record
    if isinstance(record, LogChunk):
        return record.slice(cursor, record.next_sequence)
    assert isinstance(record, LogGap), "a marker has one sequence number"
    count = record.next_sequence - cursor
    return replace(record, first_sequence=cursor, count=count, lost_lines=None)

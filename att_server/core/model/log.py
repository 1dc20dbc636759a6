"""What a log holds: lines in chunks, markers of runs, and gaps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from att_server.core.model.runs import RunExit


class LogStream(StrEnum):
    """An output stream of an app."""

    STDOUT = "stdout"
    STDERR = "stderr"


class GapReason(StrEnum):
    """Why records are missing (LogGapReason in `log.proto`)."""

    RETENTION = "retention"
    TRIMMED = "trimmed"
    STORAGE_FULL = "storage_full"
    DAMAGED = "damaged"
    MACHINE_CRASH = "machine_crash"
    GENERATION_CHANGED = "generation_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Consecutive lines of one stream of one run that arrived together.

    lines: each ended by a newline, at most 64 KiB, bytes as the app wrote them.
    partial: the last line goes on in the next line of this stream.
    unterminated: the app did not end the last line.
    offsets: distances of the lines from `first_sequence`; empty: 0, 1, 2 and so on.
    """

    first_sequence: int
    line_count: int
    time: datetime
    stream: LogStream
    run_id: str
    lines: bytes
    partial: bool = False
    unterminated: bool = False
    offsets: tuple[int, ...] = ()

    @property
    def next_sequence(self) -> int:
        """The sequence number after the last line."""
        return self.first_sequence + (self.offsets[-1] + 1 if self.offsets else self.line_count)

    def slice(self, start: int, stop: int) -> LogChunk:
        """The lines from sequence number `start` to before `stop`.

        start, stop: within the chunk, `start < stop`; it has no offsets. Flags stay
        with the last line.
        """
        if start == self.first_sequence and stop == self.next_sequence:
            return self
        lines = self.lines.split(b"\n")[:-1]
        kept = lines[start - self.first_sequence : stop - self.first_sequence]
        last = stop == self.next_sequence
        return replace(
            self,
            first_sequence=start,
            line_count=len(kept),
            lines=b"\n".join(kept) + b"\n",
            partial=self.partial and last,
            unterminated=self.unterminated and last,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run started; pid 0: it could not be started, the end marker follows."""

    sequence: int
    time: datetime
    run_id: str
    command: tuple[str, ...]
    pid: int
    release_id: str = ""

    @property
    def first_sequence(self) -> int:
        """The marker's sequence number."""
        return self.sequence

    @property
    def next_sequence(self) -> int:
        """The sequence number after the marker."""
        return self.sequence + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """A run ended, and all its lines lie before."""

    sequence: int
    run_id: str
    exit: RunExit

    @property
    def first_sequence(self) -> int:
        """The marker's sequence number."""
        return self.sequence

    @property
    def next_sequence(self) -> int:
        """The sequence number after the marker."""
        return self.sequence + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGap:
    """`count` sequence numbers from `first_sequence` on are missing."""

    first_sequence: int
    count: int
    reason: GapReason
    lost_lines: int | None = None

    @property
    def next_sequence(self) -> int:
        """The sequence number after the gap."""
        return self.first_sequence + self.count


LogRecord = LogChunk | RunStarted | RunEnded | LogGap


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """What a log holds: sequence numbers from `start` to before `end`."""

    log_id: str
    start: int
    end: int


@dataclass(slots=True, kw_only=True, eq=False)
class LogPage:
    """Consecutive records; `cursor` is where to go on. Not changed once it is made.

    Compared by identity: stores share pages between readers, who keep what they made of
    it in `forms`, by what it is for.
    """

    records: tuple[LogRecord, ...]
    cursor: int
    bounds: LogBounds
    forms: dict[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)

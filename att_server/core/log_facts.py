"""What there is to say of a log as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from att_server.core.model import LogBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """A part of a log that is removed as a whole.

    size_bytes: on disk. first_time: of its first record, where that is known.
    removable: whether it is complete, and nobody needs it to go on writing.
    """

    first_sequence: int
    next_sequence: int
    size_bytes: int
    first_time: datetime | None
    removable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInfo:
    """A log's range, size and pace.

    first_time, last_time: of the first and last record that is kept; None: there
    is none. recent_records, recent_bytes: what came since the time asked about,
    bytes as on disk.
    """

    bounds: LogBounds
    size_bytes: int
    segment_count: int
    first_time: datetime | None
    last_time: datetime | None
    recent_records: int
    recent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSpace:
    """The room on the file system that holds the logs, in bytes."""

    free_bytes: int
    total_bytes: int

"""What was removed of a log by TrimLogs: a small file beside its segments.

All else that is missing before the first segment was removed by retention, which
so needs to write nothing, also on a full disk.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from att_server.adapters.segment_index import INDEX_SUFFIX
from att_server.core.model import GapReason, LogGap
from att_server.supervisor.segment import segment_name

REMOVALS_NAME = "removed.json"
_MAX_ENTRIES = 1000
_REASONS = (GapReason.RETENTION, GapReason.TRIMMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removals:
    """Up to which sequence numbers records were removed, ascending, and why."""

    entries: tuple[tuple[int, GapReason], ...] = ()

    def with_trim(self, start: int, before: int) -> Removals:
        """With one more call of TrimLogs, which removed from `start` to before `before`."""
        kept = self.entries
        if before <= start:
            return self
        if kept and kept[-1][1] is GapReason.TRIMMED and kept[-1][0] >= start:
            kept = kept[:-1]
        elif start > (kept[-1][0] if kept else 0):
            kept = (*kept, (start, GapReason.RETENTION))
        # Of very many calls, the oldest are told as one.
        return Removals(entries=(*kept, (before, GapReason.TRIMMED))[-_MAX_ENTRIES:])

    def gaps(self, first: int, stop: int) -> Sequence[LogGap]:
        """What is said of missing records, one gap for each reason in a row."""
        gaps: list[LogGap] = []
        for before, reason in (*self.entries, (stop, GapReason.RETENTION)):
            end = min(before, stop)
            if end > first:
                gaps.append(LogGap(first_sequence=first, count=end - first, reason=reason))
                first = end
        return gaps

    @staticmethod
    def load(directory: Path, log_id: str) -> Removals:
        """What is known; a file of another log, or a damaged one, says nothing."""
        try:
            form: dict[str, Any] = json.loads((directory / REMOVALS_NAME).read_bytes())
            if form["log_id"] != log_id:
                return Removals()
            entries = [(int(e["before"]), GapReason(e["reason"])) for e in form["removed"]]
        except (OSError, ValueError, TypeError, KeyError):
            return Removals()
        return Removals(entries=tuple(entry for entry in entries if entry[1] in _REASONS))

    def keep(self, directory: Path, log_id: str) -> None:
        """Writes the file, durably. Raises OSError."""
        removed = [{"before": before, "reason": reason} for before, reason in self.entries]
        form = {"version": 1, "log_id": log_id, "removed": removed}
        path = directory / REMOVALS_NAME
        draft = path.with_suffix(".tmp")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(form).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        sync_directory(directory)


def remove_segments(
    directory: Path, log_id: str, sequences: Sequence[int], removals: Removals | None
) -> None:
    """Removes segments, the oldest first, and notes it with `removals`, if any.

    A full disk takes the note once they are gone. Raises OSError.
    """
    noted = removals is None or _noted(removals, directory, log_id)
    for sequence in sequences:
        path = directory / segment_name(sequence)
        path.with_suffix(INDEX_SUFFIX).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    if removals is not None and not noted:
        removals.keep(directory, log_id)
    sync_directory(directory)


def _noted(removals: Removals, directory: Path, log_id: str) -> bool:
    try:
        removals.keep(directory, log_id)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def sync_directory(path: Path) -> None:
    """Returns when what was renamed and removed in the directory is on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

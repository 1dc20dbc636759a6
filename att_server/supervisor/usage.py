"""What the trees of many apps use, by one look at all processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from att_server.supervisor import processes
from att_server.supervisor.processes import Process

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeUsage:
    """What the processes below one process use.

    cpu_percent: share of one processor since the look before, else since the
    start of the oldest of them. cpu_seconds: of the present processes.
    resident_bytes: memory that processes share counts for each.
    open_file_count: without the processes whose files are not ours to see.
    """

    cpu_percent: float
    cpu_seconds: float
    resident_bytes: int
    process_count: int
    open_file_count: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Processor time in ticks by process, and when they were looked at."""

    time: float
    cpu_ticks: Mapping[tuple[int, int], int]


class UsageMeter:
    """Measures trees again and again. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._before: dict[str, _Look] = {}

    def look(self, roots: Mapping[str, int]) -> dict[str, TreeUsage]:
        """What is used below the process ids `roots`, by their keys; absent where nothing is.

        Reads all of `/proc` once, however many trees are asked for. What is
        known of other keys is forgotten.
        """
        found: dict[str, TreeUsage] = {}
        before, self._before = self._before, {}
        everyone = processes.everyone() if roots else {}
        children = processes.by_parent(everyone)
        for key, root in roots.items():
            tree = processes.tree([root], children)
            if tree:
                now = time.clock_gettime(time.CLOCK_BOOTTIME)
                look = _Look(now, {(p.pid, p.ticks): p.cpu_ticks for p in tree})
                self._before[key] = look
                found[key] = _usage(tree, look, before.get(key))
        return found


def _usage(tree: list[Process], look: _Look, before: _Look | None) -> TreeUsage:
    spent = sum(look.cpu_ticks.values())
    if before is None:
        fresh, since = spent, min(process.ticks for process in tree) / _CLOCK_TICKS
    else:
        # A process that has ended meanwhile takes its time along.
        known = before.cpu_ticks
        fresh = sum(ticks - known.get(process, 0) for process, ticks in look.cpu_ticks.items())
        since = before.time
    # The start of a process is known to a tick only.
    elapsed = max(look.time - since, 1 / _CLOCK_TICKS)
    return TreeUsage(
        cpu_percent=100 * max(fresh, 0) / _CLOCK_TICKS / elapsed,
        cpu_seconds=spent / _CLOCK_TICKS,
        resident_bytes=sum(process.resident_pages for process in tree) * _PAGE,
        process_count=len(tree),
        open_file_count=sum(_open_files(process.pid) for process in tree),
    )


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # gone, or another user's
        return 0

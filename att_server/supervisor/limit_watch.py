"""The watch over a tree of processes: whether all of it together is within its limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from att_server.supervisor import processes
from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.limits import MEMORY_LIMIT, PROCESS_LIMIT, Limits

WATCH_INTERVAL = 0.5
"""Seconds between two looks at a tree with bounds, at least."""
_SHARE = 0.05
"""Of one processor, at most, goes into the looking."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class LimitWatch:
    """Looks now and then whether the tree below a process is within its limits."""

    def __init__(
        self, limits: Limits, root_pid: int | None = None, cgroup: Cgroup | None = None
    ) -> None:
        """root_pid: the subreaper above the tree; None is this process."""
        self._limits = limits
        self._root = os.getpid() if root_pid is None else root_pid
        self._cgroup = cgroup
        # In a control group the kernel watches the memory by itself.
        watched = limits.processes is not None or (limits.memory_bytes is not None and not cgroup)
        self.deadline: float | None = 0.0 if watched else None
        """When `check` is due, in monotonic seconds; None: never."""

    def check(self, now: float) -> str:
        """The limit that the tree is above, `memory_limit` or `process_limit`, else ``""``.

        Does nothing before `deadline`.
        """
        if self.deadline is None or now < self.deadline:
            return ""
        began = time.monotonic()
        found = self._look()
        # A large tree takes a while, and is not to be slowed by being watched.
        self.deadline = now + max(WATCH_INTERVAL, (time.monotonic() - began) / _SHARE)
        return found

    def _look(self) -> str:
        if self._cgroup is not None:
            count = len(self._cgroup.pids())
            return PROCESS_LIMIT if _above(count, self._limits.processes) else ""
        tree = processes.below(self._root)
        if _above(len(tree), self._limits.processes):
            return PROCESS_LIMIT
        if self._limits.memory_bytes is not None and _memory_above(tree, self._limits.memory_bytes):
            return MEMORY_LIMIT
        return ""


def _above(value: int, bound: int | None) -> bool:
    return bound is not None and value > bound


def _memory_above(tree: Iterable[processes.Process], bound: int) -> bool:
    pages = [(process.pid, process.resident_pages) for process in tree]
    if sum(count for _, count in pages) * _PAGE <= bound:
        return False
    # Memory that processes share was counted for each: only then is it worth
    # the milliseconds to have the kernel divide it among them.
    return sum(_proportional(pid, count * _PAGE) for pid, count in pages) > bound


def _proportional(pid: int, resident: int) -> int:
    """The process's own memory and its share of what it shares, in bytes."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0
    except OSError:  # another user's
        return resident
    return 0  # it ends just now

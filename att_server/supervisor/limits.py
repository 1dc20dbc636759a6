"""What an app may use: bounds on each process, and the watch over its whole tree."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from att_server.supervisor import processes

if TYPE_CHECKING:
    from att_server.supervisor.cgroup import Cgroup

MEMORY_LIMIT = "memory_limit"
PROCESS_LIMIT = "process_limit"
CPU_TIME_LIMIT = "cpu_time_limit"
OOM_KILLED = "oom_killed"

WATCH_INTERVAL = 0.5
"""Seconds between two looks at a tree with bounds, at least."""
_SHARE = 0.05
"""Of one processor, at most, goes into the looking."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what an app may use; None sets no bound.

    memory_bytes (resident), processes: of the tree. open_files, cpu_time
    (seconds): of each process.
    """

    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    cpu_time: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is bounded."""
        return self != _UNBOUNDED

    @property
    def of_tree(self) -> bool:
        """Whether something is bounded that only a look at the whole tree can tell."""
        return self.memory_bytes is not None or self.processes is not None

    def form(self) -> dict[str, object]:
        """The JSON object in `spec.json`."""
        return {
            "memory_bytes": self.memory_bytes,
            "open_files": self.open_files,
            "processes": self.processes,
            "cpu_time": self.cpu_time,
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object] | None) -> Limits:
        """The limits that a JSON object tells; what it lacks is not bounded."""
        given = form or {}
        whole = {
            name: None if given.get(name) is None else int(str(given[name]))
            for name in ("memory_bytes", "open_files", "processes")
        }
        cpu_time = given.get("cpu_time")
        return cls(**whole, cpu_time=None if cpu_time is None else float(str(cpu_time)))


_UNBOUNDED = Limits()


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


def end_reason(
    status: int,
    limits: Limits,
    *,
    pid: int,
    cpu_seconds: float,
    since: float,
    cgroup: Cgroup | None,
) -> str:
    """The limit, or the lack of memory, that ended a process; ``""`` if nothing proves one.

    status: its exit code, or minus the signal. cpu_seconds: what the process
    itself has used. since: when it was started, in monotonic seconds.
    """
    if limits.cpu_time is not None:
        if status == -signal.SIGXCPU:
            return CPU_TIME_LIMIT
        if status == -signal.SIGKILL and cpu_seconds >= limits.cpu_time:
            return CPU_TIME_LIMIT  # it took no notice of SIGXCPU
    if status != -signal.SIGKILL:
        return ""
    if cgroup is not None:
        return cgroup.end_reason()
    return OOM_KILLED if killed_for_memory(kernel_messages(), pid, since=since) else ""


# Memory of the machine ------------------------------------------------------

# Priority, number and microseconds since boot come first. An app can write there
# only as root, and then with another facility, which makes the priority 8 or more.
_KILLED = re.compile(
    rb"^[0-7],\d+,(?P<microseconds>\d+)[^;]*;(?:"
    rb"(?:(?:Memory cgroup out|Out) of memory: )?Killed process (?P<killed>\d+)\b"
    rb"|oom-kill:.*,pid=(?P<chosen>\d+),)"
)
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_CLOCKS_DIFFER = 0.001
"""Share by which the kernel's clock of messages may run apart from ours."""


def kernel_messages() -> Iterable[bytes]:
    """The records of `/dev/kmsg`; none where they cannot be read, or tell of other pids."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
            return
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        while True:
            try:
                yield os.read(descriptor, 8192)
            except BrokenPipeError:  # overwritten while we read; the next one is there
                continue
            except OSError:
                return
    finally:
        os.close(descriptor)


def killed_for_memory(messages: Iterable[bytes], pid: int, *, since: float) -> bool:
    """Whether records of `/dev/kmsg` say that the kernel killed `pid` for want of memory.

    since: monotonic seconds; what is older tells of another process with that pid.
    """
    earliest = since - 1 - since * _CLOCKS_DIFFER
    for message in messages:
        match = _KILLED.match(message)
        if match is None or int(match["killed"] or match["chosen"]) != pid:
            continue
        if int(match["microseconds"]) / 1e6 >= earliest:
            return True
    return False


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

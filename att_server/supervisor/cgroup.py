"""Control groups (v2): a tree that the kernel itself bounds, counts and ends.

They are used where the server was put into a subgroup of a group that is
delegated to it, as systemd does with `Delegate=yes` and `DelegateSubgroup=`.
Then the delegated group holds no process, so groups of apps can be made in it
beside the server's own. A server's group that holds the server itself is left
alone: dividing it would keep systemd from starting the server there again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time

from att_server.supervisor.limits import MEMORY_LIMIT, OOM_KILLED, Limits

_PREFIX = "att-"
_CONTROLLERS = frozenset({"memory", "pids"})
_GONE_WITHIN = 1.0
"""Seconds in which a group of killed processes becomes empty."""
_TASKS_PER_PROCESS = 64
"""The kernel counts threads. What is beyond any number of them cannot be made."""


class Cgroup:
    """The control group of one run's tree.

    There is at most one for a log, whose name it has: who holds the project's
    writer lock may take over or remove what a killed supervisor left.
    """

    def __init__(self, parent: str, log_id: str) -> None:
        """parent: the directory of a group that is delegated to us and holds no process."""
        self.path = os.path.join(parent, _PREFIX + log_id)

    @classmethod
    def for_run(cls, log_id: str, limits: Limits) -> Cgroup | None:
        """A new group with these limits; None if there is no need of one, or no place for it."""
        parent = delegated() if limits.of_tree else None
        if parent is None:
            return None
        try:
            _write(os.path.join(parent, "cgroup.subtree_control"), "+memory +pids")
            return cls.made(parent, log_id, limits)
        except OSError:  # without a group the tree is watched
            return None

    @classmethod
    def made(cls, parent: str, log_id: str, limits: Limits) -> Cgroup:
        """A new group in `parent` with these limits. Raises OSError."""
        group = cls(parent, log_id)
        group.clear()
        os.mkdir(group.path, 0o700)
        try:
            group._bound(limits)
        except OSError:
            group.close()
            raise
        return group

    def add(self, pid: int) -> None:
        """Puts a process into the group, 0 for this one. Raises OSError."""
        self._write("cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(line) for line in self._read("cgroup.procs").split()]

    def kill(self) -> None:
        """Ends all that is in it, also what is forked meanwhile. Never raises."""
        try:
            self._write("cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def end_reason(self) -> str:
        """`memory_limit` or `oom_killed` if the kernel has killed in it, else ``""``."""
        return reason_of_events(self._read("memory.events"))

    def clear(self) -> None:
        """Ends what is in it and removes it, if it is there. Never raises."""
        deadline = time.monotonic() + _GONE_WITHIN
        while os.path.isdir(self.path):
            self.kill()
            self.close()
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)

    def close(self) -> None:
        """Removes it, once nothing is left in it. Never raises."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def _bound(self, limits: Limits) -> None:
        if limits.memory_bytes is not None:
            self._write("memory.max", str(limits.memory_bytes))
            self._write("memory.oom.group", "1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                self._write("memory.swap.max", "0")
        if limits.processes is not None:
            self._write("pids.max", str(limits.processes * _TASKS_PER_PROCESS))

    def _write(self, name: str, text: str) -> None:
        _write(os.path.join(self.path, name), text)

    def _read(self, name: str) -> str:
        """What a file of the group holds; nothing if it is gone."""
        try:
            with open(os.path.join(self.path, name), encoding="ascii") as file:
                return file.read()
        except OSError:
            return ""


@functools.cache
def delegated(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> str | None:
    """The directory of the group in which groups for apps may be made, if there is one.

    root: where control groups v2 are mounted. membership: says which one is ours.
    """
    try:
        with open(membership, encoding="utf-8") as file:
            paths = [line[3:].rstrip("\n") for line in file if line.startswith("0::/")]
        parent = os.path.dirname(root + paths[0]) if paths and paths[0] != "/" else ""
        if not parent or not _is_delegated(parent) or not os.access(parent, os.W_OK):
            return None
        with open(os.path.join(parent, "cgroup.procs"), encoding="ascii") as file:
            if file.read():
                return None
        with open(os.path.join(parent, "cgroup.controllers"), encoding="ascii") as file:
            return parent if set(file.read().split()) >= _CONTROLLERS else None
    except OSError:
        return None


def clear(log_id: str) -> None:
    """Removes what a killed supervisor of this log left, whose lock the caller holds."""
    parent = delegated()
    if parent is not None:
        Cgroup(parent, log_id).clear()


def reason_of_events(events: str) -> str:
    """What `memory.events` of a group tells: its own limit, or the want of memory around it."""
    counts = dict(line.split() for line in events.splitlines())
    if counts.get("oom_kill", "0") == "0":
        return ""
    return MEMORY_LIMIT if counts.get("oom", "0") != "0" else OOM_KILLED


def _is_delegated(directory: str) -> bool:
    """Whether systemd says so; the second name is only root's to read."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)

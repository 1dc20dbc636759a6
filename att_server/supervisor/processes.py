"""The processes of this host, from `/proc`: who descends from whom, and ending them.

A pid is reused after its process is reaped, so no pid is trusted by itself: a
process is named by pid and start time (`ticks`, in clock ticks since boot), and
is signalled through a pidfd that was checked against both.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, for ever: no other has the same pid and ticks in this boot."""

    pid: int
    ticks: int
    parent: int
    zombie: bool


def boot_id() -> str:
    """The id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def find(pid: int) -> Process | None:
    """The process that has `pid` now, if any."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(pid=pid, ticks=int(fields[19]), parent=int(fields[1]), zombie=fields[0] in b"ZX")


def everyone() -> dict[int, Process]:
    """All processes by pid."""
    found = (find(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants(roots: Collection[int], among: dict[int, Process]) -> list[Process]:
    """The living processes below `roots`, without these, parents first."""
    children: dict[int, list[Process]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process)
    below: list[Process] = []
    seen = set(roots)
    heads: list[int] = list(roots)
    while heads:
        for child in children.get(heads.pop(0), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                heads.append(child.pid)
                below.append(child)
    return [process for process in below if not process.zombie]


def send(process: Process, number: int) -> bool:
    """Signals exactly this process; False if it is gone or not ours to signal."""
    with _opened(process) as descriptor:
        if descriptor is None:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def send_below(root: int, number: int) -> int:
    """Signals every living descendant of `root`; returns how many there were."""
    found = descendants([root], everyone())
    for process in found:
        send(process, number)
    return len(found)


def end_run(run_id: str, main: tuple[int, int] | None, *, within: float) -> bool:
    """Ends with SIGKILL every process of a run that lost its supervisor.

    A process belongs to the run if its environment says so, if it is `main`
    (pid, ticks), or if it descends from one that does. Returns whether all are
    gone, after at most `within` seconds.
    """
    deadline = time.monotonic() + within
    while True:
        members = _members(run_id, main)
        if not members:
            return True
        if time.monotonic() > deadline:
            return False
        for process in members:
            send(process, signal.SIGKILL)
        if not all(_await_end(process, deadline) for process in members):
            return False


def _members(run_id: str, main: tuple[int, int] | None) -> list[Process]:
    among = everyone()
    mark = f"ATT_RUN_ID={run_id}".encode()
    proven = [
        process
        for process in among.values()
        if not process.zombie
        and ((process.pid, process.ticks) == main or _carries(process.pid, mark))
    ]
    found = {process.pid: process for process in proven}
    found.update((process.pid, process) for process in descendants(list(found), among))
    found.pop(os.getpid(), None)
    return list(found.values())


def _carries(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return mark in file.read().split(b"\0")
    except OSError:  # gone, or another user's
        return False


def _await_end(process: Process, deadline: float) -> bool:
    with _opened(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


@contextlib.contextmanager
def _opened(process: Process) -> Iterator[int | None]:
    """A pidfd of exactly this process, None if it is gone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        now = find(process.pid)
        yield descriptor if now is not None and now.ticks == process.ticks else None
    finally:
        os.close(descriptor)

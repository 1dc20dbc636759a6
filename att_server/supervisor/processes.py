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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, for ever: no other has the same pid and ticks in this boot.

    cpu_ticks: processor time used by it. resident_pages: of its memory.
    """

    pid: int
    ticks: int
    parent: int
    zombie: bool
    cpu_ticks: int = field(default=0, compare=False)
    resident_pages: int = field(default=0, compare=False)


def boot_id() -> str:
    """The id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def find(pid: int) -> Process | None:
    """The process that has `pid` now, if any."""
    stat = _read(f"/proc/{pid}/stat")
    if stat is None:
        return None
    # The second field is the command in parentheses, which may hold anything.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 22)
    return Process(
        pid=pid,
        ticks=int(fields[19]),
        parent=int(fields[1]),
        zombie=fields[0] in b"ZX",
        cpu_ticks=int(fields[11]) + int(fields[12]),
        resident_pages=int(fields[21]),
    )


def find_running(pid: int, ticks: int | None = None) -> Process | None:
    """The process that has `pid` now, if it has not ended; with `ticks`, if it is that one."""
    process = find(pid)
    if process is None or process.zombie or ticks not in (None, process.ticks):
        return None
    return process


def everyone() -> dict[int, Process]:
    """All processes by pid."""
    found = (find(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def by_parent(among: Mapping[int, Process]) -> dict[int, list[Process]]:
    """The processes by the pid of their parent."""
    children: dict[int, list[Process]] = {}
    for process in among.values():
        children.setdefault(process.parent, []).append(process)
    return children


def descendants(roots: Collection[int], among: Mapping[int, Process]) -> list[Process]:
    """The living processes below `roots`, without these, parents first."""
    return tree(roots, by_parent(among))


def tree(roots: Collection[int], children: Mapping[int, list[Process]]) -> list[Process]:
    """As `descendants`, of what `by_parent` gave: for several trees of one look."""
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


def below(root: int) -> list[Process]:
    """The living processes below `root`, without it, parents first.

    Looks at these alone, where the kernel tells children; so it is cheap on a
    host with many processes, and may miss one that is forked meanwhile.
    """
    found: list[Process] = []
    heads = [root]
    seen = {root}
    while heads:
        children = _children(heads.pop(0))
        if children is None:
            return descendants([root], everyone())
        for pid in children:
            process = None if pid in seen else find(pid)
            if process is not None:
                seen.add(pid)
                heads.append(pid)
                found.append(process)
    return [process for process in found if not process.zombie]


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


def send_below(root: int, *numbers: int) -> None:
    """Signals every living descendant of `root`, with each of the numbers."""
    for process in descendants([root], everyone()):
        for number in numbers:
            send(process, number)


class Hunt:
    """Sends SIGKILL to all processes of a family, whatever they make meanwhile.

    A process that forks and exits at once is gone whenever a look at all
    processes is through. So every round looks at the new ones only, the newest
    first, and kills one as it is found. Not for longer than a second: pids are
    used again.
    """

    def __init__(
        self, ancestor: int | None = None, *, proven: Callable[[Process], bool] | None = None
    ) -> None:
        """The family: all below `ancestor`; all that are `proven` and all below these."""
        self.struck: list[Process] = []
        self._family = set() if ancestor is None else {ancestor}
        self._proven = proven
        self._known = {os.getpid()}
        self._unproven: set[int] = set()

    def strike(self) -> bool:
        """One round; whether it found any that no round before had found."""
        before = len(self.struck)
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - self._known
        self._look_at(sorted(pids, reverse=True))
        # In the order of their pids a child mostly comes after its parent.
        self._look_at(sorted(pids - self._known))
        return len(self.struck) > before

    def _look_at(self, pids: list[int]) -> None:
        me = os.getpid()
        for pid in pids:
            process = find(pid)
            if process is None:
                continue
            if process.parent in self._family or self._is_proven(process):
                self._family.add(pid)
                self._known.add(pid)
                if process.zombie:
                    continue
                self.struck.append(process)
                if process.parent == me:
                    # Ours to reap, so that the pid cannot be another's yet.
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                else:
                    send(process, signal.SIGKILL)
            elif process.parent in self._known or process.parent == 0:
                # Nobody of the family, whose parent is none either.
                self._known.add(pid)

    def _is_proven(self, process: Process) -> bool:
        if self._proven is None or process.zombie or process.pid in self._unproven:
            return False
        if self._proven(process):
            return True
        self._unproven.add(process.pid)
        return False


def end_run(
    run_id: str, main: tuple[int, int] | None, *, within: float, supervisor_id: str = ""
) -> bool:
    """Ends with SIGKILL every process of a run that lost its supervisor.

    A process belongs to the run if its environment says so, if it is `main`
    (pid, ticks), or if it descends from one that does. With `supervisor_id` of
    every run of that supervisor, whatever their ids: the last may not have been
    saved. Returns whether all are gone, after at most `within` seconds.
    """
    given = {"ATT_RUN_ID": run_id, "ATT_SUPERVISOR_ID": supervisor_id}
    marks = {f"{name}={value}".encode() for name, value in given.items() if value}
    deadline = time.monotonic() + within
    while True:
        hunt = Hunt(proven=lambda p: (p.pid, p.ticks) == main or _carries(p.pid, marks))
        until = min(deadline, time.monotonic() + 1)
        while hunt.strike() and time.monotonic() < until:
            pass
        if not hunt.struck:
            return True
        if not all(_await_end(process, deadline) for process in hunt.struck):
            return False


def _children(pid: int) -> list[int] | None:
    """The children of all threads of a process; None: this kernel does not tell."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    children: list[int] = []
    for thread in threads:
        text = _read(f"/proc/{pid}/task/{thread}/children")
        if text is not None:
            children += map(int, text.split())
        elif os.path.exists(f"/proc/{pid}/task/{thread}"):
            return None
    return children


def _read(path: str) -> bytes | None:
    """What a file below /proc holds; None if its process is gone."""
    # Without a file object, which would take as long as the reading.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        data = part = os.read(descriptor, 4096)
        while len(part) == 4096:
            part = os.read(descriptor, 4096)
            data += part
        return data
    except (FileNotFoundError, ProcessLookupError):
        return None
    finally:
        os.close(descriptor)


def _carries(pid: int, marks: set[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return not marks.isdisjoint(file.read().split(b"\0"))
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

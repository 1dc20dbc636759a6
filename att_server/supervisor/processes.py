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
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

_IS_KERNEL_THREAD = 0x200000


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, for ever: no other has the same pid and ticks in this boot.

    kernel: whether it runs no program, but is a thread of the kernel.
    cpu_ticks: processor time used by it. resident_pages: of its memory.
    """

    pid: int
    ticks: int
    parent: int
    zombie: bool
    kernel: bool = field(default=False, compare=False)
    cpu_ticks: int = field(default=0, compare=False)
    resident_pages: int = field(default=0, compare=False)


def boot_id() -> str:
    """The id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def find(pid: int) -> Process | None:
    """The process that has `pid` now, if any."""
    fields = stat(pid)
    if fields is None:
        return None
    return Process(
        pid=pid,
        ticks=int(fields[19]),
        parent=int(fields[1]),
        # Where other threads go on only the first has ended.
        zombie=fields[0] in b"ZX" and int(fields[17]) <= 1,
        kernel=bool(int(fields[6]) & _IS_KERNEL_THREAD),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        resident_pages=int(fields[21]),
    )


def find_running(pid: int, ticks: int | None = None) -> Process | None:
    """The process that has `pid` now, if it has not ended; with `ticks`, if it is that one."""
    process = find(pid)
    if process is None or process.zombie or ticks not in (None, process.ticks):
        return None
    return process


def stat(pid: int) -> list[bytes] | None:
    """The fields of `/proc/<pid>/stat` from the third on; None if the process is gone."""
    text = read(f"/proc/{pid}/stat")
    # The second field is the command in parentheses, which may hold anything.
    return None if text is None else text[text.rindex(b")") + 2 :].split()


def threads(pid: int) -> list[int]:
    """The ids of its threads; none if the process is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


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


def await_end(process: Process, deadline: float) -> bool:
    """Whether it ends before the deadline, in monotonic seconds."""
    with _opened(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def read(path: str) -> bytes | None:
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


def _children(pid: int) -> list[int] | None:
    """The children of all threads of a process; None: this kernel does not tell."""
    children: list[int] = []
    for thread in threads(pid):
        text = read(f"/proc/{pid}/task/{thread}/children")
        if text is not None:
            children += map(int, text.split())
        elif os.path.exists(f"/proc/{pid}/task/{thread}"):
            return None
    return children


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

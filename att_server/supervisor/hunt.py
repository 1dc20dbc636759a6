"""Ending a family of processes, also those who fork and exit faster than they can be looked at."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import time
from collections.abc import Callable

from att_server.supervisor import processes
from att_server.supervisor.processes import Process

_CHASE_WITHIN = 1.0
"""Seconds of one hunt after those who fork and exit at once."""
_PASSING = 0.001
"""Seconds that a process gets to come through exec, or to its end."""


class Whose(enum.Enum):
    """Whose a process is found to be."""

    FAMILY = enum.auto()
    STRANGER = enum.auto()
    NOBODY = enum.auto()  # it has ended
    UNKNOWN = enum.auto()  # for now


class Hunt:
    """Sends SIGKILL to all processes of a family, whatever they make meanwhile.

    A process that ends, or is killed, may have forked before, and after the list
    was read that it is in; so that list proves nothing of the family, and another
    is read. One that shows nobody new but living strangers is proof: whoever is
    not in it was forked later, by somebody who is in it and had been sent SIGKILL,
    and such a process forks no more.
    """

    def __init__(
        self,
        ancestor: int | None = None,
        *,
        proven: Callable[[Process], Whose] = lambda _: Whose.STRANGER,
    ) -> None:
        """The family: all below `ancestor`; all that are `proven` and all below these.

        ancestor: inherits the orphans among those below it.
        """
        self.struck: list[Process] = []
        self._family = set() if ancestor is None else {ancestor}
        self._inherits = ancestor is not None
        self._proven = proven
        self._told: dict[str, int] = {}
        """The pids of those that were looked at, and their ticks."""
        self._newest = _newest_pid()

    def strike(self) -> bool:
        """Reads a list; returns whether it proves that all that live have been sent SIGKILL."""
        # The newest are gone the soonest, and the kernel lists them last.
        names = os.listdir("/proc")[::-1]
        new = [int(name) for name in names if name not in self._told and name.isdigit()]
        whose = self._strike(new, at_once=self._inherits or bool(self._told))
        if Whose.UNKNOWN in whose and whose.isdisjoint({Whose.FAMILY, Whose.NOBODY}):
            time.sleep(_PASSING)
        # Pids are used again, and where they have begun anew from the lowest a
        # child may have come into the list before its parent.
        sure = whose <= {Whose.STRANGER} and self._same(names)
        return sure and _newest_pid() >= self._newest

    def _strike(self, pids: list[int], *, at_once: bool) -> set[Whose]:
        """Strikes those of the family; returns whose they all are.

        at_once: before all have been looked at, as they are gone in a moment. But
        then who has lost its parent by it is another's child.
        """
        found: dict[int, Process] = {}
        whose: dict[int, Whose] = {}
        for pid in pids:
            process = processes.find(pid)
            whose[pid] = self._whose(process)
            if process is not None:
                found[pid] = process
                if at_once and whose[pid] is Whose.FAMILY:
                    self._kill(process)
        heads = [found[pid] for pid in found if whose[pid] is Whose.FAMILY]
        self._family |= {process.pid for process in heads}
        below = processes.descendants(self._family, found)
        whose |= {process.pid: Whose.FAMILY for process in below}
        for process in below if at_once else (*heads, *below):
            self._kill(process)
        self._told |= {
            str(pid): process.ticks
            for pid, process in found.items()
            if whose[pid] is not Whose.UNKNOWN
        }
        return set(whose.values())

    def _whose(self, process: Process | None) -> Whose:
        if process is None or process.zombie:
            return Whose.NOBODY
        if process.pid == os.getpid():
            return Whose.STRANGER
        return Whose.FAMILY if process.parent in self._family else self._proven(process)

    def _kill(self, process: Process) -> None:
        self._family.add(process.pid)
        self.struck.append(process)
        if process.parent == os.getpid():
            # Ours to reap, so that the pid cannot be another's yet.
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        else:
            processes.send(process, signal.SIGKILL)

    def _same(self, names: list[str]) -> bool:
        """Whether none of these is another process by now than the one that was looked at."""
        found = (processes.find(int(name)) for name in names if name.isdigit())
        return all(
            process is None or self._told[str(process.pid)] == process.ticks for process in found
        )


def end_run(
    run_id: str, main: tuple[int, int] | None, *, within: float, supervisor_id: str = ""
) -> bool:
    """Ends with SIGKILL every process of a run that lost its supervisor.

    A process belongs to the run if its environment says so, if it is `main`
    (pid, ticks), or if it descends from one that does. With `supervisor_id` of
    every run of that supervisor, whatever their ids: the last may not have been
    saved. Returns whether all are gone, after at most `within` seconds and one
    hunt more; who cannot be told from one of the run counts as one.
    """
    given = {"ATT_RUN_ID": run_id, "ATT_SUPERVISOR_ID": supervisor_id}
    marks = {f"{name}={value}".encode() for name, value in given.items() if value}

    def proven(process: Process) -> Whose:
        if (process.pid, process.ticks) == main:
            return Whose.FAMILY
        if main is not None and process.ticks < main[1]:
            return Whose.STRANGER
        return _by_environment(process, marks)

    deadline = time.monotonic() + within
    while True:
        hunt = Hunt(proven=proven)
        sure = hunt.strike()
        until = time.monotonic() + _CHASE_WITHIN
        while not sure and time.monotonic() < until:
            sure = hunt.strike()
        if sure and not hunt.struck:
            return True
        if not all(processes.await_end(process, deadline) for process in hunt.struck):
            return False
        if time.monotonic() >= deadline:
            return False


def _by_environment(process: Process, marks: set[bytes]) -> Whose:
    if process.kernel:
        return Whose.STRANGER
    try:
        environment = _environment(process.pid)
    except PermissionError:  # another user's
        return Whose.STRANGER
    if environment:
        mine = not marks.isdisjoint(environment.split(b"\0"))
        return Whose.FAMILY if mine else Whose.STRANGER
    fields = processes.stat(process.pid)
    if fields is None:
        return Whose.NOBODY
    # In the middle of exec, and at its end, a process has no environment, which is
    # not an empty one.
    begin, end = int(fields[47]), int(fields[48])
    return Whose.STRANGER if 0 < begin == end else Whose.UNKNOWN


def _environment(pid: int) -> bytes | None:
    """Nothing if there is none now. Raises PermissionError."""
    found = processes.read(f"/proc/{pid}/environ")
    if found:
        return found
    # Where the first thread has ended the others tell.
    for thread in processes.threads(pid):
        if thread != pid:
            found = found or processes.read(f"/proc/{pid}/task/{thread}/environ")
    return found


def _newest_pid() -> int:
    """The pid that was given last."""
    with open("/proc/loadavg", "rb") as file:
        return int(file.read().split()[-1])

"""The servers of one state directory: which may be alive, who serves, how one is started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from subprocess import PIPE, Popen
from typing import Any

from att_server.supervisor import json_file, processes

SPARE_SERVES_WITHIN = 0.5
"""Seconds after the end of a server in which its spare has taken the directory."""
# Waits until it is on record: a launcher that dies in between leaves nothing behind.
_GATE = ("/bin/sh", "-c", 'read go && exec "$@" < /dev/null', "att")


def now() -> float:
    """Seconds since boot: no setting of the clock moves it, and every process has the same."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Child:
    """One start of a server: its process, made here or by a launcher before.

    form: what the record holds of it: launch, release, pid, ticks, since, due, `served`
    once it has, and `output`, the file that it prints to. since, due: when it began or
    began to serve, and when it has to serve, in seconds since boot. doom: why it was ended
    from here.
    """

    def __init__(self, form: Mapping[str, Any], process: Popen[bytes] | None = None) -> None:
        """Raises OSError or ValueError where the process is gone."""
        self.release, self.pid, self.doom = form["release"], form["pid"], ""
        self.pidfd, self._process = os.pidfd_open(self.pid), process
        found = processes.find_running(self.pid, form.get("ticks"))
        if found is None:
            os.close(self.pidfd)
            raise ValueError("it has ended, or another process has its pid")
        self.form = {**form, "ticks": found.ticks}

    @property
    def served(self) -> bool:
        """Whether it has served, and is not to do so again."""
        return bool(self.form.get("served"))

    def pass_gate(self, go: bool) -> None:
        """Lets it begin, or has it end."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError), self._process.stdin as gate:
                gate.write(b"go\n" if go else b"")

    def signal(self, number: int) -> None:
        """Signals it; without effect once it is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def end(self, reason: str) -> None:
        """Ends it at once, for a reason of its own making."""
        self.doom = self.doom or reason
        self.signal(signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it is gone."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def close(self) -> int | None:
        """Lets go of one that is gone; its exit code, negative for a signal; None: not known."""
        os.close(self.pidfd)
        return None if self._process is None else self._process.wait()


class Servers:
    """Of the children one serves, and one at most is new: it is to serve, or to serve again.

    Any other stands by: it has served, and does so again by itself when the one after it ends.
    """

    def __init__(self, state_dir: str, options: Sequence[str]) -> None:
        """options: for every server."""
        self.children: list[Child] = []
        self.serving: Child | None = None
        self._state_dir, self._options, self._served_at = state_dir, options, 0.0

    @property
    def new(self) -> Child | None:
        """The one that is to serve."""
        return next((c for c in self.children if c is not self.serving and not c.served), None)

    @property
    def stands_by(self) -> Child | None:
        """The first that stands by."""
        return next((c for c in self.children if c is not self.serving and c.served), None)

    def command(self, release: str) -> list[str]:
        """What starts a server of the release: its interpreter first."""
        python = [sys.executable]
        if release:
            python = [os.path.join(self._state_dir, release, ".venv", "bin", "python"), "-P"]
        return [*python, "-m", "att_server", "serve", "--take-over", *self._options]

    def start(self, command: Sequence[str], form: Mapping[str, Any]) -> Child:
        """Starts a new one as far as its gate. Raises OSError, ValueError."""
        left_out = ["NOTIFY_SOCKET"]
        if form["release"]:  # nothing leads it to the modules of another one
            left_out += ["PYTHONPATH", "PYTHONHOME"]
        env = {key: value for key, value in os.environ.items() if key not in left_out}
        env["ATT_LAUNCH"] = str(form["launch"])
        env["ATT_RELEASE_ID"] = os.path.basename(form["release"])
        with open(form["output"], "wb") as out:
            process = Popen([*_GATE, *command], env=env, stdin=PIPE, stdout=out, stderr=out)
        self.children.append(Child({**form, "pid": process.pid}, process))
        return self.children[-1]

    def remove(self, child: Child) -> int | None:
        """Lets go of one that is gone; its exit code, as `Child.close` has it."""
        self.children.remove(child)
        if child is self.serving:
            self.serving, self._served_at = None, now()
        return child.close()

    def holder(self) -> tuple[int, str]:
        """The process that holds the state directory, or did, and how far it is (`tenure`)."""
        held = json_file.read_or_empty(os.path.join(self._state_dir, "att.lock"))
        return int(held.get("pid", 0)), str(held.get("tenure", ""))

    def is_served(self) -> bool:
        """Whether anybody serves, or is about to. A spare is no child: the lock tells of it."""
        pid, tenure = self.holder()
        begins = self.new is not None and (pid, tenure) == (self.new.pid, "begins")
        lives = tenure != "ended" and processes.find_running(pid) is not None
        if self.serving is not None or (lives and not begins):
            self._served_at = now()
        return now() < self._served_at + SPARE_SERVES_WITHIN

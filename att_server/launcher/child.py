"""A server's process: started here, or found by a launcher that came later."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from att_server.supervisor import processes

_KEPT = 4096
# Waits until it is on record: a launcher that dies in between leaves nothing behind.
_GATE = 'read go && exec "$@" < /dev/null'


class Child:
    """One start of a server.

    form: what the record holds of it: launch, release, pid, ticks, since, due, `served`
    once it has, and `output`, the file that it prints to. since, due: when it began or
    began to serve, and when it has to serve, in seconds since boot. doom: why it was ended
    from here.
    """

    def __init__(
        self, form: Mapping[str, Any], process: subprocess.Popen[bytes] | None = None
    ) -> None:
        """form: of the record. Raises OSError or ValueError where the process is gone."""
        self.launch, self.release, self.pid = form["launch"], form["release"], form["pid"]
        self.since, self.due, self.doom = float(form["since"]), float(form["due"]), ""
        self.pidfd, self._process = os.pidfd_open(self.pid), process
        found = processes.find(self.pid)
        if found is None or found.zombie or found.ticks != form.get("ticks", found.ticks):
            os.close(self.pidfd)
            raise ValueError("it has ended, or another process has its pid")
        self.form = {**form, "ticks": found.ticks}

    @classmethod
    def start(
        cls, command: Sequence[str], env: Mapping[str, str], form: Mapping[str, Any]
    ) -> Child:
        """Starts it as far as the gate. Raises OSError."""
        gated = ["/bin/sh", "-c", _GATE, "att", *command]
        with open(form["output"], "wb") as out:
            process = subprocess.Popen(
                gated, env=env, stdin=subprocess.PIPE, stdout=out, stderr=out
            )
        return cls({**form, "pid": process.pid}, process)

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

    def output(self) -> str:
        """The end of what it printed; once it serves, it logs elsewhere."""
        with contextlib.suppress(OSError), open(self.form["output"], "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _KEPT))
            return file.read(_KEPT).decode(errors="replace")
        return ""

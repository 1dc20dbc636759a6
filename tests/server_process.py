"""The real server as a process of its own, for tests that kill it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests import canary

PATIENCE = 120.0
"""Seconds after which something that does not happen has failed."""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition` holds, which another process brings about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {PATIENCE} s: {what}")
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether the process runs: one that waits for its parent to look does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ServerProcess:
    """`python -m att_server` on one state directory, again and again.

    As a context it ends the server and every supervisor with its app.
    """

    def __init__(
        self,
        state_dir: Path,
        *options: str,
        environ: Mapping[str, str] | None = None,
        module: str = "att_server",
        under: Sequence[str] = (),
    ) -> None:
        """environ: over the environment of the tests. module: run in place of the server's.
        under: the words of a command that executes the server, such as setpriv."""
        self.module = module
        self.under = under
        self.state_dir = state_dir
        self.options = options
        self.environ = {} if environ is None else environ
        self.process: subprocess.Popen[str] | None = None
        self.ready = ""

    @property
    def target(self) -> str:
        return f"unix:{self.state_dir}/att.sock"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Returns once it serves."""
        log = self.state_dir.parent / f"{self.state_dir.name}.log"
        command = (sys.executable, "-m", self.module)
        with log.open("ab") as err:
            self.process = subprocess.Popen(
                [*self.under, *command, "--state-dir", self.state_dir, *self.options],
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("att: ready"), f"{line!r}: {log.read_text()[-4000:]}"
        self.ready = line

    def kill(self) -> None:
        """SIGKILL, and returns when it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def supervisor_states(self) -> list[dict[str, object]]:
        """What every supervisor wrote last."""
        return [
            json.loads(path.read_text())
            for path in self.state_dir.glob("projects/*/supervisors/*/state.json")
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        found = [] if self.process is None else canary.in_children(self.pid)
        if self.process is not None:
            self.kill()
        for state in self.supervisor_states():
            pid = state["pid"]
            assert isinstance(pid, int)
            ended = state["state"] in ("stopped", "exited", "failed")
            if not ended and alive(pid) and psutil.Process(pid).name() == "att-supervisor":
                with contextlib.suppress(ProcessLookupError):  # it ends just now
                    os.kill(pid, signal.SIGTERM)
                wait_until(partial(_gone, pid), f"the end of supervisor {pid}")
        assert found == []


def _gone(pid: int) -> bool:
    return not alive(pid)

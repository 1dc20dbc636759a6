"""A start in vain, which a process in reserve goes through while it has nothing to do.

A forked process shares its memory with its parent until it writes there, and in
Python whatever is used is written. What a rehearsal has used is its own then, and
a start need not wait for hundreds of pages to be copied one by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from att_server.supervisor import processes
from att_server.supervisor.control import Peer
from att_server.supervisor.log_files import Files
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.own_log import OwnLog
from att_server.supervisor.record import Record
from att_server.supervisor.running import Running
from att_server.supervisor.segment import run_to_text
from att_server.supervisor.settle import settle, started_marker
from att_server.supervisor.spec import Spec
from att_server.supervisor.start_failure import StartFailed
from att_server.supervisor.state import STARTING, Run, State, utc

_NOWHERE = "/proc/self/task"
"""A directory in which nothing can be made."""
_RUN = bytes(16)


class _NoFiles(Files):
    """Keeps nothing."""

    def make_directory(self, path: Path) -> None:
        pass

    def open(self, path: Path, flags: int) -> int:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        return os.writev(fd, buffers)

    def sync(self, fd: int) -> None:
        pass

    def rename(self, source: Path, target: Path) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def rehearse() -> bool:
    """Does what a start does, less its effects: there is no file, process or thread of it.

    Returns whether it came to its end. A start can do without.
    """
    try:
        _start(Spec.from_form(json.loads(json.dumps(_spec().form()))))
    except OSError:
        return False
    return True


def _spec() -> Spec:
    return Spec(
        supervisor_id="",
        project_id="",
        log_id="",
        epoch=0,
        digest="",
        command=(f"{_NOWHERE}/nothing",),
        directory="/",
        env={},
        grace=timedelta(0),
        probed=False,
    )


def _start(spec: Spec) -> None:
    """Raises OSError."""
    settle(_NOWHERE, log_id="", boot_id="")
    log = LogWriter.open(Path(_NOWHERE), log_id="", boot_id="", files=_NoFiles())
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        server = Peer(ours)
        server.told = True
        processes.find(os.getpid())
        state = State.unknown("", "", log_id="", boot_id="")
        record = Record(_NOWHERE, state, server.offer_state, OwnLog(None))
        run = Run(run_id=run_to_text(_RUN), start_time=utc(time.time()))
        record.note(state=STARTING, run=run, marker_sequence=log.next_sequence)
        with contextlib.suppress(StartFailed):
            Running(epoll, log, spec, run=_RUN, secrets={}, on_growth=lambda: None)
        log.append_started(_RUN, started_marker(spec.command, 0, spec.release_id))
        log.close()
        record.tell()
        server.send()
        State.from_form(json.loads(theirs.recv(4096))["state"])

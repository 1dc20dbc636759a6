"""A helper command of the server: run, watched and ended with all it has started."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from att_server.supervisor import wakeup
from att_server.supervisor.app_process import PIPE_BYTES, AppProcess
from att_server.supervisor.start_failure import StartFailed

OUTPUT_BYTES = 4 * 1024
"""How much of the end of what a command prints is kept, unless more is asked for."""
_READ_BYTES = 64 * 1024
_KILL_AGAIN = 0.02
"""Seconds between two looks at a tree that does not end at once."""


def run(connection: socket.socket, request: Mapping[str, Any]) -> Mapping[str, object] | None:
    """Runs the command of a request and returns its result once its tree is gone.

    request: `command`, `directory`, `env`, `timeout` (seconds), `input` (base64)
    if the command is to read anything, `run_as` if it is to run as another user,
    and `output_bytes`, how much of the end of its output is kept. The result has
    one of `exit_code`, `signal`, `timed_out`, `start_error`, and `output` (base64).

    connection: nothing comes over it. When the server closes it, or dies, the
    command is ended at once and nobody waits for a result: None. This process
    is a subreaper and has no other children.
    """
    deadline = time.monotonic() + request["timeout"]
    with contextlib.ExitStack() as opened:
        try:
            stdin = _input(opened, base64.b64decode(request.get("input", "")))
            keeps = int(request.get("output_bytes", OUTPUT_BYTES))
            command = _Command(connection, deadline, keeps=keeps)
            command.start(
                AppProcess(
                    request["command"],
                    request["directory"],
                    request["env"],
                    stdin=stdin,
                    run_as=request.get("run_as", ""),
                )
            )
        except StartFailed as error:
            return {"start_error": str(error)}
        except OSError as error:
            return {"start_error": f"{request['command'][0]}: {error.strerror}"}
    return command.result()


class _Command:
    """A running command, on an epoll with its pipes, its end and its server."""

    def __init__(self, connection: socket.socket, deadline: float, *, keeps: int) -> None:
        self._connection = connection
        self._deadline = deadline
        self._keeps = keeps
        self._output = bytearray()
        self._timed_out = False
        self._wanted = True
        self._pipes: set[int] = set()
        self._epoll = select.epoll()
        # Before the command is started, so that no end is missed.
        self._ends = wakeup.on(signal.SIGCHLD)
        self._epoll.register(self._ends, select.EPOLLIN)
        self._epoll.register(connection, select.EPOLLRDHUP)

    def start(self, process: AppProcess) -> None:
        self._process = process
        self._pipes = {process.stdout, process.stderr}
        for pipe in self._pipes:
            self._epoll.register(pipe, select.EPOLLIN)

    def result(self) -> Mapping[str, object] | None:
        """Returns when the command and all it has started are gone."""
        again: float | None = None
        while self._process.reap():
            now = time.monotonic()
            if again is None and now >= self._deadline and self._process.status is None:
                self._timed_out = True
            over = self._process.status is not None or self._timed_out or not self._wanted
            if over and (again is None or now >= again):
                self._process.kill()
                again = now + _KILL_AGAIN
            due = now if self._process.behind else again or self._deadline
            self._wait(max(0.0, due - now))
        for pipe in list(self._pipes):
            self._read_rest(pipe)
        if not self._wanted:
            return None
        return {**self._cause(), "output": base64.b64encode(self._output).decode()}

    def _wait(self, seconds: float) -> None:
        for descriptor, _ in self._epoll.poll(seconds):
            if descriptor in self._pipes:
                self._read(descriptor)
            elif descriptor == self._ends:
                os.read(self._ends, 512)
            else:
                self._epoll.unregister(self._connection)
                self._wanted = False

    def _read_rest(self, pipe: int) -> None:
        # No more than a pipe holds: a stranger who fills it does not keep us.
        for _ in range(0, PIPE_BYTES, _READ_BYTES):
            if pipe in self._pipes:
                self._read(pipe)

    def _read(self, pipe: int) -> None:
        try:
            data = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._pipes.remove(pipe)
            self._epoll.unregister(pipe)
        self._output += data
        del self._output[: -self._keeps]

    def _cause(self) -> dict[str, object]:
        status = self._process.status
        assert status is not None  # there is nothing left to reap
        if self._timed_out:
            return {"timed_out": True}
        return {"exit_code": status} if status >= 0 else {"signal": -status}


def _input(opened: contextlib.ExitStack, data: bytes) -> int | None:
    """A file with the command's input, which needs nobody to feed it."""
    if not data:
        return None
    file = os.memfd_create("input", os.MFD_CLOEXEC)
    opened.callback(os.close, file)
    os.write(file, data)
    os.lseek(file, 0, os.SEEK_SET)
    return file

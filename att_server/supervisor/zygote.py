"""The zygote: a small process that has loaded all that a supervisor needs, and forks it.

The server starts one and speaks to it over a SOCK_SEQPACKET socket. A request
is one message, a JSON object with `job`, and one descriptor, a connected stream
socket to the server, over which the job speaks for itself. The zygote keeps one
process in reserve that waits for the next request, since a fork takes longer
than all the rest of a start. Both end with their server.

Jobs:
- `run` (`directory`, `boot_id`): a supervisor for the `spec.json` there; the
  socket is its first control connection.
- `settle` (`project`, `log_id`, `boot_id`): `settle.settle`, answered with `settled`.

A job that has no effect says `{"refused": reason, "message": …}` and closes.
Reasons: `locked` (another process holds the project), `failed`.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from att_server.supervisor import app_process
from att_server.supervisor.process import Supervisor, take_lock
from att_server.supervisor.settle import settle
from att_server.supervisor.state import Spec

CRASH_FILE = "crash.txt"
LOCK_WITHIN = 1.0
"""Seconds that a supervisor whose end is on disk already gets to let go of the project."""
_MAX_REQUEST = 64 * 1024
_PR_SET_NAME = 15


def main(descriptor: int) -> None:
    """Serves the socket `descriptor` until the server closes its end."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _name("att-zygote")
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    # What is frozen is never touched by a collection, so its pages stay shared.
    gc.collect()
    gc.freeze()
    while _served(channel):
        try:
            _await_taken(channel)
        except OSError as error:
            _refuse_next(channel, f"no process could be started: {error.strerror}")


def refuse(connection: socket.socket, reason: str, message: str) -> None:
    """Tells the server that the job had no effect."""
    connection.setblocking(False)
    _tell(connection, {"refused": reason, "message": message})


def _served(channel: socket.socket) -> bool:
    """Whether the server is still there."""
    try:
        return bool(channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True


def _await_taken(channel: socket.socket) -> None:
    """Has a process wait for the next request, and returns when it has one or is gone.

    The process is nobody's child and has a session of its own. Raises OSError.
    """
    taken, takes = os.pipe2(os.O_CLOEXEC)
    try:
        between = os.fork()
        if between == 0:
            status = 1
            try:
                if os.fork() == 0:
                    os.close(taken)
                    _await_job(channel, takes)
                status = 0
            finally:
                os._exit(status)
        os.close(takes)
        takes = -1
        _, status = os.waitpid(between, 0)
        if status != 0:
            raise ChildProcessError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        os.read(taken, 1)
    finally:
        os.close(taken)
        if takes >= 0:
            os.close(takes)


def _await_job(channel: socket.socket, takes: int) -> None:
    os.setsid()
    message, connection = _receive(channel)
    os.close(takes)
    channel.close()
    if connection is not None:
        _work(connection, json.loads(message))


def _receive(channel: socket.socket) -> tuple[bytes, socket.socket | None]:
    """The next request and its descriptor, None when the server is gone."""
    message, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 1)
    return message, socket.socket(fileno=descriptors[0]) if descriptors else None


def _refuse_next(channel: socket.socket, message: str) -> None:
    _, connection = _receive(channel)
    if connection is not None:
        with connection:
            refuse(connection, "failed", message)


def _work(connection: socket.socket, request: Mapping[str, Any]) -> None:
    # The server's own terminal or pipe must not be held open by what outlives it.
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    _name("att-supervisor")
    try:
        if request["job"] == "run":
            _supervise(connection, request["directory"], request["boot_id"])
        else:
            _settle(connection, request["project"], request["log_id"], request["boot_id"])
    except BaseException as error:  # the last resort of a process without a terminal
        _leave_word(request)
        refuse(connection, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        os._exit(0)


def _supervise(connection: socket.socket, directory: str, boot_id: str) -> None:
    spec = Spec.load(directory)
    project = os.path.dirname(os.path.dirname(directory))
    deadline = time.monotonic() + LOCK_WITHIN
    while (lock := take_lock(project)) is None:
        if time.monotonic() > deadline:
            refuse(connection, "locked", "another supervisor has the project")
            return
        time.sleep(0.005)
    app_process.become_subreaper()
    settle(project, log_id=spec.log_id, boot_id=boot_id)
    Supervisor(directory, spec, lock=lock, boot_id=boot_id, server=connection).run()


def _settle(connection: socket.socket, project: str, log_id: str, boot_id: str) -> None:
    if take_lock(project) is None:
        refuse(connection, "locked", "a supervisor has the project")
        return
    settle(project, log_id=log_id, boot_id=boot_id)
    _tell(connection, {"settled": True})


def _tell(connection: socket.socket, message: Mapping[str, object]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # the server is gone; there is nobody else to tell


def _leave_word(request: Mapping[str, Any]) -> None:
    directory = request.get("directory") or request["project"]
    try:
        with open(os.path.join(directory, CRASH_FILE), "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    except OSError:
        return


def _name(name: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The zygote: a small process that has loaded all that a supervisor needs, and forks it.

The server starts one and speaks to it over a SOCK_SEQPACKET socket. A request
is one message, a JSON object with `job`, and one descriptor, a connected stream
socket to the server; the zygote answers nothing itself. It ends with its server.

Jobs:
- `run` (`directory`, `boot_id`): a supervisor for the `spec.json` there; the
  socket is its first control connection.
- `settle` (`project`, `log_id`, `boot_id`): `settle.settle`, answered with `settled`.

A job that has no effect says `{"refused": reason, "message": …}` and closes.
Reasons: `locked` (another process holds the project), `failed`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from att_server.supervisor import app_process
from att_server.supervisor.process import Supervisor, take_lock
from att_server.supervisor.settle import settle
from att_server.supervisor.state import Spec

CRASH_FILE = "crash.txt"
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
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as connection:
            try:
                _fork(channel, connection, json.loads(message))
            except OSError as error:
                refuse(connection, "failed", f"no process could be started: {error.strerror}")


def refuse(connection: socket.socket, reason: str, message: str) -> None:
    """Tells the server that the job had no effect."""
    connection.setblocking(False)
    _tell(connection, {"refused": reason, "message": message})


def _fork(channel: socket.socket, connection: socket.socket, request: Mapping[str, Any]) -> None:
    """Starts the job in a process that is nobody's child, in a session of its own."""
    between = os.fork()
    if between == 0:
        try:
            if os.fork() == 0:
                channel.close()
                os.setsid()
                _work(connection, request)
        except OSError as error:
            refuse(connection, "failed", f"no process could be started: {error.strerror}")
        finally:
            os._exit(0)
    os.waitpid(between, 0)


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
    lock = take_lock(project)
    if lock is None:
        refuse(connection, "locked", "another supervisor has the project")
        return
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

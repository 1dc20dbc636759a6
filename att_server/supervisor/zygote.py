"""The zygote: a small process that has loaded all that a supervisor needs, and forks it.

The server starts one and speaks to it over a SOCK_SEQPACKET socket. A request
is one message, a JSON object with `job`, and one descriptor, a connected stream
socket to the server, over which the job speaks for itself. The zygote keeps one
process in reserve that waits for the next request and has rehearsed it, since
a fork and the first use of what is forked take longer than all the rest of a
start. Both end with their server.

Jobs:
- `run` (`directory`, `log_id`, `boot_id`): a supervisor. At once it takes over
  the project that the directory is in, settles it and opens its log, but it
  starts nothing until the first line on the socket says so: from then on
  `spec.json` is there. The line is `{"secrets": {name: value}}`, a part of the
  environment that is written nowhere, and the socket is the first control
  connection. Where it is closed instead, the job has had no effect.
- `settle` (`project`, `log_id`, `boot_id`): `settle.settle`, answered with `settled`.
- `reach`: `reach.reach` of the request (`run_as`, `directory`), answered with its result.
- `command`: the request is the first line on the socket, since an environment
  can be too large for a message; see `command.run`. Answered with `begun` once
  the line is there, and then with the result.

A job that has no effect says `{"refused": reason, "message": …}` and closes.
Reasons: `locked` (another process holds the project), `failed`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from att_server.supervisor import app_process, cgroup, command
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.own_log import OwnLog
from att_server.supervisor.process import Supervisor
from att_server.supervisor.reach import reach
from att_server.supervisor.rehearsal import rehearse
from att_server.supervisor.settle import settle
from att_server.supervisor.spec import Spec
from att_server.supervisor.state import LOGS
from att_server.supervisor.writer_lock import take_lock

LOCK_WITHIN = 1.0
"""Seconds that a supervisor whose end is on disk already gets to let go of the project."""
_MAX_REQUEST = 64 * 1024
_MAX_LINE = 2 * 1024 * 1024
_LINE_WITHIN = 5.0
"""Seconds that the server has to send the first line of a command."""
_ORDER_WITHIN = 60.0
"""Seconds that it has to store that an app is to run, and to say so."""
_CALM = 0.01
"""Seconds without a further request in which a start has the processors for itself."""
_FORK_AGAIN = 0.05
"""Seconds after which a process that ended without a request is replaced."""
_PR_SET_NAME = 15


def main(descriptor: int) -> None:
    """Serves the socket `descriptor` until the server closes its end.

    It first says its own pid, as it is no child of the server: who ends the
    server with all its descendants does not mean the apps.
    """
    if os.fork() != 0:
        os._exit(0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    _name("att-zygote")
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    try:
        channel.send(json.dumps({"pid": os.getpid()}).encode())
    except OSError:
        return  # the server is gone
    # Nobody waits for the children, which outlive this process anyway.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    cgroup.delegated()  # is remembered for all that are forked
    # What is frozen is never touched by a collection, so its pages stay shared.
    gc.collect()
    gc.freeze()
    while _served(channel):
        _asked(channel, within=_CALM)
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


def _asked(channel: socket.socket, *, within: float) -> bool:
    """Whether a request waits, or the server is gone, after at most so many seconds."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(within * 1000))


def _await_taken(channel: socket.socket) -> None:
    """Has a process wait for the next request, and returns when it has one or is gone.

    Raises OSError.
    """
    taken, takes = os.pipe2(os.O_CLOEXEC)
    try:
        if os.fork() == 0:
            try:
                os.close(taken)
                _await_job(channel, takes)
            finally:
                os._exit(0)
        os.close(takes)
        takes = -1
        if not os.read(taken, 1):
            time.sleep(_FORK_AGAIN)  # it was killed; so may be the next one
    finally:
        os.close(taken)
        if takes >= 0:
            os.close(takes)


def _await_job(channel: socket.socket, takes: int) -> None:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not _asked(channel, within=0):
        rehearse()
    message, connection = _receive(channel)
    os.write(takes, b".")
    os.close(takes)
    channel.close()
    if connection is not None:
        _work(connection, json.loads(message))


def _receive(channel: socket.socket) -> tuple[bytes, socket.socket | None]:
    """The next request and its descriptor, None when the server is gone."""
    message, descriptors, _, _ = socket.recv_fds(channel, _MAX_REQUEST, 1)
    if not descriptors:
        return message, None
    connection = socket.socket(fileno=descriptors[0])
    connection.set_inheritable(False)
    return message, connection


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
    secrets: dict[str, str] = {}
    try:
        match request["job"]:
            case "run":
                _name("att-supervisor")
                _supervise(connection, request, secrets)
            case "settle":
                _name("att-settle")
                _settle(connection, request["project"], request["log_id"], request["boot_id"])
            case "reach":
                _name("att-reach")
                _tell(connection, reach(request))
            case "command":
                _name("att-command")
                _command(connection)
            case unknown:
                refuse(connection, "failed", f"{unknown!r} is no job")
    except BaseException as error:  # the last resort of a process without a terminal
        refuse(connection, "failed", _leave_word(request, error, secrets))
        raise
    finally:
        os._exit(0)


def _supervise(
    connection: socket.socket, request: Mapping[str, Any], secrets: dict[str, str]
) -> None:
    """secrets: is filled as they come, for whoever tells of an error."""
    directory, log_id, boot_id = request["directory"], request["log_id"], request["boot_id"]
    project = os.path.dirname(os.path.dirname(directory))
    # Of a project that never ran there is no directory, until the server has made our own.
    os.makedirs(project, mode=0o700, exist_ok=True)
    deadline = time.monotonic() + LOCK_WITHIN
    while (lock := take_lock(project)) is None:
        if time.monotonic() > deadline:
            refuse(connection, "locked", "another supervisor has the project")
            return
        time.sleep(0.005)
    app_process.become_subreaper()
    earlier = settle(project, log_id=log_id, boot_id=boot_id)
    cgroup.clear(log_id)
    log = LogWriter.open(Path(project, LOGS), log_id=log_id, boot_id=boot_id)
    order = _first_line(connection, within=_ORDER_WITHIN)
    if order is None:
        log.close()
        return
    secrets.update(order["secrets"])
    Supervisor(
        directory,
        Spec.load(directory),
        lock=lock,
        log=log,
        boot_id=boot_id,
        earlier=earlier,
        server=connection,
        secrets=secrets,
    ).run()


def _command(connection: socket.socket) -> None:
    request = _first_line(connection, within=_LINE_WITHIN)
    if request is None:
        return
    _tell(connection, {"begun": True})
    app_process.become_subreaper()
    result = command.run(connection, request)
    if result is not None:
        _tell(connection, result)


def _first_line(connection: socket.socket, *, within: float) -> Mapping[str, Any] | None:
    """The JSON object in the first line; nothing behind it is taken.

    None: the connection was closed instead. Raises OSError, ValueError.
    """
    connection.settimeout(within)
    line = bytearray()
    while not line.endswith(b"\n"):
        seen = connection.recv(_MAX_REQUEST, socket.MSG_PEEK)
        if not seen and not line:
            return None
        if not seen or len(line) > _MAX_LINE:
            raise ValueError("the first line did not come as a whole")
        line += connection.recv(seen.find(b"\n") + 1 or len(seen))
    connection.settimeout(None)
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError("the first line is no JSON object")
    return request


def _settle(connection: socket.socket, project: str, log_id: str, boot_id: str) -> None:
    if take_lock(project) is None:
        refuse(connection, "locked", "a supervisor has the project")
        return
    settle(project, log_id=log_id, boot_id=boot_id)
    cgroup.clear(log_id)
    _tell(connection, {"settled": True})


def _tell(connection: socket.socket, message: Mapping[str, object]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # the server is gone; there is nobody else to tell


def _leave_word(
    request: Mapping[str, Any], error: BaseException, secrets: Mapping[str, str]
) -> str:
    """Writes down why a job of a project failed; returns what may be told of it."""
    project = request.get("project")
    if project is None and "directory" in request:
        project = os.path.dirname(os.path.dirname(request["directory"]))
    own_log = OwnLog(project, [os.fsencode(value) for value in secrets.values()])
    own_log.defect(error, where=request["job"])
    return own_log.masked(f"{type(error).__name__}: {error}")


def _name(name: str) -> None:
    app_process.libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))

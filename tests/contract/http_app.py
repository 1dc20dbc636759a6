"""An app that answers HTTP in some way: `python http_app.py WAY HOST PORT`; prints its port.

WAY: a status; `silent` (never answers), `slow-body` (a body that does not come),
`drip` (a byte of the head at a time, for ever), `big-head`, `big-body` (1 GiB of
it), `early` (an interim answer first), `garbage` (no HTTP), `gone` (closes without
an answer), `for-localhost` (400 to other names), `moved` (a redirect to a host that
does not exist), `child` (200 from a child), `daemon` (200 from a descendant whose
parent has ended), `bare` (200 from one without an environment, both below a
process that poses as a supervisor).
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
import time
from contextlib import suppress

MIB = 1024 * 1024


def answer(way: str, connection: socket.socket) -> None:
    request = connection.recv(65_536)
    if way == "for-localhost":
        way = "200" if b"\r\nHost: localhost:" in request else "400"
    if way == "silent":
        return
    if way == "gone":
        connection.close()
        return
    if way == "garbage":
        connection.sendall(b"\0garbage\r\n\r\n")
        connection.close()
        return
    if way == "drip":
        connection.sendall(b"HTTP/1.1 200 X\r\nX-Drip: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.01)
    if way == "early":
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    status = int(way) if way.isdigit() else {"moved": 302}.get(way, 200)
    head = f"HTTP/1.1 {status} X\r\nLocation: http://host.invalid/\r\nConnection: close\r\n"
    if way == "big-head":
        connection.sendall(f"{head}X-Big: ".encode())
    elif way in ("big-body", "slow-body"):
        connection.sendall(f"{head}Content-Length: {1024 * MIB}\r\n\r\nx".encode())
    else:
        connection.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
    if way.startswith("big-"):
        for _ in range(1024):
            connection.sendall(b"x" * MIB)
    if way != "slow-body":
        connection.close()


def answer_whatever_comes(way: str, connection: socket.socket) -> None:
    with suppress(OSError):  # the probe has gone
        answer(way, connection)


def serve(way: str, listener: socket.socket) -> None:
    kept = []
    while True:
        connection, _ = listener.accept()
        kept.append(connection)
        thread = threading.Thread(target=answer_whatever_comes, args=(way, connection), daemon=True)
        thread.start()


def pose_as_supervisor() -> None:
    """Takes its name, and its descendants that lose their parents."""
    libc = ctypes.CDLL(None)
    libc.prctl(15, b"att-supervisor", 0, 0, 0)
    libc.prctl(36, 1, 0, 0, 0)


def main() -> None:
    way, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::"
    if way == "bare":
        pose_as_supervisor()
    if way in ("child", "daemon", "bare") and os.fork():
        os.wait()
        time.sleep(60)
        return
    if way == "bare" and os.fork():
        os.wait()
        time.sleep(60)
        return
    if way in ("daemon", "bare") and os.fork():
        return
    if way == "bare":
        os.execve(sys.executable, [sys.executable, __file__, "200", host, str(port)], {})
    with socket.create_server((host, port), family=family, dualstack_ipv6=both) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(way, listener)


if __name__ == "__main__":
    main()

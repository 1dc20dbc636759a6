"""An app that answers HTTP in some way: `python http_app.py WAY HOST PORT`; prints its port.

WAY: a status; `silent` (never answers), `slow-body` (a body that does not come),
`garbage` (no HTTP), `moved` (a redirect to a host that does not exist), `child`
(200 from a child), `daemon` (200 from a descendant whose parent has ended).
"""

from __future__ import annotations

import os
import socket
import sys
import time


def answer(way: str, connection: socket.socket) -> None:
    connection.recv(65_536)
    if way == "silent":
        return
    if way == "garbage":
        connection.sendall(b"\0garbage\r\n\r\n")
        connection.close()
        return
    status = int(way) if way.isdigit() else {"moved": 302}.get(way, 200)
    head = f"HTTP/1.1 {status} X\r\nLocation: http://host.invalid/\r\nConnection: close\r\n"
    body = "Content-Length: 1000000\r\n\r\nx" if way == "slow-body" else "Content-Length: 0\r\n\r\n"
    connection.sendall((head + body).encode())
    if way != "slow-body":
        connection.close()


def serve(way: str, listener: socket.socket) -> None:
    kept = []
    while True:
        connection, _ = listener.accept()
        kept.append(connection)
        answer(way, connection)


def main() -> None:
    way, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::"
    if way in ("child", "daemon") and os.fork():
        os.wait()
        time.sleep(60)
        return
    if way == "daemon" and os.fork():
        return
    with socket.create_server((host, port), family=family, dualstack_ipv6=both) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(way, listener)


if __name__ == "__main__":
    main()

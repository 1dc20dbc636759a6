"""Tells systemd, where it started the server, how far the server is."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(state: str, environ: Mapping[str, str]) -> None:
    """Sends `READY=1` or `STOPPING=1`; without effect outside of a unit with Type=notify.

    Never fails: a service manager that does not listen is no reason not to serve.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        # An @ stands for the NUL that abstract names begin with.
        channel.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)

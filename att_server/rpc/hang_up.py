"""Ends a connection from below: gRPC keeps it, with all it holds, as long as its peer likes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from urllib.parse import unquote

_PEER = re.compile(r"ipv[46]:\[?(?P<host>[^\]%]+)[^\]]*\]?:(?P<port>\d+)")
_DESCRIPTORS = "/proc/self/fd"


def hang_up(peer: str) -> bool:
    """Shuts the TCP connection from `peer` down, as gRPC names it; its calls end as cancelled.

    False: there is none. A unix socket does not tell one peer from another, so there is
    none there either.
    """
    match = _PEER.fullmatch(unquote(peer))
    if match is None:
        return False
    wanted = (_plain(match["host"]), int(match["port"]))
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError, ValueError):
            if not os.readlink(f"{_DESCRIPTORS}/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                host, port, *_ = connection.getpeername()
                if (_plain(host), port) == wanted:
                    connection.shutdown(socket.SHUT_RDWR)
                    return True
    return False


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; an IPv4 one in an IPv6 one as itself. Raises ValueError."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address

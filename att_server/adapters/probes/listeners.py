"""The sockets of this host that listen on a TCP port."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

Listener = tuple[str, str]
"""The address that a socket listens on, and the socket as /proc/PID/fd names it."""

_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_LISTEN = 10
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI2s46x")
_ANSWER = struct.Struct("=8x16s28x16xI")
_BUFFER = 64 * 1024
_WITHIN = 1.0


def listeners(port: int) -> list[Listener]:
    """Every socket that listens on the port. Raises OSError."""
    try:
        return [*_asked(socket.AF_INET, port), *_asked(socket.AF_INET6, port)]
    except OSError:
        # A kernel without sock_diag. Its tables take milliseconds to make.
        return [*_read("/proc/net/tcp", port), *_read("/proc/net/tcp6", port)]


def _asked(family: socket.AddressFamily, port: int) -> Iterator[Listener]:
    """Asks the kernel for one family; see sock_diag(7). Raises OSError."""
    wanted = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _LISTEN, port.to_bytes(2, "big"))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_WITHIN)
        size = _HEADER.size + len(wanted)
        kernel.send(_HEADER.pack(size, _BY_FAMILY, _REQUEST_DUMP, 0, 0) + wanted)
        while True:
            data = kernel.recv(_BUFFER)
            while data:
                size, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the kernel does not tell who listens")
                source, inode = _ANSWER.unpack_from(data, _HEADER.size)
                yield _address(family, source), f"socket:[{inode}]"
                data = data[(size + 3) & ~3 :]


def _address(family: socket.AddressFamily, packed: bytes) -> str:
    length = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, packed[:length])


def _read(table: str, port: int) -> Iterator[Listener]:
    """As the kernel writes it: a line a socket, each 32-bit word in the host's order."""
    wanted = f":{port:04X}"
    with suppress(FileNotFoundError):  # this host has no IPv6
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split(maxsplit=10)
            local, state, inode = fields[1], fields[3], fields[9]
            if int(state, 16) == _LISTEN and local.endswith(wanted):
                words = bytes.fromhex(local.removesuffix(wanted))
                yield str(ip_address(_in_network_order(words))), f"socket:[{inode}]"


def _in_network_order(words: bytes) -> bytes:
    if sys.byteorder == "big":
        return words
    return b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))

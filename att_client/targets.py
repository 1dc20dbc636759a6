"""What a target means: the text that names a server.

| target           | the server                                                          |
| ---------------- | ------------------------------------------------------------------- |
| `unix:/path`     | on a socket of this host                                            |
| `HOST:PORT`      | over TLS, as its certificate says                                   |
| `tcp:HOST:PORT`  | in clear text, on this host only, and never with a token            |
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import quote

# sun_path of a unix socket address, without the closing NUL.
_LONGEST_SOCKET_PATH = 107
_ADDRESS = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z]([0-9A-Za-z.-]{0,251}[0-9A-Za-z])?)"
    r":(?P<port>[1-9]\d{0,4})"
)
_CLEAR = "tcp:"
_SOCKET = "unix:"


class TargetInvalid(ValueError):
    """The text is no target; the message goes on from "The target `text` "."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a channel goes.

    name: as gRPC reads it. encrypted: by TLS. socket: the path of a unix one, else empty.
    """

    name: str
    encrypted: bool = False
    socket: str = ""


def parse(target: str) -> Address:
    """The address that a target means. Raises TargetInvalid."""
    if target.startswith(_SOCKET):
        return _socket(target.removeprefix(_SOCKET))
    clear = target.startswith(_CLEAR)
    name = target.removeprefix(_CLEAR)
    match = _ADDRESS.fullmatch(name)
    if match is None or int(match["port"]) > 65_535 or not _host(match["host"]):
        raise TargetInvalid(
            "is neither `unix:` and an absolute path without a comma, such as "
            "unix:/run/att/att.sock, nor HOST:PORT, such as att.example.org:7443."
        )
    if clear and not _is_loopback(match["host"]):
        raise TargetInvalid(
            "would cross a network in clear text. Name the server without `tcp:`, for TLS; only "
            "an address of this host, such as tcp:127.0.0.1:7443, is served without."
        )
    return Address(name=name, encrypted=not clear)


def _socket(path: str) -> Address:
    # gRPC takes what follows a comma for another address.
    if not path.startswith("/") or "\0" in path or "," in path:
        raise TargetInvalid(
            "is not `unix:` and an absolute path without a comma, such as unix:/run/att/att.sock."
        )
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise TargetInvalid(
            f"has a socket path of more than {_LONGEST_SOCKET_PATH} bytes. Use a shorter state "
            "directory."
        )
    # gRPC reads a target as a URI, where a space or % is not itself.
    return Address(name=_SOCKET + quote(path), socket=path)


def _host(host: str) -> bool:
    return not host.startswith("[") or _ip(host) is not None


def _is_loopback(host: str) -> bool:
    address = _ip(host)
    return address is not None and address.is_loopback


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None

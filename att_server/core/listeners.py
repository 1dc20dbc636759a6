"""Where a server may listen, and on which terms. A refusal says what to do; nothing only warns."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][0-9A-Za-z.-]{0,252}):(?P<port>\d{1,5})")
_TOKENS = "make tokens with `att init`, or one more with `att token create`"
_NO_AUTH = "--insecure-loopback-no-auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketListener:
    """A unix socket, which only its owner can open. path: absolute."""

    path: Path

    @property
    def target(self) -> str:
        """What clients connect to."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpListener:
    """A TCP port. host: an address or a name. port: 0 to 65535; 0: any that is free."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port, as they are written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this host can reach it for certain: names may come to mean anything."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False
        # An IPv4 address in an IPv6 one is not the loopback on every system.
        return address.is_loopback and getattr(address, "ipv4_mapped", None) is None


Listener = SocketListener | TcpListener


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What TLS is made of, as PEM. client_ca: signs the certificates that clients must have."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTerms:
    """How the TCP listeners are served.

    no_auth: callers without a token are viewers, where they come in clear text by the
    loopback.
    """

    listeners: tuple[TcpListener, ...] = ()
    tls: TlsFiles | None = None
    no_auth: bool = False
    allow_root: bool = False

    def check(self, *, any_token: bool, uid: int) -> None:
        """Raises StartRefused: REFUSING_ROOT, TLS_REQUIRED, AUTH_REQUIRED.

        any_token: whether there is a token that is valid. uid: of the server.
        """
        if not self.listeners:
            return
        if uid == 0 and not self.allow_root:
            raise StartRefused(
                RefusalReason.REFUSING_ROOT,
                f"As root the server listens on its socket only, not on "
                f"{self.listeners[0].address}: its callers would run commands as root. Run it as a "
                "user of its own, or add --allow-root.",
            )
        for listener in self.listeners:
            self._check(listener, any_token=any_token)

    def _check(self, listener: TcpListener, *, any_token: bool) -> None:
        authenticated = any_token or (self.tls is not None and self.tls.client_ca is not None)
        if not listener.loopback and self.tls is None:
            also = "" if authenticated else f", and {_TOKENS}"
            hint = " (127.0.0.1 is the loopback)" if listener.host == "localhost" else ""
            raise StartRefused(
                RefusalReason.TLS_REQUIRED,
                f"{listener.address} can be reached from other hosts{hint}. Add --tls-cert FILE "
                f"and --tls-key FILE{also}; or listen on the socket and forward it over ssh. No "
                "option starts it without.",
            )
        if authenticated or (listener.loopback and self.tls is None and self.no_auth):
            return
        without = (
            f", or {_NO_AUTH} to let every user of this host read everything"
            if listener.loopback and self.tls is None
            else ""
        )
        raise StartRefused(
            RefusalReason.AUTH_REQUIRED,
            f"Nobody could say who calls on {listener.address}: there is no valid token, and "
            f"clients need no certificate. To change that, {_TOKENS}; or add --tls-client-ca "
            f"FILE{without}.",
        )


def parse_listener(text: str) -> Listener:
    """The listener that `unix:/path` or `HOST:PORT` means. Raises StartRefused."""
    if text.startswith("unix:"):
        path = Path(text.removeprefix("unix:"))
        if path.is_absolute() and "\0" not in text:
            return SocketListener(path=path)
    match = _TCP.fullmatch(text)
    if match is not None and int(match["port"]) <= 65_535:
        host = match["host"].strip("[]")
        if ":" not in host or _is_address(host):
            return TcpListener(host=host, port=int(match["port"]))
    raise StartRefused(
        RefusalReason.LISTENER_NOT_ALLOWED,
        f"{text!r} is neither `unix:` and an absolute path nor HOST:PORT, such as "
        "unix:/run/att/att.sock, 127.0.0.1:7443 or [::]:7443.",
    )


def one_socket(listeners: Sequence[Listener], default: Path) -> Path:
    """The path of the one socket that is served, `default` where none is named.

    Raises StartRefused for two: the state directory has one.
    """
    paths = [each.path for each in listeners if isinstance(each, SocketListener)]
    if len(paths) > 1:
        raise StartRefused(
            RefusalReason.LISTENER_NOT_ALLOWED,
            "A server listens on one unix socket. Give one --listen unix:PATH, and as many "
            "HOST:PORT as you like.",
        )
    return paths[0] if paths else default


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

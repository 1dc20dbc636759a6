"""What the server is told from outside: arguments and environment, checked once."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused
from att_server.core.listeners import (
    NetworkTerms,
    TcpListener,
    TlsFiles,
    one_socket,
    parse_listener,
)

LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_SOCKET_PATH_BYTES = 107
"""What the kernel takes as the path of a unix socket, less the byte that ends it."""
_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]{0,251}[0-9A-Za-z])?|[0-9A-Fa-f:]{2,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one server. Paths are absolute.

    environ: the server's environment, which apps inherit from.
    probe_hosts: names and addresses, in lower case, that probes may reach beside
    the loopback. network: the listeners beside the socket, and their terms. take_over:
    a server that runs is to make way. is_spare: it waits for the end of its server;
    has_spare: it is to have one. launch, release_id: which start by a launcher
    this is, from 1, and of which release; 0: by nobody's; empty: the launcher's own
    installation.
    """

    state_dir: Path
    socket_path: Path
    log_level: str
    environ: Mapping[str, str]
    probe_hosts: frozenset[str] = frozenset()
    take_over: bool = False
    is_spare: bool = False
    has_spare: bool = False
    launch: int = 0
    release_id: str = ""
    network: NetworkTerms = field(default_factory=NetworkTerms)

    @property
    def store_path(self) -> Path:
        """The database, which holds the tokens among all else."""
        return self.state_dir / "att.db"

    @property
    def log_path(self) -> Path:
        """Where the server keeps its own log; rotated copies lie beside it."""
        return self.state_dir / "log" / "server.log"

    @classmethod
    def resolve(
        cls,
        *,
        state_dir: str | None,
        log_level: str,
        environ: Mapping[str, str],
        listen: Sequence[str] = (),
        probe_hosts: Sequence[str] = (),
        take_over: bool = False,
        is_spare: bool = False,
        has_spare: bool = True,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_client_ca: str | None = None,
        no_auth: bool = False,
        allow_root: bool = False,
    ) -> Config:
        """The settings from arguments (None: not given) and environment.

        state_dir: default ATT_STATE_DIR, else $XDG_STATE_HOME/att, else
        ~/.local/state/att. listen: one `unix:PATH`, default att.sock in the state
        directory, and any number of `HOST:PORT`. tls_cert, tls_key, tls_client_ca:
        paths of PEM files. no_auth, allow_root: as `NetworkTerms` has them.
        probe_hosts: those of ATT_PROBE_HOSTS, separated by commas, are added. Raises
        StartRefused: CONFIG_INVALID, LISTENER_NOT_ALLOWED, SOCKET_PATH_TOO_LONG, and as
        `NetworkTerms.check`.
        """
        directory = resolve_state_dir(state_dir, environ)
        listeners = [parse_listener(text) for text in listen]
        if log_level not in LOG_LEVELS:
            raise StartRefused(
                RefusalReason.CONFIG_INVALID,
                f"{log_level!r} is not a log level. Use one of {', '.join(LOG_LEVELS)}.",
            )
        return cls(
            state_dir=directory,
            socket_path=one_socket(listeners, directory / "att.sock"),
            log_level=log_level,
            environ=dict(environ),
            probe_hosts=_probe_hosts(probe_hosts, environ),
            take_over=take_over and not is_spare,
            is_spare=is_spare,
            has_spare=has_spare and bool(environ.get("ATT_LAUNCH")),
            launch=_launch(environ.get("ATT_LAUNCH", "")),
            release_id=environ.get("ATT_RELEASE_ID", "") if environ.get("ATT_LAUNCH") else "",
            network=NetworkTerms(
                listeners=tuple(each for each in listeners if isinstance(each, TcpListener)),
                tls=_tls_files(tls_cert, tls_key, tls_client_ca),
                no_auth=no_auth,
                allow_root=allow_root,
            ),
        )._checked()

    def _checked(self) -> Config:
        # Again once the tokens are known; where there is no database there are none. So
        # what need not wait for them is said before anything is made.
        self.network.check(any_token=self.store_path.exists(), uid=os.geteuid())
        length = len(os.fsencode(self.socket_path))
        if length > MAX_SOCKET_PATH_BYTES:
            raise StartRefused(
                RefusalReason.SOCKET_PATH_TOO_LONG,
                f"The socket path {self.socket_path} has {length} bytes, and the system takes "
                f"{MAX_SOCKET_PATH_BYTES}. Choose a shorter --state-dir, or --listen unix:PATH.",
            )
        return self


def resolve_state_dir(given: str | None, environ: Mapping[str, str]) -> Path:
    """The state directory, as `Config.resolve` finds it. Raises StartRefused: CONFIG_INVALID."""
    for source, value in (("--state-dir", given), ("ATT_STATE_DIR", environ.get("ATT_STATE_DIR"))):
        if value is not None:
            if not value or "\0" in value:
                raise StartRefused(
                    RefusalReason.CONFIG_INVALID, f"{source} is empty. Name a directory."
                )
            # Not resolve(), which would hide that the directory is a symbolic link.
            return Path(os.path.abspath(value))
    state_home = environ.get("XDG_STATE_HOME", "")
    # The XDG rule: a relative path is as good as none.
    if Path(state_home).is_absolute():
        return Path(state_home) / "att"
    home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) / ".local" / "state" / "att"


def _probe_hosts(given: Sequence[str], environ: Mapping[str, str]) -> frozenset[str]:
    listed = [host.strip() for host in environ.get("ATT_PROBE_HOSTS", "").split(",")]
    hosts = [*given, *(host for host in listed if host)]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise StartRefused(
                RefusalReason.CONFIG_INVALID,
                f"{host!r} is no host to probe. Give --probe-host, or in ATT_PROBE_HOSTS separated "
                "by commas, names or addresses without scheme, port and brackets.",
            )
    return frozenset(host.lower() for host in hosts)


def _launch(number: str) -> int:
    """What the launcher says of itself; an app's server of its own has not got it."""
    return int(number) if number.isdecimal() else 0


def _tls_files(cert: str | None, key: str | None, client_ca: str | None) -> TlsFiles | None:
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        raise StartRefused(
            RefusalReason.CONFIG_INVALID,
            "TLS needs both --tls-cert FILE and --tls-key FILE; --tls-client-ca FILE comes on top.",
        )
    return TlsFiles(
        certificate=Path(os.path.abspath(cert)),
        key=Path(os.path.abspath(key)),
        client_ca=None if client_ca is None else Path(os.path.abspath(client_ca)),
    )

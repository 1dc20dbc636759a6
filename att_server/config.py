"""What the server is told from outside: arguments and environment, checked once."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused

LOG_LEVELS = ("debug", "info", "warning", "error")
MAX_SOCKET_PATH_BYTES = 107
"""What the kernel takes as the path of a unix socket, less the byte that ends it."""
_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z._-]{0,251}[0-9A-Za-z])?|[0-9A-Fa-f:]{2,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one server. Paths are absolute.

    environ: the server's environment, which apps inherit from.
    probe_hosts: names and addresses, in lower case, that probes may reach beside
    the loopback.
    """

    state_dir: Path
    socket_path: Path
    log_level: str
    environ: Mapping[str, str]
    probe_hosts: frozenset[str] = frozenset()

    @property
    def log_path(self) -> Path:
        """Where the server keeps its own log; rotated copies lie beside it."""
        return self.state_dir / "log" / "server.log"

    @classmethod
    def resolve(
        cls,
        *,
        state_dir: str | None,
        listen: str | None,
        log_level: str,
        environ: Mapping[str, str],
        probe_hosts: Sequence[str] = (),
    ) -> Config:
        """The settings from arguments (None: not given) and environment.

        state_dir: default ATT_STATE_DIR, else $XDG_STATE_HOME/att, else
        ~/.local/state/att. listen: `unix:PATH`, default att.sock in the state
        directory. probe_hosts: those of ATT_PROBE_HOSTS, separated by commas, are
        added. Raises StartRefused: CONFIG_INVALID, LISTENER_NOT_ALLOWED,
        SOCKET_PATH_TOO_LONG.
        """
        directory = resolve_state_dir(state_dir, environ)
        if log_level not in LOG_LEVELS:
            raise StartRefused(
                RefusalReason.CONFIG_INVALID,
                f"{log_level!r} is not a log level. Use one of {', '.join(LOG_LEVELS)}.",
            )
        return cls(
            state_dir=directory,
            socket_path=directory / "att.sock" if listen is None else _socket_path(listen),
            log_level=log_level,
            environ=dict(environ),
            probe_hosts=_probe_hosts(probe_hosts, environ),
        )._checked()

    def _checked(self) -> Config:
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


def _socket_path(listen: str) -> Path:
    scheme, _, path = listen.partition(":")
    if scheme != "unix" or not Path(path).is_absolute():
        raise StartRefused(
            RefusalReason.LISTENER_NOT_ALLOWED,
            f"{listen!r} is not `unix:` and an absolute path. Other listeners stay closed until "
            "there is access control; forward the socket over ssh to reach it from afar.",
        )
    return Path(path)

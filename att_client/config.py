"""Where the server is and how long it may take, from arguments and environment.

| variable          | meaning                                       | default              |
| ----------------- | --------------------------------------------- | -------------------- |
| `ATT_TARGET`      | the server; see `att_client.targets`          | the state directory  |
| `ATT_STATE_DIR`   | the state directory, with `att.sock` in it    | `$XDG_STATE_HOME/att` |
| `XDG_STATE_HOME`  | where programs keep state                     | `~/.local/state`     |
| `ATT_TIMEOUT`     | seconds that a call may take, such as `2.5`   | `30`                 |
| `ATT_TOKEN`       | the token that says who calls                 | none: the local user |
| `ATT_TOKEN_FILE`  | a file that holds it, instead; may be renewed | none                 |
| `ATT_CA_FILE`     | who signs the certificates of servers, as PEM | the public CAs       |
| `ATT_CERT_FILE`   | this client's own certificate, as PEM         | none                 |
| `ATT_KEY_FILE`    | its key, as PEM                               | none                 |

No other module reads the environment. A variable that is empty is not set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from att_client.errors import ConfigInvalidError
from att_client.targets import Address, TargetInvalid, parse
from att_client.token_file import check_token, read_token

ARGUMENT = "the argument `target`"

_LONGEST_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that a client can be told. Raises ConfigInvalidError."""

    target: str
    """The server: `unix:/path`, `HOST:PORT` for TLS, `tcp:127.0.0.1:PORT` for clear text."""

    source: str = "the config"
    """What named the target, for error messages: an argument or a variable."""

    timeout: timedelta = timedelta(seconds=30)
    """Bounds every call but streams, and is added to the wait that a start, stop
    or restart asks for. Up to a day."""

    token: str = field(default="", repr=False)
    """Says who calls, as `att token create` showed it. Empty: the socket's own user, or
    `token_file`."""

    token_file: Path | None = None
    """Holds the token in its place, and is read again as it changes."""

    ca_file: Path | None = None
    """Who signs the certificate of a server over TLS, as PEM. None: the public CAs."""

    cert_file: Path | None = None
    """The certificate that this client shows a server over TLS, as PEM. None: none."""

    key_file: Path | None = None
    """The key of `cert_file`, as PEM."""

    def __post_init__(self) -> None:
        if (
            not self.address.encrypted
            and not self.address.socket
            and (self.token or self.token_file)
        ):
            raise ConfigInvalidError(
                f"The target {self.target!r} (from {self.source}) is reached in clear text, and a "
                "token is not sent so: whoever has the port would have the token. Serve it with "
                "TLS and name it without `tcp:`, or use the socket."
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigInvalidError(
                "A certificate and its key go together: set both ATT_CERT_FILE and ATT_KEY_FILE."
            )
        if not timedelta(0) < self.timeout <= _LONGEST_TIMEOUT:
            raise ConfigInvalidError(
                f"The timeout of {self.timeout.total_seconds()} s is not above 0 and at most a day."
            )
        if self.token and self.token_file is not None:
            raise ConfigInvalidError("A token and the file of one are both given. Give one.")
        if self.token:
            check_token(self.token)
        if self.token_file is not None:
            read_token(self.token_file)  # one that cannot be used is told at once

    @property
    def address(self) -> Address:
        """Where the target is."""
        try:
            return parse(self.target)
        except TargetInvalid as error:
            raise ConfigInvalidError(
                f"The target {self.target!r} (from {self.source}) {error}"
            ) from error

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, target: str | None = None
    ) -> Self:
        """The config that the environment describes; see the module's table.

        environ: instead of the environment of this process.
        target: wins over the environment's.
        """
        env = os.environ if environ is None else environ
        source = ARGUMENT
        if target is None:
            target, source = env.get("ATT_TARGET", ""), "ATT_TARGET"
            if not target:
                directory, source = _state_dir(env)
                target = f"unix:{directory}/att.sock"
        return cls(
            target=target,
            source=source,
            timeout=_timeout(env),
            token=env.get("ATT_TOKEN", ""),
            token_file=_token_file(env),
            ca_file=_path(env, "ATT_CA_FILE"),
            cert_file=_path(env, "ATT_CERT_FILE"),
            key_file=_path(env, "ATT_KEY_FILE"),
        )


def _state_dir(env: Mapping[str, str]) -> tuple[Path, str]:
    if named := env.get("ATT_STATE_DIR"):
        return Path(named).expanduser().absolute(), "ATT_STATE_DIR"
    # The XDG rules ask for a relative path to be ignored.
    if (state_home := env.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(state_home, "att"), "XDG_STATE_HOME"
    home = env.get("HOME") or "~"
    return Path(home).expanduser() / ".local/state/att", "the default state directory"


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser() if env.get(name) else None


def _token_file(env: Mapping[str, str]) -> Path | None:
    path = env.get("ATT_TOKEN_FILE", "")
    if path and env.get("ATT_TOKEN"):
        raise ConfigInvalidError("ATT_TOKEN and ATT_TOKEN_FILE are both set. Unset one of them.")
    return Path(path).absolute() if path else None


def _timeout(env: Mapping[str, str]) -> timedelta:
    text = env.get("ATT_TIMEOUT") or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT.total_seconds():
        raise ConfigInvalidError(
            f"ATT_TIMEOUT is {text!r}: give seconds above 0, at most 86400, such as 30 or 2.5."
        )
    return timedelta(seconds=seconds)

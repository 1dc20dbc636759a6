"""Where the server is and how long it may take, from arguments and environment.

| variable          | meaning                                       | default              |
| ----------------- | --------------------------------------------- | -------------------- |
| `ATT_TARGET`      | the server, as `unix:/path/att.sock`          | the state directory  |
| `ATT_STATE_DIR`   | the state directory, with `att.sock` in it    | `$XDG_STATE_HOME/att` |
| `XDG_STATE_HOME`  | where programs keep state                     | `~/.local/state`     |
| `ATT_TIMEOUT`     | seconds that a call may take, such as `2.5`   | `30`                 |

No other module reads the environment. A variable that is empty is not set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from att_client.errors import ConfigInvalidError

ARGUMENT = "the argument `target`"

# sun_path of a unix socket address, without the closing NUL.
_LONGEST_SOCKET_PATH = 107
_LONGEST_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that a client can be told. Raises ConfigInvalidError."""

    target: str
    """The server: `unix:` and the absolute path of its socket, at most 107 bytes."""

    source: str = "the config"
    """What named the target, for error messages: an argument or a variable."""

    timeout: timedelta = timedelta(seconds=30)
    """Bounds every call but streams, and is added to the wait that a start, stop
    or restart asks for. Up to a day."""

    def __post_init__(self) -> None:
        path = self.target.removeprefix("unix:")
        # gRPC takes what follows a comma for another address.
        if path == self.target or not path.startswith("/") or "\0" in path or "," in path:
            raise ConfigInvalidError(
                f"The target {self.target!r} (from {self.source}) is not `unix:` and an absolute "
                "path without a comma, such as unix:/run/att/att.sock. Other transports are not "
                "offered yet."
            )
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise ConfigInvalidError(
                f"The socket path {path!r} (from {self.source}) has more than "
                f"{_LONGEST_SOCKET_PATH} bytes. Use a shorter state directory."
            )
        if not timedelta(0) < self.timeout <= _LONGEST_TIMEOUT:
            raise ConfigInvalidError(
                f"The timeout of {self.timeout.total_seconds()} s is not above 0 and at most a day."
            )

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, target: str | None = None
    ) -> Self:
        """The config that the environment describes; see the module's table.

        environ: instead of the environment of this process.
        target: wins over the environment's.
        """
        env = os.environ if environ is None else environ
        timeout = _timeout(env)
        if target is not None:
            return cls(target=target, source=ARGUMENT, timeout=timeout)
        if named := env.get("ATT_TARGET"):
            return cls(target=named, source="ATT_TARGET", timeout=timeout)
        directory, source = _state_dir(env)
        return cls(target=f"unix:{directory}/att.sock", source=source, timeout=timeout)


def _state_dir(env: Mapping[str, str]) -> tuple[Path, str]:
    if named := env.get("ATT_STATE_DIR"):
        return Path(named).expanduser().absolute(), "ATT_STATE_DIR"
    # The XDG rules ask for a relative path to be ignored.
    if (state_home := env.get("XDG_STATE_HOME", "")).startswith("/"):
        return Path(state_home, "att"), "XDG_STATE_HOME"
    home = env.get("HOME") or "~"
    return Path(home).expanduser() / ".local/state/att", "the default state directory"


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

"""What a server may ask of a supervisor, read from the commands on its control socket."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TypeGuard

from att_server.supervisor.control import Command
from att_server.supervisor.state import PROBE_FAILURES

MAX_EPOCH = 2**53
MAX_GRACE = 1e6
"""Seconds."""


class Refused(Exception):
    """A command that is not carried out; `error` says why in a word."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Asks for the state, and for everything that changes it from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Asks for the end of the app; answered when it is there. grace: None is the spec's."""

    grace: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNow:
    """Asks for the restart that BACKOFF waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Says whether a run is ready."""

    run_id: str
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Asks for the end of a run as a failure, for one of PROBE_FAILURES."""

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Asks for a signal to the main process."""

    number: int


Order = Hello | Stop | StartNow | Ready | Fail | Signal


def epoch_of(command: Command) -> int:
    """The epoch of the server that asks. Raises Refused."""
    epoch = command.get("epoch")
    if not _is_int(epoch) or epoch > MAX_EPOCH:
        raise Refused("invalid_argument", "a command has an epoch")
    return epoch


def order_of(command: Command) -> Order:
    """What the command asks for; members that are not known are ignored. Raises Refused."""
    match command.get("command"):
        case "hello":
            return Hello()
        case "stop":
            return Stop(grace=_grace(command.get("grace")))
        case "start_now":
            return StartNow()
        case "ready":
            ready = command.get("ready", True)
            if not isinstance(ready, bool):
                raise Refused("invalid_argument", "ready is true or false")
            return Ready(run_id=str(command.get("run_id")), ready=ready)
        case "fail":
            reason = command.get("reason")
            if not isinstance(reason, str) or reason not in PROBE_FAILURES:
                raise Refused("invalid_argument", f"{reason!r:.100} does not end a run")
            return Fail(run_id=str(command.get("run_id")), reason=reason)
        case "signal":
            number = command.get("number")
            if not _is_int(number) or number not in signal.valid_signals():
                raise Refused("invalid_argument", f"there is no signal {number!r:.100}")
            return Signal(number=number)
        case unknown:
            raise Refused("unknown_command", f"{unknown!r:.100} is not known here")


def _grace(value: object) -> float | None:
    if value is None:
        return None
    if not (_is_int(value) or isinstance(value, float)) or not 0 <= value <= MAX_GRACE:
        raise Refused("invalid_argument", f"grace is seconds, 0 to {MAX_GRACE:.0f}")
    return float(value)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

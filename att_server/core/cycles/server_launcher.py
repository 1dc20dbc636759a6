"""Who starts ATT's own server, and what came of it: the port."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from att_server.core.model import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProject:
    """The project whose app is this server.

    baseline: the commit that its repository was at when it was registered, and by which the
    launcher's own installation is known as a release; empty: it is not.
    """

    project_id: str
    path: Path
    baseline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchEnd:
    """A start of a server that is over. launch: its number, from 1.

    lost: it was killed from outside, or how it ended is not known. output: the end of
    what it printed until it served.
    """

    launch: int
    release_id: str
    pid: int
    start_time: datetime
    end_time: datetime
    exit_code: int | None
    reason: str
    lost: bool
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A start of a server. launch: its number, from 1."""

    launch: int
    release_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherState:
    """Where the launcher stands. current: the release that it has to run, empty as for a
    `ServerLauncher`. wish: the last one that it took; outcome: of that, `trying`, `serving` or
    `failed`, and the reason. ended: the last starts that are over, oldest first. missed:
    starts that are over, and not noted by it yet."""

    current: str = ""
    wish: str = ""
    outcome: str = ""
    reason: str = ""
    ended: tuple[LaunchEnd, ...] = ()
    missed: tuple[Launch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a release gets: so many starts, each ready in its time, and its time to be proven."""

    tries: int
    ready_within: timedelta
    good_within: timedelta


class ServerLauncher(Protocol):
    """Replaces this server by one of another release, and takes that back if it fails.

    launch: the number of this start; 0: no launcher made it. release_id: what this
    server runs from; empty: an installation that is not known as a release. start_time: of
    this start.
    """

    launch: int
    release_id: str
    start_time: datetime

    @property
    def own(self) -> OwnProject | None:
        """The project whose app is this server, if one was registered."""
        ...

    @property
    def present(self) -> bool:
        """Whether a launcher is there now."""
        ...

    def startable(self, release_id: str) -> Path | None:
        """None where the release can be started; else the interpreter that it lacks."""
        ...

    def state(self) -> LauncherState:
        """Where it stands now."""
        ...

    async def wish(self, wish_id: str, release_id: str, trial: Trial) -> None:
        """Asks for a server of the release. Once for each id: a repeat changes nothing.

        Returns when that is on the disk: this server may end at any moment from then on.
        Raises STORAGE_FULL.
        """
        ...

    async def prove(self, release_id: str) -> None:
        """Says that the release that was wished for last is good: what is fallen back to.

        Without effect for another one. Raises STORAGE_FULL.
        """
        ...

    async def events(self, after: int) -> Sequence[Event]:
        """What it told after the first `after` events. Each names its number as `number`."""
        ...

    def output(self, count: int) -> list[bytes]:
        """The last lines of the last start that failed, else of the server's log, oldest first."""
        ...

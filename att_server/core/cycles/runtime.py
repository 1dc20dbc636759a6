"""What cycles need of running apps and of projects: the port."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from att_server.core.model import Event, ProbeResult, Project, ProjectMode, RunStatus, Runtime
from att_server.core.settings import Probe

MAX_LOST_RUNS = 2
"""An app whose runs go on being lost with their supervisors may be what takes them down."""


class Deployments(Protocol):
    """Runs apps from releases, on behalf of the one cycle that holds the project."""

    def max_lost_runs(self, project_id: str) -> int:
        """How many runs of a release may be lost, through no known fault of it, and begun anew."""
        ...

    def project(self, project_id: str) -> Project:
        """The project as it is now. Raises PROJECT_NOT_FOUND."""
        ...

    async def hold(self, project_id: str) -> None:
        """Keeps lifecycle calls from outside out (PROJECT_BUSY), after those that go on.

        Without effect while it is held.
        """
        ...

    def let_go(self, project_id: str) -> None:
        """Ends what `hold` began; without effect if it is not held."""
        ...

    def runtime(self, project_id: str) -> Runtime:
        """The app's state."""
        ...

    async def changed(self, project_id: str, timeout: timedelta) -> bool:
        """Returns True when the app's state has changed, False after `timeout`."""
        ...

    async def check_release(self, project_id: str, release_id: str) -> None:
        """Looks, without any effect on the app, whether `switch` could begin.

        Raises AttError for what is wrong with the release, its settings or its command.
        """
        ...

    async def switch(self, project_id: str, release_id: str, *, cycle_id: str) -> RunStatus:
        """Runs the app from the release (empty: from the project's directory) in a new run.

        Stores it as what is meant to run, moves `current`, ends the present run and
        starts the new one. Returns when it runs. Raises AttError as a start does;
        whatever is killed, repeating it is safe, and makes one more run at worst.
        """
        ...

    async def prove(self, project_id: str, release_id: str) -> None:
        """Tells whoever starts the app without ATT's help that the release has proven itself.

        Raises STORAGE_FULL.
        """
        ...

    async def check(self, project_id: str, probe: Probe | None) -> ProbeResult:
        """Checks the app once: by `probe`, else its readiness probe, else its process."""
        ...

    async def recent_lines(self, project_id: str, count: int) -> list[bytes]:
        """The last lines of the app's log, oldest first."""
        ...

    async def set_mode(
        self, project_id: str, mode: ProjectMode, reason: str, *events: Event
    ) -> None:
        """Sets what the project lets happen; without effect if it is so already."""
        ...

"""What runs apps, and who is told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol

from att_server.core.model import (
    RunSpec,
    RunStatus,
    Usage,
)


class RuntimeListener(Protocol):
    """Is told by the driver, on the event loop, what its apps do. Must not block."""

    def run_changed(self, project_id: str, status: RunStatus) -> None:
        """The app's status is now `status`."""
        ...

    def log_grew(self, project_id: str) -> None:
        """The project's log has more records than before."""
        ...


class RuntimeDriver(Protocol):
    """Runs apps under supervisors that outlive the server.

    Level-triggered: `adopt` finds what is there, whatever happened meanwhile.
    """

    async def adopt(
        self, projects: Mapping[str, str], listener: RuntimeListener
    ) -> Mapping[str, RunStatus]:
        """Connects to every live supervisor and settles what lost ones left.

        projects: log id by project id, of all projects. Returns the last known
        status by project id, absent for a project that never ran. Called once,
        before every other method; afterwards `listener` is told of changes.
        A run whose supervisor is gone is ended (its whole tree) and marked
        `supervisor_lost` in the log; after a reboot the reason is `host_restarted`.
        """
        ...

    def prepared(self, project_id: str, log_id: str) -> AbstractAsyncContextManager[None]:
        """Has ready, within the context, what one `start` of the project needs.

        Saves that start some time and has no effect by itself. Raises nothing.
        """
        ...

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        """Starts the app; returns when it runs, or FAILED with `start_failure`.

        The project has no live app. From then on the supervisor starts it
        again as `spec.restart` says, by itself.

        after_loss: the last run was lost with its supervisor, which counts as a
        failure: returns in BACKOFF, or FAILED with `crash_loop`. Raises
        SUPERVISOR_UNREACHABLE if no supervisor could be had.
        """
        ...

    async def start_now(self, project_id: str) -> RunStatus | None:
        """Starts the app that waits in BACKOFF at once, as if a call had asked for it.

        Returns when it runs, or FAILED; in another state returns that. None if
        it never ran. Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        """Ends the app's tree and returns when it is gone; None if it never ran.

        grace: None is the spec's. Concurrent calls join. Cancelling does not
        take the stop back. Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        """Notes that the run is ready, or no longer; without effect if it is another run now."""
        ...

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        """Has the run ended as a failure, which its restart policy then answers.

        reason: `liveness_failed` or `startup_deadline`. Returns when the end
        has begun; without effect if it is another run now, or it ends already.
        Raises SUPERVISOR_UNREACHABLE.
        """
        ...

    async def usage(self, project_ids: Collection[str]) -> Mapping[str, Usage]:
        """What the apps use now; absent for those that do not run. One look for all."""
        ...

    async def signal(self, project_id: str, number: int) -> None:
        """Sends a signal to the main process. Raises RUNTIME_NOT_RUNNING."""
        ...

    async def forget(self, project_id: str) -> None:
        """Drops what is known of a project whose app does not run."""
        ...

    async def aclose(self) -> None:
        """Lets go of all supervisors; their apps run on."""
        ...

"""RunControl: runs begun and ended, with what else has to know of it."""

from __future__ import annotations

from datetime import timedelta

from att_server.core.health import HealthMonitor
from att_server.core.launch import Launch
from att_server.core.model import Project, RunStatus
from att_server.core.ports import RuntimeDriver
from att_server.core.run_table import RunTable


class RunControl:
    """Has the driver begin and end runs, and the table and the probes know of them."""

    def __init__(self, *, runs: RunTable, driver: RuntimeDriver, health: HealthMonitor) -> None:
        self._runs = runs
        self._driver = driver
        self._health = health

    async def start(
        self, project: Project, launch: Launch, *, after_loss: bool = False
    ) -> RunStatus:
        """Begins a run; see `RuntimeDriver.start`, whose errors it raises.

        Whoever waits for the app to be ready sees that it goes on.
        """
        # Before there is a run: it must not be probed as the one before was.
        self._health.watch(project, launch.spec, launch.settings)
        await self._runs.events.settle()
        status = await self._driver.start(launch.spec, after_loss=after_loss)
        self._runs.run_changed(project.project_id, status)
        return status

    async def start_now(self, project: Project, launch: Launch) -> RunStatus:
        """Begins the run that is waited for in BACKOFF, at once. Raises as `start`."""
        status = await self._driver.start_now(project.project_id)
        if status is None:
            return await self.start(project, launch)
        self._health.watch(project, launch.spec, launch.settings)
        self._runs.run_changed(project.project_id, status)
        return status

    async def end(self, project_id: str, grace: timedelta | None = None) -> None:
        """Ends the run if there is one; see `RuntimeDriver.stop`, whose errors it raises."""
        status = await self._driver.stop(project_id, grace)
        if status is not None:
            self._runs.run_changed(project_id, status)

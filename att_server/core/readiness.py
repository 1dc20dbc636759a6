"""Readiness: whether running apps are ready, by their probes, and waiting for it."""

from __future__ import annotations

import logging
from datetime import timedelta

from att_server.core.background import Background
from att_server.core.errors import AttError
from att_server.core.model import HttpProbe, RunStatus, RuntimeState
from att_server.core.ports import Clock, Prober, RuntimeDriver
from att_server.core.run_table import RunTable

log = logging.getLogger(__name__)


class Readiness:
    """Probes runs until they are ready, and tells their supervisors."""

    def __init__(
        self,
        *,
        runs: RunTable,
        driver: RuntimeDriver,
        prober: Prober,
        clock: Clock,
        background: Background,
    ) -> None:
        self._runs = runs
        self._driver = driver
        self._prober = prober
        self._clock = clock
        self._background = background

    def watch(self, project_id: str, probe: HttpProbe) -> None:
        """Begins to probe the project's current run, unless it is ready already.

        The run is ready after `probe.threshold` successes in a row.
        """
        entry = self._runs.entry(project_id)
        if entry.status is None or entry.status.state is not RuntimeState.RUNNING:
            return
        entry.stop_probing()
        status = entry.status
        entry.cancel_probing = self._background.start(
            f"readiness of {project_id}", lambda: self._probe(project_id, status, probe)
        )

    async def wait(self, project_id: str, timeout: timedelta) -> bool:
        """Returns True once the run is ready or has ended, False after `timeout`."""
        entry = self._runs.entry(project_id)
        deadline = self._clock.monotonic() + timeout.total_seconds()
        while True:
            seen, status = entry.changed.count, entry.status
            if status is None or status.state not in (RuntimeState.STARTING, RuntimeState.RUNNING):
                return True
            left = timedelta(seconds=max(0.0, deadline - self._clock.monotonic()))
            if not await entry.changed.wait(seen, left):
                return False

    async def _probe(self, project_id: str, status: RunStatus, probe: HttpProbe) -> None:
        successes = 0
        while successes < probe.threshold:
            result = await self._prober.probe(probe, pid=status.pid)
            self._runs.health_checked(project_id, status.run_id, result)
            successes = successes + 1 if result.healthy else 0
            if successes < probe.threshold:
                await self._clock.sleep(probe.interval)
        try:
            await self._driver.set_ready(project_id, status.run_id)
        except AttError as error:
            log.warning("%s is ready, but: %s", project_id, error.message)

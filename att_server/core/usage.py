"""UsageMeter: what running apps use, measured while somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from att_server.core.model import Usage
from att_server.core.ports import Clock, RuntimeDriver

MAX_AGE = timedelta(seconds=1)


class UsageMeter:
    """Measures all apps with one look, at most once in `MAX_AGE`, for everyone who asks."""

    def __init__(
        self, *, driver: RuntimeDriver, clock: Clock, running: Callable[[], Mapping[str, str]]
    ) -> None:
        """running: the present run's id by project id, of all apps that run."""
        self._driver = driver
        self._clock = clock
        self._running = running
        self._measuring = asyncio.Lock()
        self._measured: Mapping[tuple[str, str], Usage] = {}
        self._measured_at: float | None = None

    async def usage(self, project_id: str, run_id: str) -> Usage | None:
        """What the run uses, at most `MAX_AGE` old; None where that is not known.

        A run that began since the last look is not known until the next.
        """
        if not self._fresh:
            async with self._measuring:
                if not self._fresh:
                    await self._measure()
        return self._measured.get((project_id, run_id))

    @property
    def _fresh(self) -> bool:
        if self._measured_at is None:
            return False
        return self._clock.monotonic() - self._measured_at < MAX_AGE.total_seconds()

    async def _measure(self) -> None:
        runs = self._running()
        at = self._clock.monotonic()
        usages = await self._driver.usage(runs.keys())
        self._measured = {
            (project_id, run_id): usages[project_id]
            for project_id, run_id in runs.items()
            if project_id in usages
        }
        self._measured_at = at

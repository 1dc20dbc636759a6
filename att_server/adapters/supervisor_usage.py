"""What the trees of supervised apps use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from att_server.core.model import Usage
from att_server.core.ports import Clock
from att_server.supervisor import processes
from att_server.supervisor.state import State
from att_server.supervisor.usage import TreeUsage, UsageMeter


class SupervisorUsage:
    """Measures the trees below supervisors, who keep all that their apps start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._meter = UsageMeter()
        self._measuring = asyncio.Lock()

    async def measure(self, states: Mapping[str, State]) -> Mapping[str, Usage]:
        """By project id, for the supervisors that live and whose app does.

        The share of a processor is since the measurement before, if that was of
        the same project too.
        """
        async with self._measuring:
            found = await asyncio.to_thread(_look, self._meter, states)
            time = self._clock.now()
        return {
            project_id: Usage(
                cpu_percent=tree.cpu_percent,
                cpu_time=timedelta(seconds=tree.cpu_seconds),
                resident_bytes=tree.resident_bytes,
                process_count=tree.process_count,
                open_file_count=tree.open_file_count,
                time=time,
            )
            for project_id, tree in found.items()
        }


def _look(meter: UsageMeter, states: Mapping[str, State]) -> Mapping[str, TreeUsage]:
    roots = {}
    for project_id, state in states.items():
        process = processes.find(state.pid)
        # A supervisor that was killed may have left its pid to a stranger.
        if process is not None and process.ticks == state.start_ticks:
            roots[project_id] = state.pid
    return meter.look(roots)

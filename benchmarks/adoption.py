"""Adoption: how soon a server that was killed and started anew knows all its apps again."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import att_client
from att_client import RuntimeState
from benchmarks.figures import Figure
from benchmarks.stage import PATIENCE, Stage, end_apps, serve


async def measure(stage: Stage, *, apps: int, rounds: int) -> list[Figure]:
    """Milliseconds until `apps` running apps are known again, by a server of their own."""
    state = stage.directory / "adoption"
    target = f"unix:{state}/att.sock"
    serves = Figure(name="start of a server without apps", unit="ms")
    adopts = Figure(
        name=f"start of a server that adopts {apps} apps, until all are known",
        unit="ms",
        mark="< 1,000 ms",
        limit=1000,
    )
    for _ in range(rounds):
        began = time.perf_counter()
        async with serve(state):
            serves.samples.append((time.perf_counter() - began) * 1e3)
    async with serve(state) as server, att_client.connect(target) as client:
        for number in range(apps):
            project_id = f"adopted-{number:03}"
            await client.projects.create(
                project_id, path=str(stage.directory), command=["sleep", "3600"]
            )
            await client.runtimes.start(project_id)
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
    for left in reversed(range(rounds)):
        began = time.perf_counter()
        async with serve(state) as server, att_client.connect(target) as client:
            await all_known(client, apps)
            adopts.samples.append((time.perf_counter() - began) * 1e3)
            if left:
                os.kill(server.pid, signal.SIGKILL)
                await server.wait()
            else:
                await end_apps(client)
    return [serves, adopts]


async def all_known(client: att_client.Client, apps: int) -> None:
    """Returns once so many apps are READY."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            states = [runtime.state async for runtime in client.runtimes.list()]
            if states.count(RuntimeState.READY) == apps:
                return
            await asyncio.sleep(0.01)

"""Idle: what the server and the supervisors take while many apps do nothing."""

from __future__ import annotations

import asyncio

import psutil

from benchmarks.figures import Figure
from benchmarks.stage import Stage

MB = 1e6


async def measure(stage: Stage, *, projects: int, running: int, seconds: float) -> list[Figure]:
    """Memory of a server that was just begun, and memory and processor time with `projects`
    projects, of which `running` run."""
    server = psutil.Process(stage.server_pid)
    alone = server.memory_info().rss / MB
    for number in range(projects):
        await stage.project(f"idle-{number:03}", "sleep", "3600")
    for number in range(running):
        await stage.client.runtimes.start(f"idle-{number:03}")
    name = f"idle, {projects} projects, {running} running"
    supervisors = [
        parent
        for number in range(running)
        if (parent := await supervisor(stage, f"idle-{number:03}")) is not None
    ]
    before = processor(server) + sum(map(processor, supervisors))
    await asyncio.sleep(seconds)
    used = processor(server) + sum(map(processor, supervisors)) - before
    return [
        Figure(
            name="idle, no projects: server memory (RSS)",
            unit="MB",
            mark="< 60 MB",
            limit=60,
            samples=[alone],
        ),
        Figure(
            name=f"{name}: server memory (RSS)",
            unit="MB",
            mark="< 80 MB",
            limit=80,
            samples=[server.memory_info().rss / MB],
        ),
        Figure(
            name=f"{name}: private memory per app (USS)",
            unit="MB",
            mark="< 4 MB",
            limit=4,
            samples=[process.memory_full_info().uss / MB for process in supervisors],
        ),
        Figure(
            name=f"{name}: processor, server and supervisors",
            unit="%",
            mark="near 0",
            samples=[100 * used / seconds],
        ),
    ]


async def supervisor(stage: Stage, project_id: str) -> psutil.Process | None:
    """The process beside the project's app: its parent."""
    runtime = await stage.client.runtimes.get(project_id)
    return psutil.Process(runtime.pid).parent()


def processor(process: psutil.Process) -> float:
    """Seconds of processor time that the process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)

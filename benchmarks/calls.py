"""Calls: starting an app, and a small unary call alone and sixteen at a time."""

from __future__ import annotations

import asyncio
import subprocess
import time
from datetime import timedelta

from benchmarks.figures import Figure, percentile
from benchmarks.stage import Stage

IN_FLIGHT = 16


async def measure(stage: Stage, *, starts: int, calls: int, rounds: int) -> list[Figure]:
    """Start to running, and GetRuntime."""
    await stage.project("calls", "sleep", "3600")
    figures = [await start(stage, starts)]
    await stage.client.runtimes.start("calls")
    return [*figures, await alone(stage, calls, rounds), await together(stage, calls, rounds)]


async def start(stage: Stage, starts: int) -> Figure:
    """Milliseconds from the call of a start until the app runs; by turns with fork and exec."""
    figure = Figure(
        name="start: call → running", unit="ms", mark="< 10 ms, aim 4 ms", peer="fork and exec"
    )
    for _ in range(starts):
        begin = time.perf_counter()
        await stage.client.runtimes.start("calls")
        figure.samples.append((time.perf_counter() - begin) * 1e3)
        await stage.client.runtimes.stop("calls", grace=timedelta(0))
        figure.peer_samples.append(fork_and_exec())
    return figure


def fork_and_exec() -> float:
    """Milliseconds until a child runs its program."""
    begin = time.perf_counter()
    child = subprocess.Popen(["sleep", "3600"])  # returns when exec has succeeded
    took = (time.perf_counter() - begin) * 1e3
    child.kill()
    child.wait()
    return took


async def alone(stage: Stage, calls: int, rounds: int) -> Figure:
    """Milliseconds of a call, one after the other."""
    figure = Figure(name="GetRuntime p50, one in flight", unit="ms", mark="< 0.6 ms")
    for _ in range(rounds):
        samples = []
        for _ in range(calls):
            begin = time.perf_counter()
            await stage.client.runtimes.get("calls")
            samples.append((time.perf_counter() - begin) * 1e3)
        figure.samples.append(percentile(samples, 0.50))
    return figure


async def together(stage: Stage, calls: int, rounds: int) -> Figure:
    """Calls a second, sixteen in flight from one client process."""
    figure = Figure(
        name=f"GetRuntime, {IN_FLIGHT} in flight",
        unit="calls/s",
        mark="> 4,000 /s",
        higher_is_better=True,
    )

    async def caller() -> None:
        for _ in range(calls // IN_FLIGHT):
            await stage.client.runtimes.get("calls")

    for _ in range(rounds):
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(caller())
        done = calls // IN_FLIGHT * IN_FLIGHT
        figure.samples.append(done / (time.perf_counter() - begin))
    return figure

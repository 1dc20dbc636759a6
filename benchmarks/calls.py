"""Calls: a small unary call alone, with a token, and sixteen at a time."""

from __future__ import annotations

import asyncio
import sys
import time

import att_client
from att_client import Config
from benchmarks.figures import Figure, percentile
from benchmarks.stage import Stage

IN_FLIGHT = 16


async def measure(stage: Stage, *, calls: int, rounds: int) -> list[Figure]:
    """GetRuntime of an app that runs."""
    await stage.project("calls", "sleep", "3600")
    await stage.client.runtimes.start("calls")
    return [
        await alone(stage, calls, rounds),
        await with_token(stage, calls, rounds),
        await together(stage, calls, rounds),
    ]


async def alone(stage: Stage, calls: int, rounds: int) -> Figure:
    """Milliseconds of a call, one after the other."""
    figure = Figure(name="GetRuntime p50, one in flight", unit="ms", mark="< 0.6 ms", limit=0.6)
    for _ in range(rounds):
        samples = []
        for _ in range(calls):
            samples.append(await took(stage.client) * 1e3)
        figure.samples.append(percentile(samples, 0.50))
    return figure


async def with_token(stage: Stage, calls: int, rounds: int) -> Figure:
    """Microseconds that a call takes longer with a token than as the socket's own user.

    The two call by turns, on connections of their own.
    """
    figure = Figure(name="what a token adds to it, p50", unit="µs", mark="< 100 µs", limit=100)
    config = Config(target=stage.client.target, token=await token(stage))
    async with att_client.connect(config=config) as holder:
        for _ in range(rounds):
            own, held = [], []
            for _ in range(calls):
                own.append(await took(stage.client))
                held.append(await took(holder))
            added = percentile(held, 0.50) - percentile(own, 0.50)
            figure.samples.append(added * 1e6)
    return figure


async def took(client: att_client.Client) -> float:
    """The seconds of a call."""
    begin = time.perf_counter()
    await client.runtimes.get("calls")
    return time.perf_counter() - begin


async def token(stage: Stage) -> str:
    """A token of a viewer."""
    making = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "att_server", "token", "create", "--role", "viewer"),
        *("--name", "bench", "--state-dir", str(stage.directory / "state")),
        stdout=asyncio.subprocess.PIPE,
    )
    made, _ = await making.communicate()
    return made.decode().strip()


async def together(stage: Stage, calls: int, rounds: int) -> Figure:
    """Calls a second, sixteen in flight from one client process."""
    figure = Figure(
        name=f"GetRuntime, {IN_FLIGHT} in flight",
        unit="calls/s",
        mark="> 4,000 /s",
        limit=4000,
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

"""Follow latency: from the app's write of a line until a follower has it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from att_client import LogAnchor
from benchmarks.figures import Figure, percentile
from benchmarks.stage import PATIENCE, Stage, load

WARM_UP = 20  # lines of each round that do not count
MILLISECOND = 1e6


async def measure(stage: Stage, *, lines: int, rounds: int) -> list[Figure]:
    """p50 and p99 through supervisor, server and SDK; by turns with `tail -F`."""
    p50 = Figure(name="follow latency p50", unit="ms", mark="< 0.5 ms", peer="tail -F")
    p99 = Figure(name="follow latency p99", unit="ms", mark="< 1.3 ms", peer="tail -F")
    await stage.project("follow", *load("ticks", lines + WARM_UP))
    for _ in range(rounds):
        for samples, target in (
            (await att(stage, lines), (p50.samples, p99.samples)),
            (
                await tail(stage.directory / "ticks.log", lines),
                (p50.peer_samples, p99.peer_samples),
            ),
        ):
            target[0].append(percentile(samples, 0.50))
            target[1].append(percentile(samples, 0.99))
    return [p50, p99]


async def att(stage: Stage, lines: int) -> list[float]:
    """Latencies in milliseconds, of a follower that is there before the first line."""
    end = (await stage.client.logs.read("follow", anchor=LogAnchor.END)).end_cursor
    samples: list[float] = []
    follow = stage.client.logs.follow("follow", cursor=end, until_exit=True)
    async with asyncio.timeout(PATIENCE.total_seconds()), asyncio.TaskGroup() as group:
        group.create_task(stage.client.runtimes.start("follow"))
        async for line in follow:
            samples.append((time.monotonic_ns() - int(str(line))) / MILLISECOND)
    return counted(samples, lines)


async def tail(file: Path, lines: int) -> list[float]:
    """Latencies in milliseconds, of a `tail -F` that is there before the first line."""
    file.write_bytes(b"")
    follower = await asyncio.create_subprocess_exec(
        "tail", "-n", "0", "-F", str(file), stdout=asyncio.subprocess.PIPE
    )
    assert follower.stdout is not None
    samples: list[float] = []
    try:
        with file.open("ab") as out:
            writer = await asyncio.create_subprocess_exec(
                *load("ticks", lines + WARM_UP), stdout=out
            )
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while len(samples) < lines + WARM_UP:
                line = await follower.stdout.readline()
                samples.append((time.monotonic_ns() - int(line)) / MILLISECOND)
        await writer.wait()
    finally:
        follower.terminate()
        await follower.wait()
    file.unlink()
    return counted(samples, lines)


def counted(samples: list[float], lines: int) -> list[float]:
    """What counts of a round's samples. Raises RuntimeError if a line is missing."""
    if len(samples) != lines + WARM_UP:
        raise RuntimeError(f"{lines + WARM_UP} lines were written, {len(samples)} received")
    return samples[WARM_UP:]

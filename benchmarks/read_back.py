"""Read-back: a whole log through server and SDK, by batches and line by line."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.stage import PATIENCE, Stage, load

PEER = "Python reads the file's lines"


async def measure(stage: Stage, *, lines: int, rounds: int) -> list[Figure]:
    """Both ways; by turns with a plain read of a file with the same lines."""
    name = f"read back {lines:,} lines"
    batches = Figure(name=f"{name}, by batches", unit="s", mark="< 0.2 s")
    singles = Figure(name=f"{name}, line by line", unit="s", mark="< 0.6 s", peer=PEER)
    start = stage.directory / "read.start"
    await stage.project("read", *load("blocks", lines, start))
    await stage.run_to_end("read")
    file = await same_lines(stage.directory / "read.log", lines, start)
    for _ in range(rounds):
        batches.samples.append(await by_batches(stage, lines))
        singles.samples.append(await by_lines(stage, lines))
        singles.peer_samples.append(plain(file))
    file.unlink()
    return [batches, singles]


async def by_batches(stage: Stage, lines: int) -> float:
    """Seconds; counts the lines that the batches say they hold."""
    count, begin = 0, time.perf_counter()
    follow = stage.client.logs.follow("read", cursor=0)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        async for batch in follow.batches():
            count += sum(record.chunk.line_count for record in batch.records if record.chunk)
            if batch.cursor == batch.end_cursor:
                break
    took = time.perf_counter() - begin
    await follow.aclose()
    return checked(took, count, lines)


async def by_lines(stage: Stage, lines: int) -> float:
    """Seconds; handles each line as text."""
    count, begin = 0, time.perf_counter()
    follow = stage.client.logs.follow("read", cursor=0)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        async for _ in follow:
            count += 1
            if count == lines:
                break
    took = time.perf_counter() - begin
    await follow.aclose()
    return checked(took, count, lines)


async def same_lines(file: Path, lines: int, start: Path) -> Path:
    """A file with what the app wrote."""
    with file.open("wb") as out:
        writer = await asyncio.create_subprocess_exec(*load("blocks", lines, start), stdout=out)
    await writer.wait()
    return file


def plain(file: Path) -> float:
    """Seconds to read the file's lines as text."""
    begin = time.perf_counter()
    with file.open(errors="replace") as lines:
        for _ in lines:
            pass
    return time.perf_counter() - begin


def checked(took: float, count: int, lines: int) -> float:
    """`took`. Raises RuntimeError if a line is missing."""
    if count != lines:
        raise RuntimeError(f"{lines} lines are in the log, {count} were read")
    return took

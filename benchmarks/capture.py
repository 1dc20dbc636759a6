"""Capture: from the app's first write until all of it is in the log, or in the file of `cat`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from att_client import LogAnchor
from benchmarks.figures import Figure
from benchmarks.stage import Stage, load

MARKS = {"blocks": "≤ 2 × `cat > file`", "lines": "≤ 1.2 × `cat > file`"}


async def measure(stage: Stage, *, lines: int, rounds: int) -> list[Figure]:
    """Block writes, then one write a line; by turns with `cat > file`."""
    return [await compare(stage, kind, lines=lines, rounds=rounds) for kind in ("blocks", "lines")]


async def compare(stage: Stage, kind: str, *, lines: int, rounds: int) -> Figure:
    """One kind of writing. Raises RuntimeError if a line is missing."""
    figure = Figure(
        name=f"capture {lines:,} lines of 100 B, {kind}",
        unit="s",
        mark=MARKS[kind],
        peer="cat > file",
    )
    start = stage.directory / f"{kind}.start"
    project_id = f"capture-{kind}"
    await stage.project(project_id, *load(kind, lines, start))
    for _ in range(rounds):
        figure.samples.append(await att(stage, project_id, lines, start))
        figure.peer_samples.append(await cat(stage, kind, lines, start))
    return figure


async def att(stage: Stage, project_id: str, lines: int, start: Path) -> float:
    """Seconds until the marker of the run's end, which follows the last line."""
    before = (await stage.client.logs.read(project_id, anchor=LogAnchor.END)).end_cursor
    await stage.run_to_end(project_id)
    end = (await stage.client.logs.read(project_id, anchor=LogAnchor.END)).end_cursor
    if end - before != lines + 2:
        raise RuntimeError(f"{lines} lines were written, {end - before - 2} are in the log")
    marker = (await stage.client.logs.read(project_id, cursor=end - 1)).records[0].run
    assert marker is not None
    assert marker.time is not None
    return marker.time.timestamp() - started(start)


async def cat(stage: Stage, kind: str, lines: int, start: Path) -> float:
    """Seconds until `cat` has ended."""
    file = stage.directory / "cat.log"
    writer = " ".join(load(kind, lines, start))
    shell = await asyncio.create_subprocess_shell(f"{writer} | cat > {file}")
    await shell.wait()
    took = time.time() - started(start)
    size = file.stat().st_size
    file.unlink()
    if size != 100 * lines:
        raise RuntimeError(f"cat has {size} bytes of {100 * lines}")
    return took


def started(start: Path) -> float:
    """When the load generator began to write, in Unix seconds."""
    return int(start.read_text()) / 1e9

"""A follower of a storm of logs, as a process that is stopped and killed: writes down what it got.

argv: target, project, file, seconds of sleep after each batch, RE2 pattern or nothing.
It goes on where the file ends. A batch is lines `L <sequence> <run> <number>`, `M
<sequence>`, `G <first> <count> <reason> <first number kept>`, and at last `C <cursor>`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

import att_client
from att_client import LogBatch


def text(batch: LogBatch) -> str:
    found: list[str] = []
    for record in batch.records:
        if record.chunk is not None:
            chunk = record.chunk
            offsets = chunk.sequence_offsets or range(chunk.line_count)
            lines = chunk.lines.split(b"\n")[:-1]
            for offset, line in zip(offsets, lines, strict=True):
                run, number, _ = line.decode().split(" ", 2)
                found.append(f"L {chunk.first_sequence + offset} {run} {number}\n")
        elif record.gap is not None:
            gap = record.gap
            found.append(
                f"G {gap.first_sequence} {gap.count} {gap.reason.name} {batch.start_cursor}\n"
            )
        elif record.run is not None:
            found.append(f"M {record.run.sequence}\n")
    return "".join(found) + f"C {batch.cursor}\n"


def cut(path: str) -> int:
    """Cuts what was not finished off the file, and returns the cursor behind the rest."""
    with open(path, "a+b") as file:
        file.seek(0)
        data = file.read()
        at = data.rfind(b"\nC ", 0, data.rfind(b"\n") + 1) if data.count(b"\nC ") else -1
        end = data.find(b"\n", at + 1) + 1 if at >= 0 else 0
        file.truncate(end)
        return int(data[at + 3 : end]) if end else 0


async def main() -> None:
    target, project, path, sleep, pattern = sys.argv[1:6]
    cursor = cut(path)
    out = os.open(path, os.O_WRONLY | os.O_APPEND)
    progress = timedelta(seconds=1)
    # It begins also while the server is away.
    async with att_client.connect(target, lazy=True) as att:
        follow = att.logs.follow(
            project, cursor=cursor, pattern=pattern, progress_interval=progress
        )
        async for batch in follow.batches():
            os.write(out, text(batch).encode())
            await asyncio.sleep(float(sleep))


asyncio.run(main())

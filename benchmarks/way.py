"""`python -m benchmarks.way`: where the time of a line goes on its way to a follower.

An app writes a line each 10 ms; each stage between its write and a program that follows
notes when the line passed. Server and follower are the real ones, in processes of their
own, with notes taken around their functions, which costs some 2 µs a line.

--lines N       lines a round (default 300)
--rounds N      (default 3)
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Any

import att_client
from benchmarks.figures import percentile
from benchmarks.stage import load, stage

STAGES = {
    "captured": "from the pipe to the supervisor",
    "told": "into the segment; the server is told",
    "read": "the server has read the frame",
    "sent": "made a message, handed to gRPC",
    "received": "through gRPC to the SDK",
    "given": "checked, made a batch, given out",
}
WARM_UP = 20

Notes = dict[str, list[int]]
"""By stage, when it was passed: monotonic ns, ascending."""


def main() -> int:
    if sys.argv[1:2] == ["server"]:
        return _server(Path(sys.argv[2]), sys.argv[3:])
    if sys.argv[1:2] == ["follower"]:
        return asyncio.run(_follower(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.way",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways: list[list[float]] = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="att-way-") as directory:
            ways += asyncio.run(_round(arguments.lines + WARM_UP, Path(directory)))
    _show(ways)
    return 0


async def _round(lines: int, directory: Path) -> list[list[float]]:
    """For each line that counts, the ms that each stage took."""
    theirs, ours = directory / "server.json", directory / "follower.json"
    async with stage(("benchmarks.way", "server", str(theirs))) as at:
        await at.project("way", *load("ticks", lines, directory / "start"))
        arguments = ["follower", str(ours), at.client.target, str(lines)]
        follower = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.way", *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert follower.stdout is not None
        await follower.stdout.readline()
        await at.run_to_end("way")
        await follower.wait()
    notes: Notes = json.loads(theirs.read_text()) | json.loads(ours.read_text())
    return [_stages(notes, written) for written in notes["written"][WARM_UP:]]


def _stages(notes: Notes, written: int) -> list[float]:
    took, before = [], written
    for name in STAGES:
        times = notes[name]
        passed = times[min(bisect_left(times, before), len(times) - 1)]
        took.append((passed - before) / 1e6)
        before = passed
    return took


def _show(ways: list[list[float]]) -> None:
    print(f"{len(ways)} lines, ms\n")
    print(f"| stage | {'what':40} | p50 | p99 |\n|---|---|---|---|")
    columns = [*zip(*ways, strict=True), [sum(way) for way in ways]]
    for (name, what), took in zip([*STAGES.items(), ("all", "")], columns, strict=True):
        print(
            f"| {name} | {what:40} | {percentile(took, 0.5):.3f} | {percentile(took, 0.99):.3f} |"
        )


# In the server and in the follower --------------------------------------------


def _noting(notes: Notes, owner: Any, name: str, *, before: str = "", after: str = "") -> None:
    """Has calls of the function `name` of `owner` noted, as they begin and as they return."""
    function: Callable[..., Any] = getattr(owner, name)
    began, returned = notes.setdefault(before, []), notes.setdefault(after, [])

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        began.append(time.monotonic_ns())
        result = function(*args, **kwargs)
        returned.append(time.monotonic_ns())
        return result

    setattr(owner, name, noted)


def _server(file: Path, arguments: list[str]) -> int:
    from att_server.__main__ import main as serve
    from att_server.adapters.control_client import ControlClient
    from att_server.adapters.segments import SegmentLogStore
    from att_server.core.logs import LogManager
    from att_server.rpc.boundary import _Writer

    notes: Notes = {}
    _noting(notes, ControlClient, "data_received", before="told")
    _noting(notes, LogManager, "grew", after="rung")
    _noting(notes, SegmentLogStore, "read", before="asked")
    _noting(notes, _Writer, "write", before="sent")
    from att_server.adapters.project_log import ProjectLog

    _noting(notes, ProjectLog, "fresh_page", after="read")
    try:
        return serve(arguments)
    finally:
        file.write_text(json.dumps(notes))


async def _follower(file: Path, target: str, lines: int) -> int:
    from att_client import log_reader

    notes: Notes = {"written": [], "captured": [], "given": []}
    behind = time.time_ns() - time.monotonic_ns()
    _noting(notes, log_reader, "parse_page", before="received")
    async with att_client.connect(target) as att:
        is_attached = False
        async for batch in att.logs.follow("way", cursor=0).batches():
            now = time.monotonic_ns()
            if not is_attached:
                print("ready", flush=True)
                is_attached = True
            for record in batch.records:
                if (chunk := record.chunk) is None:
                    continue
                notes["given"].append(now)
                notes["written"] += [int(line) for line in chunk.lines.split()]
                assert chunk.time is not None
                notes["captured"].append(int(chunk.time.timestamp() * 1e6) * 1000 - behind)
            if len(notes["written"]) >= lines:
                break
    file.write_text(json.dumps(notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())

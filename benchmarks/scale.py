"""`python -m benchmarks.scale`: how cost grows as lines, followers, projects and history do.

Each series is measured at sizes that grow tenfold. Its growth is what the cost is multiplied
by from the first size to the last: 1 is flat, as much as the size is linear.

--steps N      how many sizes (default 3)
--rounds N     how often each is measured (default 3)
--first F      a factor for all sizes, such as 0.01 to try it (default 1)
--only NAME …  some of: lines followers projects history events
--peers DIR    where `benchmarks.peers` installed what plots need
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

import att_client
from benchmarks import report
from benchmarks.stage import PATIENCE, load, serve, stage

MIB = 1 << 20


@dataclass(slots=True, kw_only=True)
class Series:
    """A cost at growing sizes: samples in `unit` by size, which counts `of`."""

    name: str
    of: str
    unit: str
    samples: dict[int, list[float]] = field(default_factory=dict)

    def add(self, size: int, value: float) -> None:
        self.samples.setdefault(size, []).append(value)

    @property
    def medians(self) -> dict[int, float]:
        return {size: statistics.median(samples) for size, samples in self.samples.items()}

    @property
    def growth(self) -> float:
        """What the cost is multiplied by from the first size to the last."""
        first, *_, last = self.medians.values()
        return last / first if first else float("inf")


Measure = Callable[[Sequence[int], int], Coroutine[Any, Any, list[Series]]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", type=float, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--peers", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    plan: dict[str, tuple[Measure, int]] = {
        "lines": (lines, 10_000),
        "followers": (followers, 10),
        "projects": (projects, 10),
        "history": (history, 100_000),
        "events": (events, 100),
    }
    unknown = set(arguments.only or ()) - set(plan)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if arguments.steps < 2:
        parser.error("--steps: growth needs two sizes")
    found: list[Series] = []
    for name in arguments.only or plan:
        print(f"measuring {name} …", file=sys.stderr)
        measure, first = plan[name]
        first = max(1, round(first * arguments.first))
        sizes = [first * 10**step for step in range(arguments.steps)]
        found += asyncio.run(measure(sizes, arguments.rounds))
    file = write(found)
    if arguments.peers is not None:
        report.plot(file, arguments.peers)
    print(file.read_text())
    print(f"Written to {file.parent}")
    return 0


async def lines(sizes: Sequence[int], rounds: int) -> list[Series]:
    """Capture and read-back of a log of so many lines."""
    captured = Series(name="capture, block writes", of="lines", unit="s")
    read = Series(name="read back by batches", of="lines", unit="s")
    async with stage() as at:
        for size in sizes:
            for number in range(rounds):
                project_id = f"lines-{size}-{number}"
                start = at.directory / "start"
                await at.project(project_id, *load("blocks", size, start))
                await at.run_to_end(project_id)
                end = (await at.client.logs.info(project_id)).last_time
                assert end is not None
                captured.add(size, end.timestamp() - int(start.read_text()) / 1e9)
                read.add(size, await timed(_read(at.client, project_id)))
    return [captured, read]


async def followers(sizes: Sequence[int], rounds: int) -> list[Series]:
    """A line that comes while so many followers wait; what they cost the server."""
    reached = Series(name="a line until all followers have it", of="followers", unit="s")
    memory = Series(name="server's memory with idle followers", of="followers", unit="MiB")
    for size in sizes:
        async with stage() as at, AsyncExitStack() as stack:
            go_on = at.directory / "go-on"
            code = "import os,sys,time\nwhile True:\n time.sleep(.01)\n"
            code += " if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1]); os.write(1, b'x\\n')"
            await at.project("app", sys.executable, "-c", code, str(go_on))
            await at.client.runtimes.start("app")
            waiting: list[AsyncIterator[att_client.LogBatch]] = []
            # A connection has a bound of streams.
            for _ in range((size + 49) // 50):
                client = await stack.enter_async_context(att_client.connect(at.client.target))
                for _ in range(min(50, size - len(waiting))):
                    batches = client.logs.follow("app", anchor=att_client.LogAnchor.END).batches()
                    await anext(batches)
                    waiting.append(batches)
            memory.add(size, psutil.Process(at.server_pid).memory_info().rss / MIB)
            for _ in range(rounds):
                go_on.touch()
                ends = await asyncio.gather(*map(_next_line, waiting))
                reached.add(size, max(ends))
    return [reached, memory]


async def projects(sizes: Sequence[int], rounds: int) -> list[Series]:
    """A server with so many projects."""
    starts = Series(name="start of the server", of="projects", unit="s")
    get = Series(name="GetRuntime", of="projects", unit="s")
    page = Series(name="a page of 50 of ListRuntimes", of="projects", unit="s")
    memory = Series(name="server's memory", of="projects", unit="MiB")
    with tempfile.TemporaryDirectory(prefix="att-bench-") as directory:
        state, count = Path(directory) / "state", 0
        for size in sizes:
            async with serve(state), att_client.connect(f"unix:{state}/att.sock") as client:
                for number in range(count, size):
                    await client.projects.create(
                        f"p{number:06}", path=directory, command=["sleep", "3600"]
                    )
                count = size
            for _ in range(rounds):
                begin = time.perf_counter()
                async with serve(state) as server:
                    starts.add(size, time.perf_counter() - begin)
                    async with att_client.connect(f"unix:{state}/att.sock") as client:
                        get.add(size, await timed(client.runtimes.get("p000000")))
                        page.add(size, await timed(anext(client.runtimes.list().pages())))
                    memory.add(size, psutil.Process(server.pid).memory_info().rss / MIB)
    return [starts, get, page, memory]


async def history(sizes: Sequence[int], rounds: int) -> list[Series]:
    """A log that holds so many lines: its tail, and a place by time."""
    tail = Series(name="the last 100 lines", of="lines in the log", unit="s")
    seek = Series(name="a page from a time in the middle", of="lines in the log", unit="s")
    info = Series(name="GetLogInfo", of="lines in the log", unit="s")
    async with stage() as at:
        for size in sizes:
            project_id = f"history-{size}"
            begin = datetime.now(UTC)
            await at.project(project_id, *load("blocks", size, at.directory / "start"))
            await at.run_to_end(project_id)
            middle = begin + (datetime.now(UTC) - begin) / 2
            logs = at.client.logs
            for _ in range(rounds):
                tail.add(size, await timed(logs.read(project_id, tail=100)))
                seek.add(size, await timed(logs.read(project_id, since=middle, limit=100)))
                info.add(size, await timed(logs.info(project_id)))
    return [tail, seek, info]


async def events(sizes: Sequence[int], rounds: int) -> list[Series]:
    """An audit log of so many events."""
    page = Series(name="the last 50 events", of="events", unit="s")
    one = Series(name="the last 50 events of one project", of="events", unit="s")
    starts = Series(name="start of the server", of="events", unit="s")
    with tempfile.TemporaryDirectory(prefix="att-bench-") as directory:
        state, count = Path(directory) / "state", 0
        for size in sizes:
            async with serve(state), att_client.connect(f"unix:{state}/att.sock") as client:
                while count < size:
                    # Created and deleted: two events, and nothing that stays.
                    name = f"e{count % 10}"
                    await client.projects.create(name, path=directory, command=["true"])
                    await client.projects.delete(name)
                    count += 2
            for _ in range(rounds):
                begin = time.perf_counter()
                async with serve(state), att_client.connect(f"unix:{state}/att.sock") as client:
                    starts.add(size, time.perf_counter() - begin)
                    page.add(size, await timed(client.events.list(tail=True)))
                    found = client.events.list(project_id="e0", tail=True)
                    one.add(size, await timed(found))
    return [starts, page, one]


async def timed(call: Awaitable[object]) -> float:
    """Seconds that the call takes."""
    begin = time.perf_counter()
    async with asyncio.timeout(PATIENCE.total_seconds()):
        await call
    return time.perf_counter() - begin


async def _read(client: att_client.Client, project_id: str) -> None:
    async for _ in client.logs.follow(project_id, until_now=True).batches():
        pass


async def _next_line(batches: AsyncIterator[att_client.LogBatch]) -> float:
    """Seconds from the arrival of the next line in the log until it is here."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            batch = await anext(batches)
            for record in batch.records:
                if record.chunk is not None and record.chunk.time is not None:
                    waited: timedelta = datetime.now(UTC) - record.chunk.time
                    return waited.total_seconds()


def write(found: Sequence[Series]) -> Path:
    """Writes page and data; returns the page's file."""
    facts = report.machine()
    note = "Medians, and the growth from the first size to the last."
    rows = ["| cost | of | at each size | size × | cost × |", "|---|---|---|---|---|"]
    for series in found:
        sizes = list(series.samples)
        cells = [f"{report.number(size)}: {_told(series, size)}" for size in sizes]
        grown = f"{sizes[-1] / sizes[0]:,.0f}"
        rows.append(
            f"| {series.name} | {series.of} | {' · '.join(cells)} | {grown} | {series.growth:.2f} |"
        )
    page = f"# Scale\n\n{report.described(facts)}\n\n{note}\n\n" + "\n".join(rows) + "\n"
    data = [
        {
            "name": series.name,
            "of": series.of,
            "unit": series.unit,
            "growth": series.growth,
            "points": [
                {"size": size, "median": series.medians[size], "samples": samples}
                for size, samples in series.samples.items()
            ],
        }
        for series in found
    ]
    return report.write_files(report.new_folder("scale"), page, {"machine": facts, "series": data})


def _told(series: Series, size: int) -> str:
    median = series.medians[size]
    if series.unit == "s" and median < 1:
        return f"{report.number(median * 1e3)} ms"
    return f"{report.number(median)} {series.unit}"


if __name__ == "__main__":
    sys.exit(main())

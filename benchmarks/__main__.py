"""`python -m benchmarks`: measures and writes the report.

--rounds N      how often each measurement is taken (default 3)
--lines N       lines of capture, flood and read-back (default 1,000,000)
--only NAME …   some of: capture latency flood read-back stalled start search calls idle
                adoption bridge cycles
--peers DIR     beside ATT and the floor also the peers that `benchmarks.peers` installed there
--title NAME    of the directory with the results (default quick)
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import adoption, bridge, calls, compare, cycles, idle, report
from benchmarks.figures import Figure
from benchmarks.stage import Stage, stage
from benchmarks.subjects.att import Att
from benchmarks.subjects.floor import Floor
from benchmarks.subjects.jetstream import JetStream
from benchmarks.subjects.pm2 import Pm2
from benchmarks.subjects.subject import Subject
from benchmarks.subjects.supervisord import Supervisord

Measure = Callable[[Stage, Sequence[Subject]], Awaitable[list[Figure]]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--peers", type=Path, metavar="DIR")
    parser.add_argument("--title", default="quick")
    arguments = parser.parse_args()
    measures = plan(
        rounds=arguments.rounds, lines=arguments.lines, thorough=arguments.peers is not None
    )
    unknown = set(arguments.only or ()) - set(measures)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = {k: m for k, m in measures.items() if k in (arguments.only or measures)}
    peers = None if arguments.peers is None else arguments.peers.absolute()
    file = asyncio.run(run(chosen, peers, report.new_folder(arguments.title)))
    if peers is not None:
        report.plot(file, peers)
    print(file.read_text())
    print(f"Written to {file.parent}")
    return 0


def plan(*, rounds: int, lines: int, thorough: bool) -> dict[str, Measure]:
    """The measurements by name, in the order in which they are taken."""
    followers = (1, 10, 50) if thorough else (1,)
    return {
        "capture": lambda _, all_: compare.capture(all_, lines=lines, rounds=rounds),
        "latency": lambda _, all_: compare.latency(all_, lines=300, rounds=rounds),
        "flood": lambda _, all_: compare.flood(
            all_, lines=lines, followers=followers, rounds=rounds
        ),
        "read-back": lambda _, all_: compare.read_back(all_, lines=lines, rounds=rounds),
        "stalled": lambda _, all_: compare.stalled(all_, lines=3 * lines, rounds=rounds),
        "start": lambda _, all_: compare.start(all_, starts=20),
        "search": lambda _, all_: compare.search(
            all_, lines=10 * lines if thorough else lines, rounds=rounds
        ),
        "calls": lambda at, _: calls.measure(at, calls=2000, rounds=rounds),
        "idle": lambda at, _: idle.measure(at, projects=200, running=20, seconds=5),
        "adoption": lambda at, _: adoption.measure(at, apps=100, rounds=rounds),
        "bridge": lambda at, _: bridge.measure(at, calls=300, rounds=rounds),
        "cycles": lambda at, _: cycles.measure(at, rounds=rounds, together=50),
    }


async def run(measures: dict[str, Measure], peers: Path | None, folder: Path) -> Path:
    """Takes the measurements one after the other, each with servers of its own.

    Returns the report, which is written after each: a run that is cut short leaves what
    it has.
    """
    figures: list[Figure] = []
    file = report.write(figures, folder)
    for name, measure in measures.items():
        print(f"measuring {name} …", file=sys.stderr)
        async with stage() as at, subjects(at, peers) as everyone:
            figures += await measure(at, everyone)
        file = report.write(figures, folder)
    return file


@asynccontextmanager
async def subjects(at: Stage, peers: Path | None) -> AsyncIterator[Sequence[Subject]]:
    """ATT, the floor, and the peers that are installed in `peers`."""
    floor = (Att(at), Floor(at.directory))
    if peers is None:
        yield floor
        return
    supervisord = Supervisord(peers / "supervisord", at.directory)
    pm2 = Pm2(peers / "pm2", at.directory)
    jetstream = JetStream(peers / "jetstream", at.directory)
    try:
        yield (*floor, supervisord, pm2, jetstream)
    finally:
        await supervisord.aclose()
        await pm2.aclose()
        await jetstream.aclose()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks`: measures in a few minutes and prints the table.

--rounds N      how often each measurement is taken (default 3)
--lines N       lines of capture and read-back (default 1,000,000)
--only NAME …   some of: capture follow read-back calls idle adoption
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable

from benchmarks import adoption, calls, capture, follow, idle, read_back, report
from benchmarks.figures import Figure
from benchmarks.stage import Stage, stage

Measure = Callable[[Stage], Awaitable[list[Figure]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    arguments = parser.parse_args()
    measures = plan(rounds=arguments.rounds, lines=arguments.lines)
    unknown = set(arguments.only or ()) - set(measures)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    figures = asyncio.run(
        run({k: m for k, m in measures.items() if k in (arguments.only or measures)})
    )
    file = report.write(figures, title="quick")
    print(file.read_text())
    print(f"Written to {file.parent}")
    return 0


def plan(*, rounds: int, lines: int) -> dict[str, Measure]:
    """The measurements by name, in the order in which they are taken."""
    return {
        "capture": lambda at: capture.measure(at, lines=lines, rounds=rounds),
        "follow": lambda at: follow.measure(at, lines=300, rounds=rounds),
        "read-back": lambda at: read_back.measure(at, lines=lines, rounds=rounds),
        "calls": lambda at: calls.measure(at, starts=20, calls=2000, rounds=rounds),
        "idle": lambda at: idle.measure(at, projects=200, running=20, seconds=5),
        "adoption": lambda at: adoption.measure(at, apps=100, rounds=rounds),
    }


async def run(measures: dict[str, Measure]) -> list[Figure]:
    """Takes the measurements one after the other, each with a server of its own."""
    figures: list[Figure] = []
    for name, measure in measures.items():
        print(f"measuring {name} …", file=sys.stderr)
        async with stage() as at:
            figures += await measure(at)
    return figures


if __name__ == "__main__":
    sys.exit(main())

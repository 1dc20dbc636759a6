"""Measures ATT and its peers by turns: the same app, the same receivers, one after the other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress

import psutil

from benchmarks.figures import ATT, Figure, percentile
from benchmarks.subjects.floor import FLOOR
from benchmarks.subjects.subject import NotMeasurable, Subject, receiving

MIB = 1 << 20
WARM_UP = 20  # lines of each round of latencies that do not count


async def by_turns(
    figures: Sequence[Figure],
    subjects: Sequence[Subject],
    rounds: int,
    measure: Callable[[Subject], Awaitable[Sequence[float]]],
) -> list[Figure]:
    """Has each subject measured once a round; a value for each of the figures."""
    for _ in range(rounds):
        for subject in subjects:
            if subject.name in figures[0].missing:
                continue
            try:
                values = await measure(subject)
            except NotMeasurable as error:
                if subject.name == ATT:
                    raise
                for figure in figures:
                    figure.missing[subject.name] = str(error)
                    figure.peers.pop(subject.name, None)
                continue
            for figure, value in zip(figures, values, strict=True):
                figure.add(subject.name, value)
    return list(figures)


async def capture(subjects: Sequence[Subject], *, lines: int, rounds: int) -> list[Figure]:
    """From the app's first write until all of it is kept: block writes, then one write a line."""
    figures: list[Figure] = []
    for kind, limit in (("blocks", 2.0), ("lines", 1.2)):
        figure = Figure(
            name=f"capture {lines:,} lines of 100 B, {kind}",
            unit="s",
            mark=f"≤ {limit:g} × `cat > file`",
            limit=limit,
            limit_of=FLOOR,
        )

        async def measure(subject: Subject, kind: str = kind) -> Sequence[float]:
            given = min(lines, subject.longest)
            await subject.prepare(kind, given)
            return [await subject.run() * lines / given]

        figures += await by_turns([figure], subjects, rounds, measure)
    return figures


async def latency(subjects: Sequence[Subject], *, lines: int, rounds: int) -> list[Figure]:
    """From the write of a line, one each 10 ms, until a follower has it."""

    async def measure(subject: Subject) -> Sequence[float]:
        wanted = lines + WARM_UP
        await subject.prepare("ticks", wanted)
        async with receiving(subject.receiver("ticks", wanted)) as receiver:
            samples, _ = await asyncio.gather(receiver.result(), subject.run())
        assert isinstance(samples, list)
        if len(samples) != wanted:
            raise NotMeasurable(f"{wanted} lines were written, {len(samples)} received")
        return [percentile(samples[WARM_UP:], share) for share in (0.50, 0.99)]

    figures = [
        Figure(name="follow latency p50", unit="ms", mark="< 0.5 ms", limit=0.5),
        Figure(name="follow latency p99", unit="ms", mark="< 1.3 ms", limit=1.3),
    ]
    return await by_turns(figures, subjects, rounds, measure)


async def flood(
    subjects: Sequence[Subject], *, lines: int, followers: Sequence[int], rounds: int
) -> list[Figure]:
    """Lines a second that all followers together get of an app that writes without a pause."""
    marks = {1: (4.5e6, "> 4.5 M/s"), 10: (8e6, "> 8 M/s"), 50: (8e6, "> 8 M/s")}
    figures: list[Figure] = []
    for count in followers:
        limit, mark = marks.get(count, (None, ""))
        figure = Figure(
            name=f"flood, {count} follower{'s' if count > 1 else ''}",
            unit="lines/s",
            mark=mark,
            limit=limit,
            higher_is_better=True,
        )

        async def measure(subject: Subject, count: int = count) -> Sequence[float]:
            return [await received_rate(subject, lines, count)]

        figures += await by_turns([figure], subjects, rounds, measure)
    return figures


async def received_rate(subject: Subject, lines: int, followers: int) -> float:
    """Lines a second, over all followers, until the last one has the last line."""
    # Many followers get fewer lines each: it is the sum that is asked for.
    given = max(1000, min(lines, subject.longest) // max(1, followers // 5))
    await subject.prepare("blocks", given)
    async with AsyncExitStack() as stack:
        command = subject.receiver("count", given)
        attached = [await stack.enter_async_context(receiving(command)) for _ in range(followers)]
        running = asyncio.ensure_future(subject.run())
        try:
            ends = await asyncio.gather(*(receiver.result() for receiver in attached))
            await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, NotMeasurable):
                await running
    last = max(int(str(end)) for end in ends) / 1e9
    return given * followers / (last - subject.began())


async def read_back(subjects: Sequence[Subject], *, lines: int, rounds: int) -> list[Figure]:
    """Reads a whole log that is there: in the largest pieces, and line by line."""
    name = f"read back {lines:,} lines"
    batches = Figure(name=f"{name}, by batches", unit="s", mark="< 0.2 s", limit=0.2)
    singles = Figure(name=f"{name}, line by line", unit="s", mark="< 0.6 s", limit=0.6)

    def measured(kind: str) -> Callable[[Subject], Awaitable[Sequence[float]]]:
        async def measure(subject: Subject) -> Sequence[float]:
            given = min(lines, subject.longest)
            await subject.prepare("blocks", given)
            command = subject.receiver(kind, given)
            await subject.run()
            async with receiving(command) as receiver:
                return [float(str(await receiver.result())) * lines / given]

        return measure

    return [
        *await by_turns([batches], subjects, rounds, measured("read")),
        *await by_turns([singles], subjects, rounds, measured("lines")),
    ]


async def stalled(subjects: Sequence[Subject], *, lines: int, rounds: int) -> list[Figure]:
    """What a follower that was stopped costs the daemon, and the app, which floods."""

    async def measure(subject: Subject) -> Sequence[float]:
        given = min(lines, subject.longest)
        await subject.prepare("blocks", given)
        subject.daemon()  # who has none is not worth a flood
        alone = await subject.run()
        await subject.prepare("blocks", given)
        daemon = psutil.Process(subject.daemon())  # supervisord has a new one for each load
        async with receiving(subject.receiver("count", given)) as receiver:
            os.killpg(receiver.process.pid, signal.SIGSTOP)
            before = most = daemon.memory_info().rss
            running = asyncio.ensure_future(subject.run())
            while not running.done():
                await asyncio.wait([running], timeout=0.01)
                most = max(most, daemon.memory_info().rss)
            took = await running
        return [(most - before) / MIB, took / alone]

    name = f"stalled follower, {lines:,} lines"
    memory = Figure(name=f"{name}: daemon's memory grows", unit="MiB", mark="≤ 10 MiB", limit=10)
    slower = Figure(name=f"{name}: capture takes", unit="× without it", mark="app not slowed")
    return await by_turns([memory, slower], subjects, rounds, measure)


async def start(subjects: Sequence[Subject], *, starts: int) -> list[Figure]:
    """From the call of a start until the app runs."""

    async def measure(subject: Subject) -> Sequence[float]:
        return [await subject.start()]

    figure = Figure(name="start: call → running", unit="ms", mark="< 10 ms, aim 4 ms", limit=10)
    return await by_turns([figure], subjects, starts, measure)


async def search(subjects: Sequence[Subject], *, lines: int, rounds: int) -> list[Figure]:
    """Looks for an RE2 pattern in a whole log."""

    async def measure(subject: Subject) -> Sequence[float]:
        await subject.prepare("blocks", min(lines, subject.longest))
        await subject.run()
        return [await subject.search("timeout|refused")]

    figure = Figure(
        name=f"regex search over {lines * 100 / 1e6:,.0f} MB",
        unit="s",
        mark="≤ 3 × `grep -c`",
        limit=3,
        limit_of=FLOOR,
    )
    return await by_turns([figure], subjects, rounds, measure)

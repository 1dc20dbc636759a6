"""`python -m tests.storm.logs`: a log is written, trimmed and followed, and every line counted.

An app writes numbered lines while it, its supervisor and the server are killed, the log
is trimmed and has retention. Followers are processes of their own: steady, slow, one that
selects, some that are stopped for a while and some that are killed. Afterwards each one's
lines are compared with all that any of them saw and with what the app says it wrote; the
program exits with 1 if a line is lost or doubled, or a gap is not exact.

--seconds N     how long the storm blows (default 60)
--rate N        bytes a second that the app writes (default 8,000,000)
--seed N        makes it choose the same again (default 1); what the machine does is not repeated
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil

import att_client
from tests.server_process import ServerProcess, wait_until

APP = Path(__file__).with_name("log_app.py")
FOLLOWER = Path(__file__).with_name("log_follower.py")
SELECTED = "7"
"""The last digit of the numbers that one follower selects."""

SETTINGS = """
[runtime]
stop_grace = "300ms"

[log]
max_size = "64MiB"
"""


@dataclass
class Report:
    """What was done and found, and what is wrong."""

    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        counts = [f"{name} {n:,}" for name, n in sorted(self.done.items())]
        found = [f"{name} {n:,}" for name, n in sorted(self.found.items())]
        gaps = "gaps exact" if not self.wrong else "GAPS OR LINES WRONG"
        return "\n".join(
            [
                "done:   " + ", ".join(counts),
                "found:  " + ", ".join(found),
                *(f"WRONG:  {what}" for what in self.wrong[:30]),
                f"lost {self.lost}, doubled {self.doubled}, {gaps}",
            ]
        )

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


class Follower:
    """One follower, over all its processes."""

    def __init__(self, target: str, file: Path, *, sleep: float = 0, pattern: str = "") -> None:
        self.file = file
        self.pattern = pattern
        self._target = target
        self._sleep = sleep
        self._process: psutil.Popen | None = None

    def start(self, sleep: float | None = None) -> None:
        """sleep: after each batch, instead of its own."""
        pause = str(self._sleep if sleep is None else sleep)
        arguments = [self._target, "web", str(self.file), pause, self.pattern]
        self._process = psutil.Popen([sys.executable, str(FOLLOWER), *arguments])

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    @property
    def cursor(self) -> int:
        """Where its file ends."""
        try:
            with self.file.open("rb") as file:
                file.seek(max(0, self.file.stat().st_size - 64))
                last = file.read().splitlines()[-1:]
        except FileNotFoundError:
            return 0
        return int(last[0][2:]) if last and last[0].startswith(b"C ") else 0

    def wait_for(self, cursor: int) -> None:
        """Returns once its file has all before `cursor`, or raises AssertionError."""

        def is_there() -> bool:
            assert self._process is not None
            if self.cursor >= cursor:
                return True
            code = self._process.poll()
            assert code is None, f"{self.file.stem} gave up at {self.cursor}, with {code}"
            return False

        wait_until(is_there, f"{self.file.stem} at {cursor}")

    def entries(self) -> Iterator[list[str]]:
        with self.file.open() as file:
            yield from (line.split() for line in file)


class LogStorm:
    """One storm over one log."""

    def __init__(self, directory: Path, *, seconds: float, rate: int, seed: int) -> None:
        self.directory = directory
        self.seconds = seconds
        self.rate = rate
        self.chance = random.Random(seed)
        self.seed = seed
        self.server = ServerProcess(directory / "s")
        self.report = Report()
        self.lost_runs: set[str] = set()
        self.wild: list[Follower] = []

    async def run(self) -> Report:
        (self.directory / "counts").mkdir()
        (self.directory / "att.toml").write_text(SETTINGS)
        await asyncio.to_thread(self.server.start)
        followers = self._followers()
        try:
            async with att_client.connect(self.server.target) as att:
                await att.projects.create(
                    "web",
                    path=str(self.directory),
                    command=[
                        *(sys.executable, "-S", "-E", str(APP)),
                        *(str(self.directory / "counts"), str(self.rate), str(self.seed)),
                    ],
                )
                for follower in followers:
                    follower.start()
                await self._blow(att)
                await self._settle(att, followers)
        finally:
            for follower in followers:
                with contextlib.suppress(psutil.Error):
                    follower.end()
            self.server.__exit__(None, None, None)
        self._check(followers)
        return self.report

    def _followers(self) -> list[Follower]:
        def follower(name: str, *, sleep: float = 0, pattern: str = "") -> Follower:
            file = self.directory / f"{name}.txt"
            return Follower(self.server.target, file, sleep=sleep, pattern=pattern)

        self.wild = [follower("stopped"), follower("killed"), follower("slow", sleep=0.3)]
        chosen = follower("selecting", pattern=rf"^\w+ \d*{SELECTED} ")
        return [follower("steady"), *self.wild, chosen]

    async def _blow(self, att: att_client.Client) -> None:
        until = time.monotonic() + self.seconds
        actions = [self._trim, self._kill_app, self._restart, self._stop_follower]
        actions += [self._kill_follower, self._kill_server, self._kill_supervisor, self._trim]
        turn = 0
        while time.monotonic() < until:
            await self._run_app(att)
            await asyncio.sleep(self.chance.uniform(0.2, 1.2))
            # Each once in its turn, then as it comes: a short storm has all of them.
            action = actions[turn] if turn < len(actions) else self.chance.choice(actions)
            turn += 1
            try:
                await action(att)
                self.report.done[action.__name__[1:]] += 1
            except att_client.UnavailableError:
                self.report.done["refused"] += 1
            self._note_memory()

    # What is done ------------------------------------------------------------

    async def _run_app(self, att: att_client.Client) -> None:
        with contextlib.suppress(att_client.AttError):
            await att.runtimes.start("web")

    async def _trim(self, att: att_client.Client) -> None:
        info = await att.logs.info("web")
        before = self.chance.randint(info.start_cursor, info.end_cursor)
        start = await att.logs.trim("web", before_cursor=before)
        self.report.found["trimmed numbers"] += start - info.start_cursor

    async def _kill_app(self, att: att_client.Client) -> None:
        runtime = await att.runtimes.get("web")
        if runtime.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runtime.pid, signal.SIGKILL)

    async def _restart(self, att: att_client.Client) -> None:
        with contextlib.suppress(att_client.AttError):
            await att.runtimes.restart("web")

    async def _stop_follower(self, _att: att_client.Client) -> None:
        self.wild[0].signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.5, 2))
        self.wild[0].signal(signal.SIGCONT)

    async def _kill_follower(self, _att: att_client.Client) -> None:
        await asyncio.to_thread(self.wild[1].end)
        self.wild[1].start()

    async def _kill_server(self, _att: att_client.Client) -> None:
        await asyncio.to_thread(self.server.kill)
        await asyncio.to_thread(self.server.start)

    async def _kill_supervisor(self, att: att_client.Client) -> None:
        runtime = await att.runtimes.get("web")
        for state in self.server.supervisor_states():
            if runtime.pid and state["supervisor_id"] == runtime.supervisor_id:
                # What was still in the pipe goes with it.
                self.lost_runs.add(runtime.run_id)
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(int(str(state["pid"]))).kill()

    def _note_memory(self) -> None:
        used = psutil.Process(self.server.pid).memory_full_info().uss >> 20
        self.report.found["server MiB"] = max(self.report.found["server MiB"], used)

    async def _settle(self, att: att_client.Client, followers: list[Follower]) -> None:
        """Stops the app, and waits until every follower has all."""
        await att.runtimes.stop("web")
        end = (await att.logs.info("web")).end_cursor
        slow = self.wild[2]
        await asyncio.to_thread(slow.end)
        slow.start(sleep=0)
        for follower in followers:
            try:
                await asyncio.to_thread(follower.wait_for, end)
            except AssertionError as error:
                self.report.wrong.append(str(error))
        self.report.found["numbers"] = end

    # What is found -----------------------------------------------------------

    def _check(self, followers: list[Follower]) -> None:
        log: dict[int, tuple[str, int] | None] = {}
        """By sequence number: run and number of the line, None for a marker."""
        plain = [follower for follower in followers if not follower.pattern]
        for follower in plain:
            self._take(follower, log)
        for follower in followers:
            if follower.pattern:
                self._check_selection(follower, log)
        self._check_runs(log)

    def _take(self, follower: Follower, log: dict[int, tuple[str, int] | None]) -> None:
        """Adds what a follower saw: each number once, as a line, a marker, or in a gap."""
        name, at = follower.file.stem, 0
        for entry in follower.entries():
            if entry[0] == "C":
                self._expect(int(entry[1]) == at, f"{name}: cursor {entry[1]} behind {at}")
                continue
            first, count = int(entry[1]), int(entry[2]) if entry[0] == "G" else 1
            self.report.lost += max(0, first - at)
            self.report.doubled += max(0, at - first)
            at = first + count
            if entry[0] == "G":
                self.report.found[f"gaps {entry[3].lower()}"] += 1
                removed = entry[3] in ("RETENTION", "TRIMMED")
                kept = removed and at > int(entry[4])
                self._expect(not kept, f"{name}: {entry} reaches into what is kept")
                continue
            seen = (entry[2], int(entry[3])) if entry[0] == "L" else None
            known = log.setdefault(first, seen)
            self._expect(known == seen, f"{name}: {first} is {seen}, to others {known}")
        self.report.found["lines received"] += at

    def _check_selection(self, follower: Follower, log: dict[int, tuple[str, int] | None]) -> None:
        got: set[int] = set()
        missing: set[int] = set()
        for entry in follower.entries():
            if entry[0] == "L":
                number = int(entry[1])
                self.report.doubled += number in got
                got.add(number)
                self._expect(entry[3].endswith(SELECTED), f"{entry} was not selected")
                seen = (entry[2], int(entry[3]))
                self._expect(log.setdefault(number, seen) == seen, f"another line at {number}")
            elif entry[0] == "G":
                missing.update(range(int(entry[1]), int(entry[1]) + int(entry[2])))
        wanted = {n for n, line in log.items() if line and line[1] % 10 == int(SELECTED)}
        self.report.lost += len(wanted - got - missing)
        self._expect(not got & missing, f"{len(got & missing)} lines were told missing as well")

    def _check_runs(self, log: dict[int, tuple[str, int] | None]) -> None:
        """The lines of each run are what its app wrote, from the first on, without a hole."""
        runs: dict[str, list[tuple[int, int]]] = {}
        for sequence in sorted(log):
            line = log[sequence]
            if line is not None:
                runs.setdefault(line[0], []).append((sequence, line[1]))
        self.report.found["runs"] = len(runs)
        for run, lines in runs.items():
            for (a, n), (b, m) in pairwise(lines):
                self._expect(m - n == b - a, f"{run}: {n} at {a}, then {m} at {b}")
            begun, written = map(int, (self.directory / "counts" / run).read_text().split())
            last = lines[-1][1] + 1
            complete = written <= last <= begun or run in self.lost_runs
            self._expect(complete, f"{run}: {last} lines, {written} to {begun} were written")

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.report.wrong.append(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=8_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-logs-") as directory:
        storm = LogStorm(Path(directory), seconds=given.seconds, rate=given.rate, seed=given.seed)
        report = asyncio.run(storm.run())
    print(report.text)
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()

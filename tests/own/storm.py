"""`python -m tests.own.storm`: ATT releases itself while its server and launcher are killed.

Half of the changes are bad, in ways that differ. Then it is counted: every good change is live,
every bad one rolled back and undone, the app was never started anew, no line of it lost.
Prints the counts, and exits with 1 if anything is wrong.

--cycles N   (default 20)
--seed N     makes it choose the same again (default 1); what the machine does is not repeated
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
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

import att_client
from att_client import CycleOutcome
from att_server.spare import OPTION
from tests.launcher_process import LauncherProcess
from tests.own.clone import GOOD, KINDS, Clone
from tests.own.demo import register
from tests.own.witness import APP, Witness
from tests.server_process import PATIENCE, alive, wait_until

BAD = tuple(kind for kind in KINDS if kind != GOOD)
TRIES = 4
"""A release that is on trial is killed as well, and not by a fault of its own."""
LONGEST_GAP = 1.0
"""Seconds: 99 in 100 times without an answer are shorter."""
TOLD_GAP = 0.5
"""Seconds: of a longer one it is told what happened meanwhile."""


@dataclass
class Storm:
    """One storm over one state directory. ready: seconds that a new server has to serve."""

    directory: Path
    seed: int
    kinds: tuple[str, ...]
    pause: tuple[float, float] = (6.0, 14.0)
    ready: int = 15
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    kills: list[tuple[datetime, str]] = field(default_factory=list)
    witness: Witness = field(default_factory=Witness)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.clone = Clone(self.directory, ready=self.ready, tries=TRIES)
        self.launcher = LauncherProcess(self.directory / "s")

    async def run(self) -> Storm:
        self.clone.make()
        await asyncio.to_thread(register, self.clone, self.launcher)
        with self.launcher:
            await asyncio.to_thread(self.launcher.served_by, 1)
            async with att_client.connect(self.launcher.target) as att:
                await self.witness.begin(att, self.directory)
                tasks = [
                    asyncio.create_task(self.witness.follow(att)),
                    asyncio.create_task(self.witness.call(self.launcher.target)),
                ]
                chaos = asyncio.create_task(self._kill(random.Random(self.chance.random())))
                for number, kind in enumerate(self.kinds):
                    await self._release(att, kind, f"change_{number}")
                chaos.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await chaos
                await self._look(att)
                for task in tasks:
                    task.cancel()
                await att.runtimes.stop(APP)
            await asyncio.to_thread(self.launcher.terminate)
        return self

    async def _release(self, att: att_client.Client, kind: str, name: str) -> None:
        cycle_id = await self._started(att, kind, name)
        ended = await att.bootstrap.wait(cycle_id)
        info = await self._info(att)
        self.done[f"{kind} {(ended.outcome.name or '').lower()}"] += 1
        told = f"{name} ({kind}): {ended.outcome.name} {ended.outcome_reason}"
        print(f"  {told}", flush=True)
        if kind == GOOD:
            self.check(ended.outcome is CycleOutcome.SUCCEEDED, told)
            self.check(f"own.{name}" in info.capabilities, f"{name} is not live")
        else:
            self.check(ended.outcome is CycleOutcome.ROLLED_BACK, told)
            self.check(ended.result is not None and ended.result.reverted, f"{name} was not undone")

    async def _started(self, att: att_client.Client, kind: str, name: str) -> str:
        """The cycle, asked for until an answer comes: the request id is the same."""
        edits = self.clone.edit(kind, name)
        while True:
            try:
                cycle = await att.bootstrap.start(
                    "att", edits=edits, message=f"{name}: {kind}", request_id=name
                )
                return cycle.cycle_id
            except att_client.UnavailableError:
                await asyncio.sleep(0.1)

    async def _info(self, att: att_client.Client) -> att_client.GetServerInfoResponse:
        while True:
            try:
                return await att.server.info()
            except att_client.UnavailableError:
                await asyncio.sleep(0.1)

    async def _kill(self, chance: random.Random) -> None:
        """Goes on killing, however slow the machine is: two kills in the time of one start leave
        nobody that is prepared, and a machine busy enough would come to nothing else."""
        while True:
            await asyncio.to_thread(wait_until, self._is_looked_after, "a server of the launcher")
            await asyncio.sleep(chance.uniform(*self.pause))
            if chance.random() < 0.4:
                await asyncio.to_thread(self.launcher.kill)
                # As soon as a service manager would.
                await asyncio.sleep(chance.uniform(0, 0.3))
                await asyncio.to_thread(self.launcher.start)
                self._note_kill("launcher")
            else:
                with contextlib.suppress(ProcessLookupError, KeyError):
                    os.kill(self.launcher.holder["pid"], signal.SIGKILL)
                    self._note_kill("server")

    def _is_looked_after(self) -> bool:
        """Whether the one that serves was started by the launcher, or has a spare of its own."""
        held, servers = self.launcher.holder, self.launcher.record.get("servers", [])
        if held.get("tenure") != "serves" or not alive(held["pid"]):
            return False
        return held["pid"] in [server["pid"] for server in servers] or _has_spare(held["pid"])

    def _note_kill(self, whom: str) -> None:
        self.kills.append((datetime.now(UTC), f"kill of the {whom}"))
        self.done[f"kills of the {whom}"] += 1

    async def _look(self, att: att_client.Client) -> None:
        info = await self._info(att)
        live = {name for name in info.capabilities if name.startswith("own.")}
        wanted = {f"own.change_{n}" for n, kind in enumerate(self.kinds) if kind == GOOD}
        self.check(live == wanted, f"live {sorted(live)}, good {sorted(wanted)}")
        for kind in BAD:
            self.check(bool(self.clone.edit(kind, "look")), f"the base holds {kind}")
        runtime = await att.runtimes.get(APP)
        self.check(
            (runtime.run_id, runtime.pid) == (self.witness.run_id, self.witness.pid),
            "the app was started anew",
        )
        seen = len(self.witness.lines)
        async with asyncio.timeout(PATIENCE):
            while len(self.witness.lines) < seen + 50:
                await asyncio.sleep(0.05)
        self.check(not self.witness.wrong_with_lines(), self.witness.wrong_with_lines())
        project = await att.projects.get("att")
        self.check(project.mode is att_client.ProjectMode.NORMAL, project.mode_reason)
        self._count_commits()

    def _count_commits(self) -> None:
        """Each change merged once at most, and undone once at most."""
        form = "%(trailers:key=Att-Reverts,valueonly,separator=%x2C)%x02"
        reverts = [
            part.strip() for part in self.clone.git("log", f"--format={form}", "main").split("\x02")
        ]
        seen = Counter(part for part in reverts if part)
        self.done["reverts"] = len(seen)
        self.check(all(times == 1 for times in seen.values()), f"doubled reverts: {seen}")

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def _meanwhile(self, ended: datetime, gap: float) -> str:
        """What happened in a time without an answer, and in the seconds before."""
        told = [
            (datetime.fromisoformat(event["time"]), f"{event['type']} {event.get('launch', '')}")
            for event in self.launcher.events
        ]
        began = ended - timedelta(seconds=gap)
        steps = [
            f"{(time - began).total_seconds():+.2f} {what.strip()}"
            for time, what in sorted([*self.kills, *told])
            if began - timedelta(seconds=5) < time < ended
        ]
        return f"{gap:.2f} s without an answer: " + ", ".join(steps)

    def text(self) -> str:
        witness = self.witness
        half, most, longest = (witness.slowest(share) for share in (0.5, 0.99, 1.0))
        lines = [
            "done: " + ", ".join(f"{name} {n}" for name, n in sorted(self.done.items())),
            f"lines {len(witness.lines)}, calls {witness.calls}, releases {len(witness.releases)}",
            f"times without an answer: {len(witness.gaps)}",
            f"half under {half:.2f} s, 99 in 100 under {most:.2f} s, the longest {longest:.2f} s",
            *(self._meanwhile(*gap) for gap in witness.gaps if gap[1] > TOLD_GAP),
            *(f"WRONG: {what}" for what in self.wrong),
            f"{len(self.wrong)} things are wrong" if self.wrong else "nothing is wrong",
        ]
        return "\n".join(lines)


def _has_spare(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(OPTION in each.cmdline() for each in psutil.Process(pid).children())
    return False


def half_bad(cycles: int, chance: random.Random) -> tuple[str, ...]:
    """The kinds of so many changes: half are bad, each kind about as often as the others."""
    bad = [BAD[number % len(BAD)] for number in range((cycles + 1) // 2)]
    kinds = [*bad, *[GOOD] * (cycles - len(bad))]
    chance.shuffle(kinds)
    return tuple(kinds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.own.storm", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-own-") as directory:
        kinds = half_bad(given.cycles, random.Random(given.seed))
        storm = asyncio.run(Storm(Path(directory), given.seed, kinds).run())
        storm.check(storm.witness.slowest(0.99) < LONGEST_GAP, "callers waited too long")
        print(storm.text())
    return 1 if storm.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

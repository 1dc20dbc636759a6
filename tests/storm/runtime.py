"""`python -m tests.storm.runtime`: everything that can happen to apps, at random, and what is left.

Several actors start, stop, restart and signal the apps of many projects, and
kill apps, supervisors and the server, all at once. Afterwards nothing may be
left over, doubled or wrong; the program says what it did and what it found, and
exits with 1 if anything is wrong.

--seconds N     how long the storm blows (default 60)
--projects N    (default 20)
--seed N        makes it choose the same again (default 1); what the machine does is not repeated
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil

import att_client
from att_client import RuntimeState
from tests.server_process import PATIENCE, ServerProcess

APP = Path(__file__).with_name("app.py")
ACTORS = 6
POLICY = """
[runtime]
stop_grace = "300ms"

[runtime.restart]
condition = "{condition}"
backoff = {{ initial = "20ms", max = "500ms" }}
max_restarts = 1000
stable_after = "10s"
"""
ALIVE = {
    RuntimeState.STARTING,
    RuntimeState.RUNNING,
    RuntimeState.READY,
    RuntimeState.STOPPING,
}
EXPECTED = {
    "PROJECT_BUSY",
    "RUNTIME_NOT_RUNNING",
    "RUNTIME_START_FAILED",
    "RUNTIME_SPEC_CONFLICT",
    "SUPERVISOR_UNREACHABLE",
    "SHUTTING_DOWN",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
}
"""Answers that a call may get while the ground shakes. All others are wrong."""


@dataclass
class Report:
    """What was done, by kind, and what is wrong."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def text(self) -> str:
        lines = [
            "done:    " + ", ".join(f"{name} {n}" for name, n in sorted(self.done.items())),
            "refused: " + ", ".join(f"{name} {n}" for name, n in sorted(self.refused.items())),
            "found:   " + ", ".join(f"{name} {n}" for name, n in sorted(self.found.items())),
        ]
        lines += [f"WRONG:   {what}" for what in self.wrong[:50]]
        lines.append(
            "nothing is wrong" if not self.wrong else f"{len(self.wrong)} things are wrong"
        )
        return "\n".join(lines)


class Storm:
    """One storm over one state directory."""

    def __init__(
        self, directory: Path, *, projects: int, seconds: float, seed: int, starts: int = 0
    ) -> None:
        """seconds: how long it blows; longer if fewer apps than `starts` were started by then."""
        self.directory = directory
        self.names = [f"storm-{number:02}" for number in range(projects)]
        self.seconds = seconds
        self.starts = starts
        self.chance = random.Random(seed)
        self.server = ServerProcess(directory / "s")
        self.changing_server = asyncio.Lock()
        self.report = Report()
        self.runs: set[str] = set()

    async def run(self) -> Report:
        await asyncio.to_thread(self.server.start)
        try:
            async with att_client.connect(self.server.target) as att:
                await self._create(att)
                live = {name: Live() for name in self.names[:3]}
                async with asyncio.TaskGroup() as tasks:
                    watching = [
                        tasks.create_task(watch.follow(att, name)) for name, watch in live.items()
                    ]
                    await self._blow(att)
                    await self._settle(att)
                    ends = {name: await self._check_log(att, name) for name in self.names}
                    for name, watch in live.items():
                        await self._until(lambda w=watch, n=name: w.next >= ends[n])
                        self.report.check(not watch.wrong, f"{name}: followed {watch.wrong}")
                        self.report.check(watch.next == ends[name], f"{name}: followed too far")
                    for task in watching:
                        task.cancel()
                await self._check_events(att)
        finally:
            await asyncio.to_thread(self.server.__exit__, None, None, None)
        return self.report

    async def _create(self, att: att_client.Client) -> None:
        for number, name in enumerate(self.names):
            path = self.directory / name
            path.mkdir()
            condition = ("always", "on-failure", "never")[number % 3]
            (path / "att.toml").write_text(POLICY.format(condition=condition))
            ends = ("0.0", "0.02", "0.2")[self.chance.randrange(3)]
            await att.projects.create(
                name, path=str(path), command=[sys.executable, "-S", str(APP), str(path), ends]
            )

    # The storm --------------------------------------------------------------

    async def _blow(self, att: att_client.Client) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.seconds
        actions = {
            self._start: 12,
            self._stop: 8,
            self._restart: 6,
            self._signal: 2,
            self._kill_app: 6,
            self._freeze_app: 2,
            self._kill_supervisor: 4,
            self._kill_server: 2,
            self._end_server: 1,
        }

        async def act(chance: random.Random) -> None:
            while loop.time() < until or self.report.done["start"] < self.starts:
                [action] = chance.choices(list(actions), weights=list(actions.values()))
                try:
                    await action(att, chance)
                    self.report.done[action.__name__.strip("_")] += 1
                except att_client.AttError as error:
                    reason = error.reason or str(error.code)
                    self.report.refused[reason] += 1
                    known = any(word in reason for word in EXPECTED)
                    self.report.check(known, f"{action.__name__}: {reason}: {error}")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(ACTORS):
                tasks.create_task(act(random.Random(self.chance.random())))

    async def _start(self, att: att_client.Client, chance: random.Random) -> None:
        wait = chance.choice(("started", "ready"))
        await att.runtimes.start(chance.choice(self.names), wait=wait)  # type: ignore[arg-type]  # one of the two

    async def _stop(self, att: att_client.Client, chance: random.Random) -> None:
        grace = chance.choice((None, timedelta(0), timedelta(milliseconds=100)))
        await att.runtimes.stop(chance.choice(self.names), grace=grace)

    async def _restart(self, att: att_client.Client, chance: random.Random) -> None:
        await att.runtimes.restart(chance.choice(self.names), grace=timedelta(milliseconds=100))

    async def _signal(self, att: att_client.Client, chance: random.Random) -> None:
        await att.runtimes.signal(chance.choice(self.names), signal.SIGTERM)

    async def _kill_app(self, att: att_client.Client, chance: random.Random) -> None:
        self._send(await att.runtimes.get(chance.choice(self.names)), signal.SIGKILL)

    async def _freeze_app(self, att: att_client.Client, chance: random.Random) -> None:
        self._send(await att.runtimes.get(chance.choice(self.names)), signal.SIGSTOP)

    def _send(self, runtime: att_client.Runtime, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.Error):
            app = psutil.Process(runtime.pid) if runtime.pid else None
            # The pid may be another's by now.
            if app and app.environ().get("ATT_RUN_ID") == runtime.run_id:
                app.send_signal(number)

    async def _kill_supervisor(self, _att: att_client.Client, chance: random.Random) -> None:
        supervisors = [process.pid for process in self._supervisors()]
        if supervisors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(supervisors), signal.SIGKILL)
        await asyncio.sleep(chance.random() / 10)

    async def _kill_server(self, _att: att_client.Client, chance: random.Random) -> None:
        async with self.changing_server:
            await asyncio.to_thread(self.server.kill)
            await asyncio.sleep(chance.random() / 5)
            await asyncio.to_thread(self.server.start)
        await asyncio.sleep(chance.random())

    async def _end_server(self, _att: att_client.Client, chance: random.Random) -> None:
        async with self.changing_server:
            await asyncio.to_thread(self.server.terminate)
            await asyncio.to_thread(self.server.start)
        await asyncio.sleep(chance.random())

    # What is left -----------------------------------------------------------

    async def _settle(self, att: att_client.Client) -> None:
        """Looks whether states are true while apps run, then stops all of them."""
        for name in self.names:
            await self._until_quiet(att, name)
        for name in self.names:
            await self._call(att.runtimes.stop, name)
        runtimes = {runtime.project_id: runtime async for runtime in att.runtimes.list()}
        for name in self.names:
            state = runtimes[name].state
            ended = {RuntimeState.STOPPED, RuntimeState.EXITED, RuntimeState.FAILED}
            self.report.check(state in ended, f"{name}: {state} after a stop")
        left = self._of_storm()
        self.report.found["orphans"] = len(left)
        self.report.check(not left, f"left over: {left}")
        await self._until(lambda: not self._supervisors())

    async def _until_quiet(self, att: att_client.Client, name: str) -> None:
        """Returns once what is said of the app is true, which a moving app may delay."""
        last = ""
        for _ in range(400):
            runtime = await self._call(att.runtimes.get, name)
            mains = {
                process.info["pid"]: process
                for process in self._of_storm()
                if process.info["environ"].get("ATT_RUN_ID") == runtime.run_id
            }
            running = runtime.state in ALIVE
            last = f"{name}: {runtime.state}, pid {runtime.pid}, seen {sorted(mains)}"
            if running == (runtime.pid in mains) and runtime.state is not RuntimeState.UNKNOWN:
                return
            await asyncio.sleep(0.05)
        self.report.wrong.append(last)

    async def _check_log(self, att: att_client.Client, name: str) -> int:
        """Looks through the whole log; returns its end."""
        expected = 0
        run = ""
        ended: set[str] = set()
        counts: dict[str, int] = {}
        cursor = 0
        more = True
        while more:
            page = await att.logs.read(name, cursor=cursor, limit=100_000)
            cursor, more = page.cursor, page.has_more
            for item in att_client.log_items(page.records, markers=True):
                if isinstance(item, att_client.LogGap):
                    self.report.check(False, f"{name}: a gap at {item.first_sequence}")
                    expected = item.first_sequence + item.count
                    continue
                self.report.check(item.sequence == expected, f"{name}: not dense at {expected}")
                expected = item.sequence + 1
                if isinstance(item, att_client.RunMarker):
                    if item.started is not None:
                        self.runs.add(item.run_id)
                        self.report.check(not run, f"{name}: {item.run_id} began within {run}")
                        self.report.check(item.run_id not in ended, f"{name}: {run} began twice")
                        run, counts = item.run_id, {}
                    else:
                        self.report.check(
                            run == item.run_id, f"{name}: {item.run_id} ended, not {run}"
                        )
                        run = ""
                        ended.add(item.run_id)
                    continue
                self.report.found["lines"] += 1
                self.report.check(item.run_id == run, f"{name}: a line outside of its run")
                self._check_line(name, str(item), counts)
        self.report.check(not run, f"{name}: {run} has no end")
        return expected

    def _check_line(self, name: str, line: str, counts: dict[str, int]) -> None:
        match = re.fullmatch(r"(\S+) (\d+)", line)
        if match is None:
            self.report.check(False, f"{name}: {line!r}")
            return
        role, number = match[1], int(match[2])
        self.report.check(counts.get(role, 0) == number, f"{name}: {line!r} out of order")
        counts[role] = number + 1

    async def _check_events(self, att: att_client.Client) -> None:
        seen: Counter[tuple[str, str]] = Counter()
        cursor, more = 0, True
        while more:
            page = await att.events.list(event_types=["runtime."], cursor=cursor, page_size=1000)
            cursor, more = page.cursor, page.has_more
            seen.update((event.event_type, event.run_id) for event in page.events if event.run_id)
        self.report.found["runs"] = len(self.runs)
        for kind in ("runtime.started", "runtime.ended"):
            told = {run: times for (name, run), times in seen.items() if name == kind}
            self.report.found[kind] = len(told)
            for run in self.runs | told.keys():
                times = told.get(run, 0)
                self.report.check(times == 1, f"{kind} of {run}: {times} times")

    async def _until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)

    async def _call(self, method: object, name: str) -> att_client.Runtime:
        """The answer of a call, once nothing else is being done with the project."""
        assert callable(method)
        for _ in range(200):
            try:
                runtime: att_client.Runtime = await method(name)
                return runtime
            except att_client.AttError as error:
                if error.reason not in ("PROJECT_BUSY", "SUPERVISOR_UNREACHABLE"):
                    raise
            await asyncio.sleep(0.05)
        raise AssertionError(f"{name} stays busy")

    def _of_storm(self) -> list[psutil.Process]:
        """Living processes of any run of this storm, by their environment."""
        found = []
        for process in psutil.process_iter(["pid", "status", "environ"]):
            environ = process.info["environ"] or {}
            mine = environ.get("ATT_PROJECT_ID") in self.names and "ATT_RUN_ID" in environ
            here = str(self.directory) in " ".join(_command(process))
            if mine and here and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def _supervisors(self) -> list[psutil.Process]:
        found = []
        for state in self.server.supervisor_states():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(str(state["pid"])))
                if process.name() == "att-supervisor" and process.status() != "zombie":
                    found.append(process)
        return found


@dataclass
class Live:
    """A follower over the whole storm: each sequence number once, in order."""

    next: int = 0
    wrong: str = ""

    async def follow(self, att: att_client.Client, name: str) -> None:
        async for item in att.logs.follow(name, cursor=0, markers=True):
            if isinstance(item, att_client.LogGap):
                self.wrong = self.wrong or f"a gap at {item.first_sequence}"
                self.next = item.first_sequence + item.count
                continue
            if item.sequence != self.next:
                self.wrong = self.wrong or f"{item.sequence} instead of {self.next}"
            self.next = item.sequence + 1


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm.runtime", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--projects", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-storm-") as directory:
        storm = Storm(Path(directory), **vars(arguments))
        report = asyncio.run(storm.run())
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

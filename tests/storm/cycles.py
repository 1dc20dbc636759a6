"""`python -m tests.storm.cycles`: releases while everything is killed, and what is left of them.

Cycles of several projects run at once, half of their changes bad in one of five
ways, while the server, git and the commands of cycles are killed: at random, and
at the moment a step begins or ends. Then everything is counted from the remotes
and from what the apps took down, not from what ATT says of itself; the program
prints the counts and exits with 1 if anything is wrong.

--cycles N      of all projects together (default 300)
--projects N    (default 5)
--seed N        makes it choose the same again (default 1); what the machine does is not repeated
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

import att_client
from att_client import CycleOutcome
from tests.server_process import ServerProcess

APP = Path(__file__).with_name("cycle_app")
GOOD = "good"
BAD = ("fails-test", "fails-ci", "fails-build", "crashes", "unhealthy")
SETTINGS = """
[runtime]
command = ["{python}", "-S", "app.py", "{port}"]
stop_grace = "500ms"

[runtime.readiness]
http = "http://127.0.0.1:{port}/health"
interval = "50ms"

[bootstrap]
restart_watchdog_retries = 2
restart_watchdog_interval = "100ms"
health_check_interval = "50ms"
health_timeout = "6s"

[bootstrap.test]
command = ["{python}", "-S", "check.py", "fails-test"]

[bootstrap.ci]
command = ["{python}", "-S", "check.py", "fails-ci"]

[bootstrap.release]
build = ["{python}", "-S", "check.py", "fails-build"]

[bootstrap.rollback]
on_deploy_failure = true
max_attempts = 1000
"""
STEP_KILL = 0.02
"""The share of a cycle's events at which the server is killed at once."""


@dataclass
class Change:
    """One change of a project, and how its cycle ended."""

    name: str
    kind: str
    cycle: att_client.Cycle | None = None

    @property
    def succeeded(self) -> bool:
        return self.cycle is not None and self.cycle.outcome is CycleOutcome.SUCCEEDED


@dataclass
class Report:
    """What was done and found, by kind, and what is wrong."""

    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def text(self) -> str:
        lines = [
            "done:  " + ", ".join(f"{name} {n}" for name, n in sorted(self.done.items())),
            "found: " + ", ".join(f"{name} {n}" for name, n in sorted(self.found.items())),
            *(f"WRONG: {what}" for what in self.wrong[:50]),
            f"{len(self.wrong)} things are wrong" if self.wrong else "nothing is wrong",
        ]
        return "\n".join(lines)


class Project:
    """A project of the storm: its repository, its remote, its changes so far."""

    def __init__(self, directory: Path, number: int) -> None:
        self.name = f"storm-{number}"
        self.checkout = directory / self.name
        self.remote = directory / f"{self.name}.git"
        self.port = _free_port()
        self.changes: list[Change] = []

    def make(self) -> None:
        shutil.copytree(APP, self.checkout, ignore=shutil.ignore_patterns("__pycache__"))
        settings = SETTINGS.format(python=sys.executable, port=self.port)
        (self.checkout / "att.toml").write_text(settings)
        self._git("init", "-q", "--bare", "-b", "main", str(self.remote), at=self.checkout.parent)
        self._git("init", "-q", "-b", "main")
        self._git("add", ".")
        self._git("commit", "-q", "-m", "Begin")
        self._git("remote", "add", "origin", str(self.remote))
        self._git("push", "-q", "origin", "main")

    def git(self, *arguments: str) -> str:
        """What git says of the remote."""
        return self._git(*arguments, at=self.remote)

    def _git(self, *arguments: str, at: Path | None = None) -> str:
        identity = ("-c", "user.name=storm", "-c", "user.email=storm@localhost")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=at or self.checkout,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def served(self) -> dict[str, object] | None:
        """What the app says of itself; None: it does not answer."""
        with contextlib.suppress(OSError, ValueError):
            address = f"http://127.0.0.1:{self.port}/version"
            with urllib.request.urlopen(address, timeout=5) as answer:
                found: dict[str, object] = json.load(answer)
                return found
        return None


class Storm:
    """One storm over one state directory."""

    def __init__(self, directory: Path, *, projects: int, cycles: int, seed: int) -> None:
        self.directory = directory
        self.state_dir = directory / "s"
        self.projects = [Project(directory, number) for number in range(projects)]
        self.cycles = cycles
        self.chance = random.Random(seed)
        self.server = ServerProcess(self.state_dir)
        self.changing_server = asyncio.Lock()
        self.report = Report()

    async def run(self) -> Report:
        for project in self.projects:
            await asyncio.to_thread(project.make)
        await asyncio.to_thread(self.server.start)
        began = time.monotonic()
        try:
            async with att_client.connect(self.server.target) as att:
                for project in self.projects:
                    await att.projects.create(project.name, path=str(project.checkout))
                async with asyncio.TaskGroup() as tasks:
                    chaos = [
                        tasks.create_task(blow(att, random.Random(self.chance.random())))
                        for blow in (self._kill_server, self._kill_at_steps, self._kill_children)
                    ]
                    async with asyncio.TaskGroup() as changing:
                        share, more = divmod(self.cycles, len(self.projects))
                        for number, project in enumerate(self.projects):
                            chance = random.Random(self.chance.random())
                            count = share + (number < more)
                            changing.create_task(self._change(att, project, count, chance))
                    for task in chaos:
                        task.cancel()
                self.report.found["seconds"] = round(time.monotonic() - began)
                await self._look(att)
        finally:
            await asyncio.to_thread(self.server.__exit__, None, None, None)
        return self.report

    # The storm --------------------------------------------------------------

    async def _change(
        self, att: att_client.Client, project: Project, count: int, chance: random.Random
    ) -> None:
        for number in range(count):
            # There has to be a release to return to before one fails.
            good = not any(c.succeeded for c in project.changes) or chance.random() < 0.5
            change = Change(f"{number:04}", GOOD if good else chance.choice(BAD))
            project.changes.append(change)
            cycle_id = await self._started(att, project, change)
            change.cycle = await att.bootstrap.wait(cycle_id)
            outcome = (change.cycle.outcome.name or "").lower()
            why = "" if change.succeeded or not good else f" ({_why(change.cycle)})"
            self.report.done[f"{'good' if good else 'bad'} {outcome}{why}"] += 1
            if "REVERT" in (failed := _why(change.cycle)):
                # No later change is taken, so there is no report that could say why.
                print(f"{project.name}: {change.kind} {change.name}: {failed}", flush=True)

    async def _started(self, att: att_client.Client, project: Project, change: Change) -> str:
        """The cycle of the change, asked for until an answer comes: the request id is the same."""
        while True:
            try:
                cycle = await att.bootstrap.start(
                    project.name,
                    edits={f"changes/{change.name}": f"{change.kind}\n"},
                    message=f"Change {change.name}",
                    request_id=f"{project.name}-{change.name}",
                )
                return cycle.cycle_id
            except att_client.UnavailableError:
                await asyncio.sleep(0.1)

    async def _kill_server(self, _att: att_client.Client, chance: random.Random) -> None:
        while True:
            await asyncio.sleep(chance.uniform(1, 8))
            await self._replace_server()

    async def _kill_at_steps(self, att: att_client.Client, chance: random.Random) -> None:
        async for event in att.events.watch():
            if event.cycle_id and chance.random() < STEP_KILL:
                self.report.done["kills at a step"] += 1
                await self._replace_server()

    async def _replace_server(self) -> None:
        async with self.changing_server:
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)
            self.report.done["kills of the server"] += 1

    async def _kill_children(self, _att: att_client.Client, chance: random.Random) -> None:
        killed = Counter[tuple[str, str]]()
        while True:
            await asyncio.sleep(chance.uniform(0.05, 1))
            children = await asyncio.to_thread(self._children)
            if not children:
                continue
            name, process = chance.choice(children)
            with contextlib.suppress(psutil.Error):
                command = name, process.environ().get("ATT_CYCLE_ID", "")
                # One that is killed at each of its three tries fails its change, as it should.
                if name != "git" and killed[command] == 2:
                    continue
                process.send_signal(signal.SIGKILL)
                killed[command] += 1
                self.report.done[f"kills of {name}"] += 1

    def _children(self) -> list[tuple[str, psutil.Process]]:
        """What works for a cycle now: git, and commands of tests, checks and builds."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "cwd"]):
            command = process.info["cmdline"] or []
            here = str(self.directory) in (process.info["cwd"] or "")
            if here and command and Path(command[0]).name.startswith("git"):
                found.append(("git", process))
            elif here and "check.py" in command:
                found.append((command[-1].replace("fails-", ""), process))
        return found

    # What is left -----------------------------------------------------------

    async def _look(self, att: att_client.Client) -> None:
        good = [c for p in self.projects for c in p.changes if c.kind == GOOD]
        live = sum(change.succeeded for change in good)
        self.report.found |= Counter(good=len(good), good_live=live)
        self.report.check(live >= 0.95 * len(good), f"{live} of {len(good)} good changes are live")
        for project in self.projects:
            await self._look_at(att, project)

    async def _look_at(self, att: att_client.Client, project: Project) -> None:
        report, name = self.report, project.name
        wanted = {change.name for change in project.changes if change.succeeded}
        for change in project.changes:
            ended = change.cycle
            report.check(ended is not None, f"{name}: {change.name} has not ended")
            if ended is not None and change.kind != GOOD:
                told = f"{name}: {change.kind} {change.name} {ended.outcome.name}"
                report.check(not change.succeeded, told)
        base = set(project.git("ls-tree", "--name-only", "main:changes").split())
        report.check(base == wanted, f"{name}: base {sorted(base)}, good {sorted(wanted)}")
        self._count_commits(project)
        branches = project.git("for-each-ref", "--format=%(refname)").split()
        report.check(branches == ["refs/heads/main"], f"{name}: left on the remote: {branches}")
        self._count_deploys(project)
        served = await asyncio.to_thread(project.served)
        runtime = await att.runtimes.get(name)
        report.check(
            served is not None and set(served["changes"]) == wanted,  # type: ignore[call-overload]  # a list of names
            f"{name}: serves {served}, {runtime.state}",
        )
        kept = await att.projects.get(name)
        report.check(kept.mode is att_client.ProjectMode.NORMAL, f"{name}: {kept.mode_reason}")
        self._look_for_leftovers(project)

    def _count_commits(self, project: Project) -> None:
        """Each change at most once committed, merged and undone."""
        form = "%H%x01%P%x01%s%x01%(trailers:key=Att-Cycle,valueonly,separator=%x2C)"
        form += "%x01%(trailers:key=Att-Reverts,valueonly,separator=%x2C)%x02"
        seen: Counter[tuple[str, str]] = Counter()
        for entry in project.git("log", f"--format={form}", "main").split("\x02"):
            if not entry.strip():
                continue
            _, parents, _, cycle, reverts = entry.strip().split("\x01")
            if reverts:
                seen["reverts", reverts] += 1
            elif cycle:
                seen["merges" if " " in parents else "commits", cycle] += 1
        for (kind, of), times in seen.items():
            self.report.found[kind] += 1
            self.report.found[f"doubled {kind}"] += times - 1
            self.report.check(times == 1, f"{project.name}: {times} {kind} of {of}")

    def _count_deploys(self, project: Project) -> None:
        """By what the app took down: a release is not started again unless another was between."""
        starts = (self.state_dir / "projects" / project.name / "data" / "starts").read_text()
        before = ""
        for line in starts.splitlines():
            release = line.split(" ")[0]
            self.report.found["deploys"] += 1
            if release == before:
                self.report.found["doubled deploys"] += 1
                self.report.check(False, f"{project.name}: {release} was started twice in a row")
            before = release

    def _look_for_leftovers(self, project: Project) -> None:
        root = self.state_dir / "projects" / project.name
        releases = root / "releases"
        sealed = {path.stem for path in releases.glob("*.json")}
        left = [
            *(root / "work").glob("[!.]*"),
            *(path for path in releases.iterdir() if path.name.removesuffix(".json") not in sealed),
            *(root / "repository.git").rglob("*.lock"),
            *(root / "repository.git" / "worktrees").glob("*"),
        ]
        self.report.found["left over"] += len(left)
        self.report.check(not left, f"{project.name}: left over: {[str(path) for path in left]}")


def _why(cycle: att_client.Cycle) -> str:
    """The step that failed, and why."""
    failed = [s for s in cycle.steps if s.state is att_client.CycleStepState.FAILED]
    told = (f"{s.step.name}: {s.reason} {s.evidence.get('error', '')}".strip() for s in failed)
    return ", ".join(told)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm.cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--projects", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-storm-") as directory:
        storm = Storm(Path(directory), **vars(arguments))
        report = asyncio.run(storm.run())
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

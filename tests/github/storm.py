"""`python -m tests.github.storm`: cycles through a GitHub that fails again and again.

A whole server with real git, in this process, and the fake GitHub on a socket: requests
end without an answer or with an error, before they have had their effect or after it.
Some changes fail their checks. All others are merged, and nothing is done twice.

--cycles N      how many (default 50)
--seed N        makes it choose the same again (default 1)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import att_client
from att_client import CycleOutcome
from att_server.adapters.bootstrap_settings import TomlBootstrapSettings
from att_server.adapters.forge_local import LocalForges
from att_server.adapters.forges import ConfiguredForges
from att_server.adapters.git import Git
from att_server.adapters.git.projects import GitRepositories
from att_server.core.cycles.engine import CLEANED_LATER
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.slots import Slots
from att_server.testing.commands import FakeCommandRunner
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.journal import MemoryJournal
from att_server.testing.prober import FakeProber
from att_server.testing.server import fake_adapters, serve_in_process
from att_server.testing.state_store import MemoryStateStore
from tests.contract.git_projects import GitProject, git, make_project, settings
from tests.github.fake import DIES_AFTER, DIES_BEFORE, TOKEN, FakeGitHub, Fault, Run
from tests.github.hub import BASE, server_settings, write_server_settings
from tests.server_process import PATIENCE
from tests.storm.outages import HastyClock

FAILING = 0.3
FAULTS = (
    DIES_BEFORE,
    DIES_AFTER,
    Fault(status=502),
    Fault(status=502, acts=True),
    Fault(status=500, body={"message": "Server Error"}, acts=True),
    Fault(status=200, body="a page of some proxy"),
)


class HastierClock(HastyClock):
    """Nor is the next try to clean up after a cycle waited for."""

    async def sleep(self, duration: timedelta) -> None:
        await super().sleep(duration / 1000 if duration in CLEANED_LATER else duration)


@dataclass
class Report:
    """What happened, and what is wrong."""

    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        lines = [
            f"{self.failed.total()} of {self.requests} requests failed: "
            + ", ".join(f"{name} {n}" for name, n in sorted(self.failed.items())),
            "cycles: " + ", ".join(f"{name} {n}" for name, n in sorted(self.ended.items())),
            *(f"WRONG: {what}" for what in self.wrong[:50]),
            f"{len(self.wrong)} things are wrong" if self.wrong else "nothing is wrong",
        ]
        return "\n".join(lines)


async def campaign(directory: Path, *, cycles: int, seed: int) -> Report:
    """Makes so many cycles, then counts from the remote and from GitHub."""
    chance, report = random.Random(seed), Report()
    project = await make_project(directory)
    state = directory / "server"
    state.mkdir(mode=0o700)
    project.commit_on_remote({"att.toml": BASE.encode()})
    with FakeGitHub(project.remote) as fake:
        write_server_settings(state, server_settings(fake))

        def weather(method: str, _: str) -> Fault | None:
            report.requests += 1
            if chance.random() >= FAILING:
                return None
            report.failed[method] += 1
            return chance.choice(FAULTS)

        def runs(sha: str) -> list[Run]:
            changed = git(project.remote, "log", "-1", "--format=%s", sha)
            return [Run(conclusion="failure" if "bad" in changed else "success")]

        fake.weather, fake.runs = weather, runs
        ended = await carried_out(project, fake, state, cycles, chance)
        for cycle in ended:
            report.ended[f"{cycle.outcome.name} {cycle.outcome_reason}".strip()] += 1
        report.wrong = [*_wrong(project, fake, ended), *fake.wrong]
    return report


async def carried_out(
    project: GitProject, fake: FakeGitHub, state: Path, cycles: int, chance: random.Random
) -> list[att_client.Cycle]:
    """Makes so many cycles, and returns once nothing of them is left at GitHub."""
    clock, store = HastierClock(), MemoryStateStore()
    journal = MemoryJournal(store, clock)
    helpers = FakeCommandRunner()
    commands = ProjectCommands(runner=helpers, slots=Slots(2), clock=clock)
    repositories = GitRepositories(Git(settings()), state)
    forges = ConfiguredForges(
        local=LocalForges(
            journal=journal, repositories=repositories, commands=commands, inherited_env={}
        ),
        repositories=repositories,
        clock=clock,
        environ={"GITHUB_TOKEN": TOKEN},
    )
    adapters = replace(
        fake_adapters(store=store),
        journal=journal,
        clock=clock,
        driver=FakeRuntimeDriver(clock=clock),
        prober=FakeProber(clock),
        helpers=helpers,
        project_commands=commands,
        bootstrap_settings=TomlBootstrapSettings(state),
        forges=forges,
        repositories=repositories,
    )
    ended: list[att_client.Cycle] = []
    soon = timedelta(milliseconds=10)
    try:
        async with serve_in_process(adapters) as target, att_client.connect(target) as att:
            await att.projects.create("web", path=str(project.checkout), command=["app"])
            for number in range(cycles):
                kind = "bad" if chance.random() < 0.3 else "good"
                if chance.random() < 0.3:
                    project.commit_on_remote({f"others/{number:04}": b"x"})
                started = await att.bootstrap.start(
                    "web",
                    edits={f"changes/{number:04}": f"{kind}\n"},
                    message=f"A {kind} change",
                    ci_initial_poll=soon,
                    ci_max_poll=soon,
                    restart_watchdog_retries=1,
                    restart_watchdog_interval=soon,
                )
                ended.append(await att.bootstrap.wait(started.cycle_id))
            fake.weather = lambda _method, _path: None
            # What could not be removed in the storm is removed after it.
            async with asyncio.timeout(PATIENCE):
                while any(pull.state == "open" for pull in fake.pulls.values()) or _left(project):
                    await asyncio.sleep(0.05)
    finally:
        await forges.aclose()
    return ended


def _wrong(project: GitProject, fake: FakeGitHub, ended: list[att_client.Cycle]) -> list[str]:
    wrong = []
    good = {each.cycle_id for each in ended if each.outcome is CycleOutcome.SUCCEEDED}
    for cycle in ended:
        bad = cycle.request is not None and "bad" in cycle.request.commit_message
        expected = (CycleOutcome.FAILED, "ci_failure") if bad else (CycleOutcome.SUCCEEDED, "")
        if (cycle.outcome, cycle.outcome_reason) != expected:
            wrong.append(f"{cycle.cycle_id}: {cycle.outcome.name} {cycle.outcome_reason}")
    told = git(
        project.remote, "log", "--first-parent", "main",
        "--format=%(trailers:key=Att-Merges,valueonly,separator=%x20)"
        " %(trailers:key=Att-Cycle,valueonly,separator=%x20)",
    )  # fmt: skip
    merges = Counter(line.split()[1] for line in told.splitlines() if len(line.split()) == 2)
    wrong += [f"{cycle} merged {times} times" for cycle, times in merges.items() if times != 1]
    if set(merges) != good:
        wrong.append(f"{len(merges)} cycles are on the base, not {len(good)}")
    if len(fake.pulls) != len(ended):
        wrong.append(f"{len(fake.pulls)} pull requests of {len(ended)} cycles")
    for pull in fake.pulls.values():
        comments = len(fake.comments.get(pull.number, []))
        if pull.state != "closed" or comments != (0 if pull.merged else 1):
            wrong.append(f"pull request {pull.number} is {pull.state} with {comments} comments")
    return wrong


def _left(project: GitProject) -> list[str]:
    branches = git(project.remote, "for-each-ref", "--format=%(refname:short)").split()
    return [branch for branch in branches if branch != "main"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.github.storm", description=__doc__)
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-storm-") as directory:
        report = asyncio.run(campaign(Path(directory), **vars(arguments)))
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

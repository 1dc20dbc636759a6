"""`python -m tests.storm.outages`: cycles while remote and forge fail again and again.

A whole server with real git, in this process; calls of the remote and of the forge
fail as in an outage, before they have had their effect or after it. Every change
is good: so all go live, nothing is rolled back, and nothing is done twice.

--outages N     how many calls are to fail (default 1,000)
--seed N        makes it choose the same again (default 1)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import att_client
from att_client import CycleOutcome
from att_server.adapters.clock import SystemClock
from att_server.adapters.forge_local import LocalForges
from att_server.adapters.git import Git
from att_server.adapters.git.projects import GitRepositories
from att_server.core.cycles.forge import Forge, Forges, ForgeUnavailable
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.slots import Slots
from att_server.core.model import Project
from att_server.core.repository import (
    Checkout,
    Repositories,
    Repository,
    RepositoryError,
    RepositoryFailure,
)
from att_server.testing.commands import FakeCommandRunner
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.journal import MemoryJournal
from att_server.testing.prober import FakeProber
from att_server.testing.server import fake_adapters, serve_in_process
from att_server.testing.state_store import MemoryStateStore
from tests.contract.git_projects import GitProject, git, make_project, settings

REMOTE = ("fetch", "fetch_commit", "remote_branch", "push", "delete_branch", "merge", "revert")
FORGE = ("open_pull_request", "checks", "merge", "revert", "close")
FAILING = 0.35
"""The share of calls that fail: a cycle makes some ten, and each is made until it succeeds."""

_HELD = timedelta(minutes=2)
_FASTER = 1000


class HastyClock(SystemClock):
    """Waits between tries are a thousand times as short; bounds of steps stay as they are."""

    async def sleep(self, duration: timedelta) -> None:
        await super().sleep(duration / _FASTER if duration <= _HELD else duration)


@dataclass
class Weather:
    """Decides which calls fail, and counts them."""

    chance: random.Random
    failed: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def around(
        self, name: str, call: Callable[..., Awaitable[Any]], error: Callable[[], Exception]
    ) -> Callable[..., Awaitable[Any]]:
        """`call`, which fails now and then, with or without its effect."""

        async def made(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.chance.random() >= FAILING:
                return await call(*arguments, **named)
            if self.chance.random() < 0.5:
                await call(*arguments, **named)
                self.failed[f"{name}, done all the same"] += 1
            else:
                self.failed[name] += 1
            raise error()

        return made


class Stormy:
    """Stands for a repository or a forge of which some methods fail in this weather."""

    def __init__(
        self,
        inner: object,
        names: tuple[str, ...],
        weather: Weather,
        error: Callable[[], Exception],
    ) -> None:
        self._inner = inner
        self._names = names
        self._weather = weather
        self._error = error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found
        return self._weather.around(name, found, self._error)


class StormyRepositories:
    """Implements `Repositories`: those of git, with a remote that comes and goes."""

    def __init__(self, inner: Repositories, weather: Weather) -> None:
        self._inner = inner
        self._weather = weather

    async def checkout(self, project: Project) -> Checkout:
        return await self._inner.checkout(project)

    async def of(self, project: Project) -> Repository:
        repository = await self._inner.of(project)
        return cast("Repository", Stormy(repository, REMOTE, self._weather, _unreachable))

    async def forget_project(self, project_id: str) -> None:
        await self._inner.forget_project(project_id)


class StormyForges:
    """Implements `Forges`: those that are given, which come and go."""

    def __init__(self, inner: Forges, weather: Weather) -> None:
        self._inner = inner
        self._weather = weather

    def polled(self, settings: BootstrapSettings) -> bool:
        return self._inner.polled(settings)

    async def examine(self, project: Project, settings: BootstrapSettings) -> None:
        await self._inner.examine(project, settings)

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        forge = await self._inner.of(project, cycle)
        return cast("Forge", Stormy(forge, FORGE, self._weather, _no_forge))


@dataclass
class Report:
    """What happened, and what is wrong."""

    failed: Counter[str]
    calls: int
    cycles: int
    rollbacks: int
    wrong: list[str]

    def text(self) -> str:
        lines = [
            f"{self.failed.total()} of {self.calls} calls failed, in {self.cycles} cycles: "
            + ", ".join(f"{name} {n}" for name, n in sorted(self.failed.items())),
            f"rollbacks {self.rollbacks}",
            *(f"WRONG: {what}" for what in self.wrong[:50]),
            f"{len(self.wrong)} things are wrong" if self.wrong else "nothing is wrong",
        ]
        return "\n".join(lines)


async def campaign(directory: Path, *, outages: int, seed: int) -> Report:
    """Makes cycles until so many calls have failed, then counts from the remote."""
    weather = Weather(random.Random(seed))
    project = await make_project(directory)
    clock = HastyClock()
    store = MemoryStateStore()
    journal = MemoryJournal(store, clock)
    helpers = FakeCommandRunner()
    commands = ProjectCommands(runner=helpers, slots=Slots(2), clock=clock)
    repositories = StormyRepositories(
        GitRepositories(Git(settings()), directory / "server"), weather
    )
    forges = LocalForges(
        journal=journal, repositories=repositories, commands=commands, inherited_env={}
    )
    adapters = replace(
        fake_adapters(store=store),
        journal=journal,
        clock=clock,
        driver=FakeRuntimeDriver(clock=clock),
        prober=FakeProber(clock),
        helpers=helpers,
        project_commands=commands,
        forges=StormyForges(forges, weather),
        repositories=repositories,
    )
    ended: list[att_client.Cycle] = []
    async with serve_in_process(adapters) as target, att_client.connect(target) as att:
        await att.projects.create("web", path=str(project.checkout), command=["app"])
        while weather.failed.total() < outages:
            started = await att.bootstrap.start(
                "web",
                edits={f"changes/{len(ended):04}": "good\n"},
                message="Change",
                restart_watchdog_retries=1,
                restart_watchdog_interval=timedelta(milliseconds=10),
            )
            ended.append(await att.bootstrap.wait(started.cycle_id))
        page = await att.events.list(event_types=["rollback."], page_size=1000)
    return Report(
        failed=weather.failed,
        calls=weather.calls,
        cycles=len(ended),
        rollbacks=len(page.events),
        wrong=[*_wrong_ends(ended), *_wrong_at_remote(project, ended)]
        + (["something was rolled back"] if page.events else []),
    )


def _wrong_ends(ended: list[att_client.Cycle]) -> list[str]:
    return [
        f"{cycle.cycle_id} {cycle.outcome.name}: {cycle.outcome_reason}"
        for cycle in ended
        if cycle.outcome is not CycleOutcome.SUCCEEDED
    ]


def _wrong_at_remote(project: GitProject, ended: list[att_client.Cycle]) -> list[str]:
    log = git(
        project.remote, "log", "main", "--format=%P%x01%(trailers:key=Att-Cycle,valueonly)%x02"
    )
    seen: Counter[tuple[str, str]] = Counter()
    for entry in log.split("\x02"):
        parents, _, cycle = entry.strip().partition("\x01")
        if cycle:
            seen["merge" if " " in parents else "commit", cycle.strip()] += 1
    wanted = {(kind, cycle.cycle_id): 1 for cycle in ended for kind in ("commit", "merge")}
    branches = git(project.remote, "for-each-ref", "--format=%(refname:short)").split()
    found = [f"{times} times {what}" for what, times in seen.items() if times != 1]
    if dict(seen) != wanted:
        found.append(f"the base has {len(seen)} commits of cycles, not {len(wanted)}")
    left = [branch for branch in branches if branch.startswith("att/")]
    return found + ([f"left on the remote: {left}"] if left else [])


def _unreachable() -> Exception:
    return RepositoryError(RepositoryFailure.REMOTE_UNREACHABLE, "The remote is away.")


def _no_forge() -> Exception:
    return ForgeUnavailable("forge_unavailable", "The forge is away.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storm.outages", description=__doc__)
    parser.add_argument("--outages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-storm-") as directory:
        report = asyncio.run(campaign(Path(directory), **vars(arguments)))
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

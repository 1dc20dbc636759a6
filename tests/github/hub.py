"""A project whose changes go through the fake GitHub, step by step by the engine's own worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from att_server.core.cycles.model import Cycle, StepState
from att_server.core.repository import Change
from tests.contract.change_cycle import GOOD, ChangeBench, make_bench
from tests.contract.git_projects import git
from tests.github.fake import NAME, TOKEN, FakeGitHub, Pull
from tests.server_process import PATIENCE

BASE = f"""
[bootstrap]
forge = "github"
[bootstrap.github]
repository = "{NAME}"
"""


def server_settings(fake: FakeGitHub) -> str:
    return f'[bootstrap.github]\napi_url = "{fake.url}"\n'


def write_server_settings(state: Path, text: str) -> None:
    path = state / "settings.toml"
    path.touch(0o600)
    path.write_text(text)


@dataclass(kw_only=True)
class Hub:
    """The project's cycles, and where they go."""

    bench: ChangeBench
    fake: FakeGitHub

    @property
    def pull(self) -> Pull:
        """The only pull request."""
        (pull,) = self.fake.pulls.values()
        return pull

    async def start(self, change: Change | None = GOOD, **request: object) -> Cycle:
        return await self.bench.start(change, **request)  # type: ignore[arg-type]  # as `start`

    async def run(self, cycle: Cycle) -> Cycle:
        """Works on it to its end, with time passing whenever it waits."""
        async with self.bench.working(cycle) as working:
            await self.passing(working.task)
        return await self.bench.stored(cycle)

    async def cycle(self, change: Change | None = GOOD, **request: object) -> Cycle:
        return await self.run(await self.start(change, **request))

    async def passing(
        self, task: asyncio.Task[None], *, until: Callable[[Cycle], object] = lambda _: False
    ) -> None:
        """Lets time pass, second by second, until the work is over, or this holds of the cycle.

        While a step waits, and while the cycle that has failed is cleaned up.
        """
        async with asyncio.timeout(PATIENCE):
            while not task.done():
                revision = self.bench.changed.count
                active = await self.bench.journal.cycles(active_only=True, limit=1)
                if active and until(active[0]):
                    return
                if active and (active[0].failure is not None or _waits(active[0])):
                    self.bench.clock.advance(timedelta(seconds=1))
                await asyncio.sleep(0.001 if self.bench.changed.count == revision else 0)
        task.result()

    def merges(self) -> list[str]:
        """The cycles whose merges the base holds, one entry for each merge."""
        told = git(
            self.bench.git.remote, "log", "--first-parent", "main",
            "--format=%(trailers:key=Att-Merges,valueonly,separator=%x2C)",
        )  # fmt: skip
        return told.split()


def _waits(cycle: Cycle) -> bool:
    return any(each.state is StepState.WAITING for each in cycle.steps)


@asynccontextmanager
async def make_hub(directory: Path, base: str = BASE) -> AsyncIterator[Hub]:
    """base: the `att.toml` of the base."""
    bench = await make_bench(directory, environ={"GITHUB_TOKEN": TOKEN})
    with FakeGitHub(bench.git.remote) as fake:
        write_server_settings(bench.state, server_settings(fake))
        bench.base_settings(base)
        try:
            yield Hub(bench=bench, fake=fake)
            assert fake.wrong == []
        finally:
            await bench.forges.aclose()
            await bench.zygote.aclose()

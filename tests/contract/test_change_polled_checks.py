"""Checks that a forge runs by itself are looked at, less and less often, up to a deadline."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from att_server.core.cycles.forge import Checks, CheckState, Forge, Forges, ForgeUnavailable
from att_server.core.cycles.model import CiStatus, Cycle, CycleState, CycleStep, StepState
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.steps.ci import CiStep
from att_server.core.model import Project
from tests.contract.change_cycle import GOOD, ChangeBench, make_bench
from tests.server_process import PATIENCE


class PolledForge:
    """What CI needs of a forge, for all cycles. Its checks are as a test says.

    looks: the times it was asked.
    """

    def __init__(self, bench: ChangeBench) -> None:
        self._clock = bench.clock
        self.state = CheckState.PENDING
        self.available = True
        self.looks: list[float] = []

    def polled(self, settings: BootstrapSettings) -> bool:
        return True

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        return cast("Forge", self)

    async def checks(self, commit: str) -> Checks:
        if not self.available:
            raise ForgeUnavailable("rate_limited", "Too many calls.")
        self.looks.append(self._clock.monotonic())
        reason = "check_failed" if self.state is CheckState.FAILURE else ""
        return Checks(state=self.state, reason=reason, evidence={"looked_at": commit})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path)
    yield made
    await made.zygote.aclose()


@pytest.fixture
def forge(bench: ChangeBench) -> PolledForge:
    polled = PolledForge(bench)
    bench.steps[CycleStep.CI] = CiStep(
        repositories=bench.repositories, forges=cast("Forges", polled)
    )
    return polled


async def passing(bench: ChangeBench, task: asyncio.Task[None], until: float) -> None:
    """Lets time pass second by second whenever CI waits, until the work is over or `until`."""
    async with asyncio.timeout(PATIENCE):
        while not task.done() and bench.clock.monotonic() < until:
            revision = bench.changed.count
            active = await bench.journal.cycles(active_only=True, limit=1)
            if active and active[0].step(CycleStep.CI).state is StepState.WAITING:
                bench.clock.advance(timedelta(seconds=1))
            await asyncio.sleep(0.001 if bench.changed.count == revision else 0)


async def test_looks_come_less_and_less_often_until_the_checks_are_over(
    bench: ChangeBench, forge: PolledForge
) -> None:
    cycle = await bench.start(GOOD)
    async with bench.working(cycle) as working:
        await passing(bench, working.task, until=200)
        forge.state = CheckState.SUCCESS
        await passing(bench, working.task, until=600)
    ended = await bench.stored(cycle)
    assert ended.result.merged, bench.story(ended)
    assert ended.result.ci_status is CiStatus.SUCCESS
    waits = [after - before for before, after in zip([0, *forge.looks], forge.looks, strict=False)]
    assert waits[0] >= 10
    # A second of the test's own on either side.
    assert all(wait >= before - 1 for before, wait in itertools.pairwise(waits))
    assert waits[-1] >= 2 * waits[0]
    assert max(waits) <= 62
    assert ended.step(CycleStep.CI).evidence["looked_at"] == ended.facts.commit


@pytest.mark.parametrize(
    ("state", "failure", "status"),
    [
        (CheckState.PENDING, ("ci_timeout", "timed_out"), CiStatus.TIMEOUT),
        (CheckState.NONE, ("ci_timeout", "no_checks"), CiStatus.TIMEOUT),
        (CheckState.FAILURE, ("ci_failure", "check_failed"), CiStatus.FAILURE),
    ],
)
async def test_checks_that_do_not_pass_in_time_end_the_cycle(
    bench: ChangeBench,
    forge: PolledForge,
    state: CheckState,
    failure: tuple[str, str],
    status: CiStatus,
) -> None:
    forge.state = state
    cycle = await bench.start(GOOD, ci_timeout=timedelta(seconds=30))
    async with bench.working(cycle) as working:
        await passing(bench, working.task, until=100)
    ended = await bench.stored(cycle)
    assert ended.failure is not None
    assert (ended.failure.failure_class, ended.failure.reason) == failure
    assert ended.result.ci_status is status
    assert bench.git.on_remote() == bench.git.base
    assert bench.refs() == ["main"]


async def test_a_forge_that_is_unavailable_is_waited_for(
    bench: ChangeBench, forge: PolledForge
) -> None:
    forge.available, forge.state = False, CheckState.SUCCESS
    cycle = await bench.start(GOOD)
    async with bench.working(cycle) as working:
        looking = asyncio.create_task(passing(bench, working.task, until=1000))
        # Held is also what it is while it is tried again, which has no reason yet.
        held = await bench.until(cycle, lambda c: c.step(CycleStep.CI).reason == "rate_limited")
        assert held.state is CycleState.HELD
        forge.available = True
        await looking
    ended = await bench.stored(cycle)
    assert ended.result.merged, bench.story(ended)

"""One step of a cycle on fakes: run to its end, killed, repeated."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from att_server.core.cycles import progress
from att_server.core.cycles.model import (
    Cycle,
    CycleFacts,
    CycleFailure,
    CycleKind,
    CycleRequest,
    CycleStep,
    StepState,
    StepStatus,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Held, Leaves, Step, StepEnd, StepWork
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.releases import Release, ReleaseState
from att_server.testing import FakeClock
from att_server.testing.deployments import FakeDeployments
from att_server.testing.journal import MemoryJournal

PROJECT = "web"
OLD, NEW, OLDER = "0" * 39 + "a", "0" * 39 + "b", "0" * 39 + "c"
TICK = timedelta(milliseconds=50)
TOO_LONG = timedelta(minutes=10)


class Killed(Exception):
    """The server died."""


class Bench:
    """A project that runs OLD, and a cycle that has switched it to NEW.

    Runs steps as an engine would, with time passing whenever everything sleeps.
    kill_at: called before each note; raising Killed there is a crash.
    """

    def __init__(self, settings: BootstrapSettings | None = None) -> None:
        self.clock = FakeClock()
        self.deployments = FakeDeployments(self.clock)
        self.journal = MemoryJournal(clock=self.clock)
        self.settings = settings or BootstrapSettings()
        self.events: list[Event] = []
        self.notes = 0
        self.kill_at: Callable[[int], bool] = lambda _: False
        self.deployments.add(PROJECT, release_id=OLD)
        self.cycle = Cycle(
            cycle_id=self.clock.new_id(),
            project_id=PROJECT,
            request=CycleRequest(),
            requested_by="local:1000",
            create_time=self.clock.now(),
            steps=tuple(StepStatus(step=step) for step in CycleStep),
            facts=CycleFacts(
                base_branch="main",
                plan_digest="digest",
                commit="0" * 39 + "d",
                base_before=OLD,
                merged_commit=NEW,
                merged_here=True,
                release_id=NEW,
                release_before=OLD,
                previous_release_id=OLD,
                previous_release_source="registry",
            ),
        )

    def release(
        self, release_id: str, state: ReleaseState, *, tree: str = "", cycle_id: str = ""
    ) -> Release:
        now = self.clock.now()
        return Release(
            release_id=release_id,
            project_id=PROJECT,
            state=state,
            state_time=now,
            create_time=now,
            deploy_time=now,
            tree_sha=tree or f"tree-of-{release_id}",
            cycle_id=cycle_id,
            reason="health_failure" if state is ReleaseState.BAD else "",
        )

    async def registered(self) -> dict[str, Release]:
        return {each.release_id: each for each in await self.journal.releases(PROJECT)}

    async def register(self, *releases: Release) -> None:
        await self.journal.put_releases(*releases)

    async def deploy(self, release_id: str = NEW) -> None:
        """What DEPLOY does and notes."""
        run_before = self.deployments.status(PROJECT).run_id
        status = await self.deployments.switch(PROJECT, release_id, cycle_id=self.cycle.cycle_id)
        self.deployments.switched.clear()
        facts = replace(
            self.cycle.facts,
            cut_over=True,
            run_before=run_before,
            deploy_run_id=status.run_id,
            deploy_time=self.clock.now(),
        )
        self.cycle = replace(self.cycle, facts=facts)

    def fail(
        self,
        failure_class: FailureClass = FailureClass.HEALTH_FAILURE,
        *,
        step: CycleStep = CycleStep.HEALTH,
    ) -> None:
        failure = CycleFailure(step=step, failure_class=failure_class, reason="http_status")
        self.cycle = replace(self.cycle, failure=failure)

    def by_person(self, target: str = "") -> None:
        """Makes it a rollback that somebody asked for."""
        self.cycle = replace(
            self.cycle,
            kind=CycleKind.ROLLBACK,
            request=CycleRequest(rollback_release_id=target, reason="it is slow"),
            facts=CycleFacts(base_branch="main"),
        )

    async def run(self, step: Step) -> StepEnd:
        """One attempt, with what came of it stored. Raises Killed, and what the step raises."""
        self.cycle = progress.begun(self.cycle, step.step, self.clock.now())
        work = StepWork(
            cycle=self.cycle,
            project=self.deployments.project(PROJECT),
            settings=self.settings,
            status=self.cycle.step(step.step),
            now=self.clock.now(),
            note=lambda leaves: self._note(step.step, leaves),
        )
        end = await self.passing(asyncio.ensure_future(step.run(work)))
        await self._keep(end.leaves)
        self.cycle = progress.ended(
            self.cycle, step.step, end, self.clock.now(), timedelta(seconds=1)
        )
        if isinstance(end, Held):
            assert self.cycle.step(step.step).state is StepState.WAITING
        return end

    async def run_killed(self, step: Step, note: int) -> None:
        """One attempt that dies at its note of this number, from 0; nothing more is stored."""
        self.notes, self.kill_at = 0, lambda number: number == note
        with contextlib.suppress(Killed):
            await self.run(step)
        self.kill_at = lambda _: False

    async def passing(self, task: asyncio.Future[StepEnd]) -> StepEnd:
        """Waits for the task while time passes, at most ten minutes of it."""
        for _ in range(TOO_LONG // TICK):
            # Everything that can go on without time does so first.
            for _ in range(20):
                await asyncio.sleep(0)
            if task.done():
                return task.result()
            if self.clock.sleepers:
                self.clock.advance(TICK)
        task.cancel()
        raise AssertionError("the step does not end")

    async def _note(self, step: CycleStep, leaves: Leaves) -> None:
        number, self.notes = self.notes, self.notes + 1
        if self.kill_at(number):
            raise Killed
        await self._keep(leaves)
        self.cycle = progress.noted(self.cycle, step, leaves)

    async def _keep(self, leaves: Leaves) -> None:
        self.events += leaves.events
        await self.journal.put_releases(*leaves.releases)

"""An engine whose steps do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.model import (
    Cancellation,
    Cycle,
    CycleKind,
    CycleRequest,
    CycleState,
    CycleStep,
    Decision,
    StepStatus,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Asked, Done, Leaves, StepEnd, StepWork
from att_server.core.errors import AttError
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event, EventFilter, Project
from att_server.core.rollback_verdict import PolicyStatus
from att_server.testing import FakeClock, MemoryStateStore
from att_server.testing.deployments import FakeDeployments
from att_server.testing.journal import MemoryJournal

SECOND = timedelta(seconds=1)
SHA = "a" * 40
Act = Callable[[StepWork], Awaitable[StepEnd]]

_CLASSES = {
    CycleStep.TEST: FailureClass.TEST_FAILURE,
    CycleStep.PUSH: FailureClass.PUSH_FAILURE,
    CycleStep.MERGE: FailureClass.MERGE_FAILURE,
    CycleStep.STAGE: FailureClass.STAGE_FAILURE,
    CycleStep.DEPLOY: FailureClass.DEPLOY_FAILURE,
    CycleStep.HEALTH: FailureClass.HEALTH_FAILURE,
}
_UNINTERRUPTIBLE = (CycleStep.MERGE, CycleStep.DEPLOY, CycleStep.ROLLBACK, CycleStep.REVERT)


class ScriptedStep:
    """Implements `Step`: does what its script says next, and what comes by itself after that.

    attempts: how often it was run. script: what its runs do, one after the other.
    """

    def __init__(self, step: CycleStep) -> None:
        self.step = step
        self.failure_class = _CLASSES.get(step, FailureClass.INTERNAL)
        self.interruptible = step not in _UNINTERRUPTIBLE
        self.skipped = ""
        self.attempts = 0
        self.works: list[StepWork] = []
        self.script: list[StepEnd | Exception | Act] = []
        self.begun = asyncio.Event()

    def skip_reason(self, asked: Asked) -> str:
        return self.skipped

    async def run(self, work: StepWork) -> StepEnd:
        self.attempts += 1
        self.works.append(work)
        self.begun.set()
        if not self.script:
            return Done(leaves=as_usual(work))
        does = self.script.pop(0)
        if isinstance(does, Exception):
            raise does
        return await does(work) if callable(does) else does


def as_usual(work: StepWork) -> Leaves:
    """What the step leaves that the course of a cycle goes by."""
    facts, result = work.cycle.facts, work.cycle.result
    match work.status.step:
        case CycleStep.PREPARE:
            facts = replace(facts, settings=facts.settings or BootstrapSettings())
        case CycleStep.MERGE:
            facts = replace(facts, merged_commit=SHA, merged_here=True)
        case CycleStep.DEPLOY:
            facts = replace(facts, cut_over=True, release_id=SHA)
        case CycleStep.ROLLBACK:
            result = replace(
                result,
                rollback_performed=True,
                rollback_succeeded=True,
                rollback_policy_status=PolicyStatus.ALLOWED,
            )
    return Leaves(facts=facts, result=result)


async def forever(work: StepWork) -> StepEnd:
    """Until it is cancelled."""
    await asyncio.Event().wait()
    raise AssertionError("nothing ends this wait")


async def turns(count: int) -> None:
    """Lets everybody else go on so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


class ScriptedCleanup:
    """Cleans up, unless it is told what goes wrong. cleaned: the cycles, in their order."""

    def __init__(self) -> None:
        self.problems: list[Exception] = []
        self.cleaned: list[str] = []

    async def run(self, cycle: Cycle, project: Project) -> None:
        if self.problems:
            raise self.problems.pop(0)
        self.cleaned.append(cycle.cycle_id)


class EngineBench:
    """One journal, and an engine on it that ends and begins again as a server does."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStateStore()
        self.journal = MemoryJournal(self.store, self.clock)
        self.deployments = FakeDeployments(self.clock)
        self.cleanup = ScriptedCleanup()
        self.steps = {step: ScriptedStep(step) for step in CycleStep}
        self.lives = 0
        self.engine: CycleEngine

    @asynccontextmanager
    async def serving(self, *, alone: bool = True) -> AsyncIterator[CycleEngine]:
        """An engine for as long as the context is open."""
        self.lives += 1
        async with Background() as background:
            self.engine = CycleEngine(
                journal=self.journal,
                steps=list(self.steps.values()),
                deployments=self.deployments,
                cleanup=self.cleanup,
                leftovers=None,
                clock=self.clock,
                background=background,
                stored=Bell(),
                owner=f"server-{self.lives}",
            )
            await self.engine.open(alone=alone)
            self.engine.resume()
            yield self.engine

    def step(self, step: CycleStep) -> ScriptedStep:
        return self.steps[step]

    async def create(
        self,
        project_id: str = "web",
        *,
        kind: CycleKind = CycleKind.CHANGE,
        steps: Sequence[CycleStep] = tuple(CycleStep),
        **request: object,
    ) -> str:
        """Stores a cycle that no engine knows of."""
        self.deployments.add(project_id)
        cycle = Cycle(
            cycle_id=self.clock.new_id(),
            project_id=project_id,
            kind=kind,
            request=CycleRequest(**request),  # type: ignore[arg-type]  # named by each test
            requested_by="local:1000",
            create_time=self.clock.now(),
            steps=tuple(StepStatus(step=step) for step in steps),
        )
        await self.journal.create(cycle, b"change")
        return cycle.cycle_id

    async def start(self, project_id: str = "web", **request: object) -> str:
        """Stores a cycle and has it begun."""
        cycle_id = await self.create(project_id, **request)  # type: ignore[arg-type]  # same
        await self.engine.begin(cycle_id)
        return cycle_id

    async def cycle(self, cycle_id: str) -> Cycle:
        cycle = await self.journal.cycle(cycle_id)
        assert cycle is not None
        return cycle

    async def until(self, cycle_id: str, reached: Callable[[Cycle], bool]) -> Cycle:
        """The cycle once it is as described."""
        bell = self.engine.changed(cycle_id)
        while True:
            seen = bell.count
            cycle = await self.cycle(cycle_id)
            if reached(cycle):
                return cycle
            await asyncio.wait_for(bell.wait(seen), 10)

    async def end(self, cycle_id: str) -> Cycle:
        """The cycle once it has ended, with time passing whenever nothing else happens."""
        seen, wait = -1, SECOND
        for _ in range(10_000):
            await turns(30)
            cycle = await self.cycle(cycle_id)
            if cycle.ended:
                return cycle
            if cycle.revision == seen:
                self.clock.advance(wait)
                wait = min(2 * wait, timedelta(minutes=1))
            else:
                seen, wait = cycle.revision, SECOND
        raise AssertionError(f"the cycle does not end: {cycle}")

    async def held(self, cycle_id: str) -> Cycle:
        return await self.until(cycle_id, lambda cycle: cycle.state is CycleState.HELD)

    async def cancel(self, cycle_id: str) -> None:
        await self.journal.cancel(
            cycle_id, Cancellation(principal="local:1000", time=self.clock.now())
        )
        self.engine.ask(cycle_id)

    async def decide(self, cycle_id: str) -> None:
        cycle = await self.cycle(cycle_id)
        assert cycle.approval is not None
        decision = Decision(
            approved=True,
            principal="token:alice",
            time=self.clock.now(),
            commit_sha=cycle.approval.commit_sha,
            plan_digest=cycle.approval.plan_digest,
        )
        await self.journal.decide(cycle_id, decision)
        self.engine.ask(cycle_id)

    def fail_writes(self, error: AttError | None) -> None:
        self.journal.write_error = error

    async def events(self, event_type: str = "") -> list[Event]:
        selected = EventFilter(event_types=(event_type,) if event_type else ())
        events, _ = await self.store.list_events(selected, cursor=0, limit=1_000)
        return list(events)

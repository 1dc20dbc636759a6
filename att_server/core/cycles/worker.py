"""CycleWorker: carries one cycle from where it stands to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from att_server.core.bell import Bell
from att_server.core.cycles import progress
from att_server.core.cycles.course import Do, End, cancel_due, next_act, reached_deploy, time_limit
from att_server.core.cycles.forge import ForgeError
from att_server.core.cycles.journal import CycleJournal, Fenced
from att_server.core.cycles.model import Cycle, CycleState, CycleStep, Decision, StepState
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import (
    NOTHING,
    Asked,
    Failed,
    Held,
    Leaves,
    Step,
    StepEnd,
    StepWork,
)
from att_server.core.cycles.step_errors import StepErrors
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import CycleOutcome, FailureClass
from att_server.core.model import Event, Project, ProjectMode
from att_server.core.ports import Clock
from att_server.core.repository import RepositoryError

BACKOFF = (timedelta(seconds=1), timedelta(seconds=60))
"""Between two tries of a held step: the first wait, and the longest."""

CLEANUP_TRIES = 10
CLEANUP_PAUSE = timedelta(seconds=1)
STORE_RETRY = (timedelta(seconds=1), timedelta(seconds=30))

_BLOCKS = {
    CycleStep.ROLLBACK: "rollback_failed",
    CycleStep.REVERT: "base_contains_bad_change",
}
"""Why a project is in safe mode after the way back has failed."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class CleansUp(Protocol):
    """Removes what a cycle leaves when it ends."""

    async def run(self, cycle: Cycle, project: Project) -> None:
        """Removes it; without effect where it is gone already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all workers of an engine share. stored: rung for events."""

    journal: CycleJournal
    steps: Mapping[CycleStep, Step]
    deployments: Deployments
    cleanup: CleansUp
    clock: Clock
    stored: Bell


class CycleWorker:
    """Does the steps of one cycle, whose lease its engine holds.

    Everything is stored before it is acted upon: cancelled or killed at any moment,
    another worker goes on with what is stored, and does the step that was under way
    again, which looks first.
    """

    def __init__(self, cycle: Cycle, tools: Tools, *, changed: Bell) -> None:
        """changed: rung after every change, for who watches."""
        self.cycle = cycle
        self._journal = tools.journal
        self._steps = tools.steps
        self._deployments = tools.deployments
        self._cleanup = tools.cleanup
        self._clock = tools.clock
        self._stored = tools.stored
        self._changed = changed
        self._asked = Bell()
        self._heard = 0
        self._decision: Decision | None = None
        # The step whose next attempt is stored as begun, and has not begun.
        self._begun: CycleStep | None = None
        self._wait = BACKOFF[0]
        self._errors = StepErrors(cycle.cycle_id)

    def ask(self) -> None:
        """Has it look for a cancellation or decision that was written."""
        self._asked.ring()

    async def run(self) -> None:
        """Works until the cycle has ended. Raises Fenced once another engine has it."""
        if reached_deploy(self.cycle):
            await self._deployments.hold(self.cycle.project_id)
        while True:
            act = next_act(self.cycle)
            if isinstance(act, End):
                await self._finish(act)
                return
            if cancel_due(self.cycle):
                await self._cancel(act)
            else:
                await self._advance(self._steps[act.step])

    # Steps ------------------------------------------------------------------

    async def _advance(self, step: Step) -> None:
        """Does what the step needs next: a wait, or an attempt."""
        state = self.cycle.step(step.step).state
        if state is StepState.WAITING:
            await self._rest()
            if cancel_due(self.cycle):
                return
        looks_again = state is StepState.WAITING and self.cycle.state is not CycleState.HELD
        if not looks_again and self._begun is not step.step:
            await self._commit(self._with_begun(self.cycle))
            return
        self._begun = None
        end = await self._attempt(step)
        if end is not None:
            await self._record(step.step, end)

    def _with_begun(self, cycle: Cycle) -> Cycle:
        """With the next step begun, and those before it skipped that are not to be done."""
        while not cancel_due(cycle):
            act = next_act(cycle)
            if isinstance(act, End):
                break
            if cycle.step(act.step).state is StepState.PENDING:
                asked = Asked(kind=cycle.kind, request=cycle.request, settings=cycle.settings)
                if reason := self._steps[act.step].skip_reason(asked):
                    cycle = progress.skipped(cycle, act.step, reason)
                    continue
            return progress.begun(cycle, act.step, self._clock.now())
        return cycle

    async def _rest(self) -> None:
        """Returns when it is time to look again, or when a call has asked for something."""
        await self._look()
        if cancel_due(self.cycle) or self.cycle.decision != self._decision:
            return
        left = (self.cycle.wake_time or self._clock.now()) - self._clock.now()
        if self.cycle.state is CycleState.HELD:
            left = min(left, BACKOFF[1])  # The wall clock may have been set back.
        async with _Tasks() as tasks:
            sleeping = tasks.start(self._clock.sleep(max(timedelta(), left)))
            asked = tasks.start(self._asked.wait(self._heard))
            await asyncio.wait([sleeping, asked], return_when=asyncio.FIRST_COMPLETED)
        await self._look()

    async def _look(self) -> None:
        """Takes over what calls have written."""
        self._heard = self._asked.count
        latest = await self._journal.cycle(self.cycle.cycle_id)
        if latest is not None:
            self.cycle = replace(
                self.cycle, cancellation=latest.cancellation, decision=latest.decision
            )

    async def _attempt(self, step: Step) -> StepEnd | None:
        """What came of one attempt; None: it was interrupted, as the cycle is to end."""
        self._decision = self.cycle.decision
        limit = time_limit(step.step, self.cycle.settings)
        async with _Tasks() as tasks:
            running = tasks.start(self._outcome(step))
            late = tasks.start(self._clock.sleep(limit))
            while not running.done():
                asked = tasks.start(self._asked.wait(self._heard))
                await asyncio.wait([running, late, asked], return_when=asyncio.FIRST_COMPLETED)
                if asked.done() and not running.done():
                    await self._look()
                    if cancel_due(self.cycle) and step.interruptible:
                        return await _stopped(running)
                if late.done() and not running.done():
                    late_end = Failed(
                        failure_class=FailureClass.DEADLINE_EXCEEDED, reason="step_timed_out"
                    )
                    return await _stopped(running) or late_end
            return running.result()

    async def _outcome(self, step: Step) -> StepEnd:
        """Runs the step; what it raises is an outcome too."""
        try:
            project = self._deployments.project(self.cycle.project_id)
            if step.step in (CycleStep.DEPLOY, CycleStep.ROLLBACK):
                await self._deployments.hold(project.project_id)

            async def note(leaves: Leaves) -> None:
                noted = progress.noted(self.cycle, step.step, leaves)
                await self._store(noted, self._stamped(step.step, leaves.events), leaves)

            work = StepWork(
                cycle=self.cycle,
                project=project,
                settings=self.cycle.settings,
                status=self.cycle.step(step.step),
                now=self._clock.now(),
                note=note,
            )
            return progress.checked(self.cycle, step.step, await step.run(work))
        except Fenced:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a step raises is its end
            return self._errors.end(step, error)

    async def _record(self, step: CycleStep, end: StepEnd) -> None:
        now, before = self._clock.now(), self.cycle
        after = progress.ended(before, step, end, now, self._wait)
        self._wait = min(2 * self._wait, BACKOFF[1]) if isinstance(end, Held) else BACKOFF[0]
        events = list(end.leaves.events)
        if after.step(step).state is StepState.FAILED:
            await self._block(after, step)
            failure = _as_failure(end)
            events.append(progress.failure_event(before, step, failure, now))
        elif isinstance(end, Held) and before.state is not CycleState.HELD:
            events.append(progress.held_event(after, end, now))
        if after.step(step).state is not StepState.WAITING:
            # Stored at once: every step costs one write.
            after = self._with_begun(after)
        await self._commit(after, self._stamped(step, events), end.leaves)

    async def _block(self, cycle: Cycle, step: CycleStep) -> None:
        """Puts the project into safe mode where the way back has failed for good.

        A rollback that was denied is none that failed: its own step decides there.
        """
        act = next_act(cycle)
        back_failed = isinstance(act, End) and act.outcome is CycleOutcome.ROLLBACK_FAILED
        if step is CycleStep.REVERT or (step is CycleStep.ROLLBACK and back_failed):
            project = self._deployments.project(cycle.project_id)
            if project.mode is not ProjectMode.FROZEN:
                await self._deployments.set_mode(cycle.project_id, ProjectMode.SAFE, _BLOCKS[step])

    # Ends -------------------------------------------------------------------

    async def _cancel(self, act: Do) -> None:
        cancelled = Failed(failure_class=FailureClass.CANCELLED, reason="cancelled")
        await self._commit(progress.failed(self.cycle, act.step, cancelled, self._clock.now()))

    async def _finish(self, end: End) -> None:
        """Cleans up and ends the cycle; what cannot be cleaned up does not keep it."""
        problem = await self._clean_up()
        now = self._clock.now()
        events = [progress.ended_event(end.outcome, end.reason, now)]
        if problem:
            events.insert(0, Event(event_type="error", time=now, phase="cleanup", message=problem))
        cycle = replace(self.cycle, facts=replace(self.cycle.facts, cleaned_up=not problem))
        await self._commit(progress.closed(cycle, end, now), self._stamped("", events))
        self._deployments.let_go(cycle.project_id)

    async def _clean_up(self) -> str:
        """Why it could not be done; empty: it is done."""
        problem = ""
        for attempt in range(CLEANUP_TRIES):
            if attempt:
                await self._clock.sleep(CLEANUP_PAUSE)
            try:
                project = self._deployments.project(self.cycle.project_id)
                await self._cleanup.run(self.cycle, project)
            except (AttError, RepositoryError, ForgeError) as error:
                problem = error.message
            except Exception as error:
                log.exception("defect in the cleanup of cycle %s", self.cycle.cycle_id)
                return f"{type(error).__name__}: {error}"
            else:
                return ""
        return problem

    # Storing ----------------------------------------------------------------

    def _stamped(self, phase: str, events: Sequence[Event]) -> list[Event]:
        return progress.stamped(self.cycle, phase, events, self._clock.now())

    async def _commit(
        self, cycle: Cycle, events: Sequence[Event] = (), leaves: Leaves = NOTHING
    ) -> None:
        """Stores the cycle, as late as there is room for it. Raises Fenced."""
        wait = STORE_RETRY[0]
        running = [each.step for each in cycle.steps if each.state is StepState.RUNNING]
        while True:
            try:
                await self._store(cycle, events, leaves)
                self._begun = running[0] if running else None
                return
            except AttError as error:
                if error.reason is not Reason.STORAGE_FULL:
                    raise
                log.warning("cycle %s waits to be stored: %s", cycle.cycle_id, error.message)
            await self._clock.sleep(wait)
            wait = min(2 * wait, STORE_RETRY[1])

    async def _store(self, cycle: Cycle, events: Sequence[Event], leaves: Leaves) -> None:
        self.cycle = await self._journal.commit(
            cycle,
            events=events,
            releases=leaves.releases,
            report=leaves.report,
            drop_change=leaves.drop_change,
        )
        if events:
            self._stored.ring()
        self._changed.ring()


class _Tasks:
    """Tasks that do not outlive the context."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        # Awaited to their end: what a step does after its cancellation belongs to it.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task


async def _stopped(running: asyncio.Task[StepEnd]) -> StepEnd | None:
    """Ends the attempt; what came of it if it was over by then."""
    running.cancel()
    await asyncio.wait([running])
    return None if running.cancelled() else running.result()


def _as_failure(end: StepEnd) -> Failed:
    """The failure that `end` was; a hold that lasted too long is one."""
    if isinstance(end, Failed):
        return end
    cause = end.external_cause if isinstance(end, Held) else None
    return Failed(
        failure_class=FailureClass.DEADLINE_EXCEEDED,
        reason=end.reason if isinstance(end, Held) else "",
        external_cause=cause,
    )

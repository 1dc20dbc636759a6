"""How a cycle changes as its steps begin and end: pure functions, stored by the engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from att_server.core.cycles.course import End, next_act, skip_reason_at_end, state_in
from att_server.core.cycles.model import (
    Cycle,
    CycleFailure,
    CycleState,
    CycleStep,
    StepState,
    StepStatus,
)
from att_server.core.cycles.step import (
    Again,
    Done,
    Failed,
    Held,
    Leaves,
    Skipped,
    StepEnd,
    Waiting,
)
from att_server.core.failure_class import CycleOutcome, FailureClass
from att_server.core.model import Event

STILL = frozenset({CycleState.HELD, CycleState.AWAITING_APPROVAL})
"""The states that go on while the step is tried or looks again, until something comes of it."""


def begun(cycle: Cycle, step: CycleStep, now: datetime) -> Cycle:
    """With a new attempt of the step under way."""
    status = cycle.step(step)
    held = cycle.state is CycleState.HELD and status.state is not StepState.PENDING
    changed = replace(
        status,
        state=StepState.RUNNING,
        attempt=status.attempt + 1,
        start_time=status.start_time or now,
        end_time=None,
        # What holds a cycle is said for as long as it is HELD, through every retry.
        reason=status.reason if held else "",
    )
    return replace(
        cycle.with_step(changed),
        state=cycle.state if held else state_in(cycle, step),
        wake_time=None,
        # One bound for all attempts of a held step, so that it ends some day.
        deadline_time=cycle.deadline_time if held else None,
        approval=cycle.approval if held else None,
    )


def skipped(cycle: Cycle, step: CycleStep, reason: str) -> Cycle:
    """With the step passed over before it began."""
    return cycle.with_step(replace(cycle.step(step), state=StepState.SKIPPED, reason=reason))


def noted(cycle: Cycle, step: CycleStep, leaves: Leaves) -> Cycle:
    """With what the step leaves."""
    status = cycle.step(step)
    return replace(
        cycle.with_step(
            replace(
                status,
                evidence={**status.evidence, **leaves.evidence},
                log_tail=leaves.log_tail or status.log_tail,
            )
        ),
        facts=leaves.facts or cycle.facts,
        result=leaves.result or cycle.result,
    )


def checked(cycle: Cycle, step: CycleStep, end: StepEnd) -> StepEnd:
    """`end`. Raises ValueError where it would lead a cycle astray: a defect of the step."""
    order = [status.step for status in cycle.steps]
    if isinstance(end, Again) and order.index(end.step) > order.index(step):
        raise ValueError(f"{step} cannot go back to {end.step}")
    return end


def ended(cycle: Cycle, step: CycleStep, end: StepEnd, now: datetime, wait: timedelta) -> Cycle:
    """With what came of an attempt, what it leaves included. wait: before a held step's next."""
    cycle = noted(cycle, step, end.leaves)
    match end:
        case Done():
            return _over(cycle, step, StepState.SUCCEEDED, "", now)
        case Skipped():
            return _over(cycle, step, StepState.SKIPPED, end.reason, now)
        case Failed():
            return failed(cycle, step, end, now)
        case Again():
            return _again(cycle, step, end, now)
        case Waiting():
            return _waiting(cycle, step, end, now)
        case Held():
            return _held(cycle, step, end, now, wait)


def failed(cycle: Cycle, step: CycleStep, failure: Failed, now: datetime) -> Cycle:
    """With the step failed, and with it the cycle, unless it has failed before."""
    first = CycleFailure(
        step=step,
        failure_class=failure.failure_class,
        reason=failure.reason,
        external_cause=failure.external_cause,
    )
    changed = replace(cycle, failure=cycle.failure or first)
    if cycle.step(step).state is StepState.PENDING:
        return changed
    return _over(changed, step, StepState.FAILED, failure.reason, now)


def closed(cycle: Cycle, end: End, now: datetime) -> Cycle:
    """Ended, with every step over."""
    steps = tuple(
        status
        if status.state.over
        else replace(status, state=StepState.SKIPPED, reason=skip_reason_at_end(cycle, status.step))
        for status in cycle.steps
    )
    return replace(
        _moved_on(cycle),
        steps=steps,
        state=CycleState.ENDED,
        outcome=end.outcome,
        outcome_reason=end.reason,
        end_time=now,
    )


# What the log says of it ------------------------------------------------------


def stamped(cycle: Cycle, phase: str, events: Iterable[Event], now: datetime) -> list[Event]:
    """The events with time, project, cycle, phase and, where they name nobody, who asked."""
    return [
        replace(
            event,
            time=now,
            project_id=cycle.project_id,
            cycle_id=cycle.cycle_id,
            phase=event.phase or phase,
            principal=event.principal or cycle.requested_by,
        )
        for event in events
    ]


def failure_event(before: Cycle, step: CycleStep, failure: Failed, now: datetime) -> Event:
    """`error`, with the step as phase. A failure on the way back says what it followed."""
    attributes = {"failure_class": str(failure.failure_class), "detail": failure.reason}
    if failure.external_cause is not None:
        attributes["external_cause"] = failure.external_cause
    if before.failure is not None:
        attributes["after"] = before.failure.failure_class
    reason = str(failure.failure_class)
    return Event(event_type="error", time=now, phase=step, reason=reason, attributes=attributes)


def held_event(cycle: Cycle, end: Held, now: datetime) -> Event:
    """`cycle.held`, once a hold begins."""
    attributes = {} if end.external_cause is None else {"external_cause": str(end.external_cause)}
    if cycle.deadline_time is not None:
        attributes["deadline"] = cycle.deadline_time.isoformat()
    return Event(event_type="cycle.held", time=now, reason=end.reason, attributes=attributes)


def ended_event(outcome: CycleOutcome, reason: str, now: datetime) -> Event:
    """`cycle.ended`."""
    return Event(
        event_type="cycle.ended", time=now, reason=reason, attributes={"outcome": str(outcome)}
    )


# The ends --------------------------------------------------------------------


def _over(cycle: Cycle, step: CycleStep, state: StepState, reason: str, now: datetime) -> Cycle:
    status = cycle.step(step)
    return _moved_on(
        cycle.with_step(
            replace(
                status,
                state=state,
                reason=reason,
                end_time=now,
                waiting=_waited(status, now),
                waiting_since=None,
            )
        )
    )


def _again(cycle: Cycle, step: CycleStep, end: Again, now: datetime) -> Cycle:
    order = [status.step for status in cycle.steps]
    first, last = order.index(end.step), order.index(step)
    steps = tuple(
        replace(
            status,
            state=StepState.PENDING,
            reason=end.reason if status.step is step else "",
            waiting=_waited(status, now),
            waiting_since=None,
        )
        if first <= position <= last
        else status
        for position, status in enumerate(cycle.steps)
    )
    return _moved_on(replace(cycle, steps=steps))


def _waiting(cycle: Cycle, step: CycleStep, end: Waiting, now: datetime) -> Cycle:
    return replace(
        _in_wait(cycle, step, end.reason, now),
        state=state_in(cycle, step) if end.approval is None else CycleState.AWAITING_APPROVAL,
        wake_time=end.until,
        deadline_time=end.deadline,
        approval=end.approval,
    )


def _held(cycle: Cycle, step: CycleStep, end: Held, now: datetime, wait: timedelta) -> Cycle:
    going_on = cycle.deadline_time if cycle.state is CycleState.HELD else None
    deadline = going_on or now + cycle.settings.hold_timeout
    if now >= deadline:
        late = Failed(
            failure_class=FailureClass.DEADLINE_EXCEEDED,
            reason=end.reason,
            external_cause=end.external_cause,
        )
        return failed(cycle, step, late, now)
    return replace(
        _in_wait(cycle, step, end.reason, now),
        state=CycleState.HELD,
        wake_time=min(now + wait, deadline),
        deadline_time=deadline,
        approval=end.decidable,
    )


def _in_wait(cycle: Cycle, step: CycleStep, reason: str, now: datetime) -> Cycle:
    status = cycle.step(step)
    return cycle.with_step(
        replace(
            status,
            state=StepState.WAITING,
            reason=reason,
            waiting_since=status.waiting_since or now,
        )
    )


def _waited(status: StepStatus, now: datetime) -> timedelta:
    since = status.waiting_since
    return status.waiting if since is None else status.waiting + max(timedelta(), now - since)


def _moved_on(cycle: Cycle) -> Cycle:
    """With nothing left of a wait."""
    act = None if cycle.ended else next_act(cycle)
    state = cycle.state if act is None or isinstance(act, End) else state_in(cycle, act.step)
    if state in STILL:
        state = CycleState.RUNNING
    return replace(cycle, state=state, wake_time=None, deadline_time=None, approval=None)

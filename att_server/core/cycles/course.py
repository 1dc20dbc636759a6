"""What a cycle does next: a pure function of what is stored about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from att_server.core.cycles.model import (
    FORWARD,
    Cycle,
    CycleKind,
    CycleState,
    CycleStep,
    StepState,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.failure_class import CycleOutcome, FailureClass
from att_server.core.rollback_verdict import PolicyStatus

AUTO_MERGE_DISABLED = "auto_merge_disabled"
"""Why MERGE is skipped where a person merges: the cycle ends there, as a success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Do:
    """The step is to be done, or looked at again."""

    step: CycleStep


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Nothing is left but to clean up. reason: a failure class or a policy's reason."""

    outcome: CycleOutcome
    reason: str = ""


def next_act(cycle: Cycle) -> Do | End:
    """What comes next. Raises ValueError for a cycle that has ended."""
    if cycle.ended:
        raise ValueError(f"cycle {cycle.cycle_id} has ended")
    if cycle.kind is CycleKind.ROLLBACK:
        return _rollback_that_was_asked_for(cycle)
    if cycle.failure is None:
        return _onward(cycle)
    if cycle.facts.cut_over:
        return _back_from_release(cycle, cycle.failure.failure_class)
    if (_merged(cycle) or merge_in_doubt(cycle)) and not _over(cycle, CycleStep.REVERT):
        # The next cycle would else ship what this one could not.
        return Do(step=CycleStep.REVERT)
    return _end_by(cycle.failure.failure_class)


def last_step(cycle: Cycle) -> CycleStep:
    """The last step of the way forward that this cycle is to do."""
    merge = cycle.step(CycleStep.MERGE)
    if merge.state is StepState.SKIPPED and merge.reason == AUTO_MERGE_DISABLED:
        return CycleStep.MERGE
    return cycle.request.until if cycle.request.until in FORWARD else CycleStep.FINALIZE


def cancel_due(cycle: Cycle) -> bool:
    """Whether the cycle was asked to end and has not begun to go back or to finish."""
    if cycle.cancellation is None or cycle.failure is not None or cycle.ended:
        return False
    act = next_act(cycle)
    if isinstance(act, End) or act.step is CycleStep.REVERT:
        return False
    return act.step is not CycleStep.ROLLBACK or cycle.step(act.step).attempt == 0


def merge_in_doubt(cycle: Cycle) -> bool:
    """Whether MERGE was broken off after it may have pushed: only the base can tell."""
    return (
        cycle.failure is not None
        and cycle.failure.step is CycleStep.MERGE
        and cycle.failure.failure_class in _BROKEN_OFF
        and cycle.step(CycleStep.MERGE).state is StepState.FAILED
        and not cycle.facts.merged_commit
    )


_BROKEN_OFF = frozenset(
    {FailureClass.CANCELLED, FailureClass.DEADLINE_EXCEEDED, FailureClass.INTERNAL}
)


def state_in(cycle: Cycle, step: CycleStep) -> CycleState:
    """The state of a cycle that works on the step."""
    cancelled = cycle.failure is not None and cycle.failure.failure_class is FailureClass.CANCELLED
    if step is CycleStep.ROLLBACK or (step is CycleStep.REVERT and cycle.facts.cut_over):
        return CycleState.ROLLING_BACK
    return CycleState.CANCELLING if cancelled else CycleState.RUNNING


def reached_deploy(cycle: Cycle) -> bool:
    """Whether the cycle may have its hands on the running app."""
    return cycle.facts.cut_over or any(
        status.state is not StepState.SKIPPED and (status.attempt or status.waiting_since)
        for status in cycle.steps
        if status.step in (CycleStep.DEPLOY, CycleStep.ROLLBACK)
    )


def skip_reason_at_end(cycle: Cycle, step: CycleStep) -> str:
    """Why a step was not done by a cycle that is to end."""
    if step not in FORWARD:
        return "not_needed"
    last = last_step(cycle)
    if FORWARD.index(step) > FORWARD.index(last):
        automatic = last is cycle.request.until or last is CycleStep.FINALIZE
        return "not_asked_for" if automatic else AUTO_MERGE_DISABLED
    return "not_reached"


def time_limit(step: CycleStep, settings: BootstrapSettings) -> timedelta:
    """How long one attempt may take: what bounds its parts, and `step_timeout` for the rest.

    What runs a command may have to wait for its turn, as for anything outside.
    """
    watch = settings.restart_watchdog_interval * settings.restart_watchdog_retries
    healthy = settings.health_timeout + 3 * settings.bake_time
    # Successes in a row that go on when the time is up may come to their end.
    healthy += settings.health_check_retries * settings.health_check_interval
    part = {
        CycleStep.TEST: settings.test.timeout + settings.hold_timeout,
        CycleStep.CI: settings.ci.timeout + settings.hold_timeout,
        CycleStep.STAGE: settings.release.build_timeout + settings.hold_timeout,
        CycleStep.DEPLOY: settings.external.timeout,
        CycleStep.WATCHDOG: 3 * watch,
        CycleStep.HEALTH: healthy,
        CycleStep.ROLLBACK: settings.external.timeout + watch + healthy,
    }.get(step, timedelta())
    return part + settings.step_timeout


# The ways -------------------------------------------------------------------


def _onward(cycle: Cycle) -> Do | End:
    last = FORWARD.index(last_step(cycle))
    left = {status.step for status in cycle.steps if not status.state.over}
    for step in FORWARD[: last + 1]:
        if step in left:
            return Do(step=step)
    return End(outcome=CycleOutcome.SUCCEEDED)


def _back_from_release(cycle: Cycle, failure_class: FailureClass) -> Do | End:
    if not _over(cycle, CycleStep.ROLLBACK):
        return Do(step=CycleStep.ROLLBACK)
    if _rolled_back(cycle):
        if not _over(cycle, CycleStep.REVERT):
            return Do(step=CycleStep.REVERT)
        return End(outcome=CycleOutcome.ROLLED_BACK, reason=failure_class)
    if _rollback_failed(cycle):
        return End(outcome=CycleOutcome.ROLLBACK_FAILED, reason=failure_class)
    return _end_by(failure_class)


def _rollback_that_was_asked_for(cycle: Cycle) -> Do | End:
    if cycle.failure is not None and cycle.failure.step not in _BACK:
        return _end_by(cycle.failure.failure_class)
    for step in (CycleStep.PREPARE, CycleStep.ROLLBACK):
        if not _over(cycle, step):
            return Do(step=step)
    if _rolled_back(cycle):
        if not _over(cycle, CycleStep.REVERT):
            return Do(step=CycleStep.REVERT)
        return End(outcome=CycleOutcome.SUCCEEDED)
    if _rollback_failed(cycle):
        reason = cycle.step(CycleStep.ROLLBACK).reason or "rollback_failed"
        return End(outcome=CycleOutcome.ROLLBACK_FAILED, reason=reason)
    return End(outcome=CycleOutcome.FAILED, reason=cycle.result.rollback_policy_reason)


_BACK = (CycleStep.ROLLBACK, CycleStep.REVERT)


def _end_by(failure_class: FailureClass) -> End:
    return End(outcome=failure_class.outcome, reason=failure_class)


def _over(cycle: Cycle, step: CycleStep) -> bool:
    """Whether nothing more comes of the step; so it is with one that the cycle has not."""
    return all(status.state.over for status in cycle.steps if status.step is step)


def _merged(cycle: Cycle) -> bool:
    return cycle.facts.merged_here and bool(cycle.facts.merged_commit)


def _rolled_back(cycle: Cycle) -> bool:
    return cycle.result.rollback_performed and cycle.result.rollback_succeeded is True


def _rollback_failed(cycle: Cycle) -> bool:
    """Whether it went wrong, not only was denied: broken off, it counts as begun."""
    if cycle.result.rollback_performed:
        return not _rolled_back(cycle)
    return (
        cycle.step(CycleStep.ROLLBACK).state is StepState.FAILED
        and cycle.result.rollback_policy_status is not PolicyStatus.DENIED
    )

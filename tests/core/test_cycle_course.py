"""What a cycle does next, over everything that may come of its steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.core.cycles import progress
from att_server.core.cycles.course import (
    AUTO_MERGE_DISABLED,
    Do,
    End,
    cancel_due,
    last_step,
    merge_in_doubt,
    next_act,
    reached_deploy,
    skip_reason_at_end,
    time_limit,
)
from att_server.core.cycles.model import (
    FORWARD,
    Cancellation,
    Cycle,
    CycleFacts,
    CycleFailure,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleState,
    CycleStep,
    StepState,
    StepStatus,
)
from att_server.core.cycles.settings import BootstrapSettings
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
from att_server.core.failure_class import CycleOutcome, ExternalCause, FailureClass
from att_server.core.rollback_verdict import PolicyStatus

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SHA = "a" * 40
OF_ROLLBACK = (CycleStep.PREPARE, CycleStep.ROLLBACK, CycleStep.REVERT)
AGAINST_RELEASE = [each for each in FailureClass if each.triggers_rollback]


def change(**request: object) -> Cycle:
    return Cycle(
        cycle_id="01",
        project_id="web",
        request=CycleRequest(**request),  # type: ignore[arg-type]  # named by each test
        requested_by="local:1000",
        create_time=NOW,
        steps=tuple(StepStatus(step=step) for step in CycleStep),
    )


def rollback() -> Cycle:
    return replace(
        change(),
        kind=CycleKind.ROLLBACK,
        steps=tuple(StepStatus(step=step) for step in OF_ROLLBACK),
    )


def done(cycle: Cycle, *steps: CycleStep) -> Cycle:
    for step in steps:
        cycle = replace(
            cycle.with_step(replace(cycle.step(step), state=StepState.SUCCEEDED, attempt=1)),
        )
    return cycle


def upto(step: CycleStep, cycle: Cycle | None = None) -> Cycle:
    """A change that has done all steps before `step`, with the facts that these leave."""
    cycle = done(cycle or change(), *FORWARD[: FORWARD.index(step)])
    facts = cycle.facts
    if FORWARD.index(step) > FORWARD.index(CycleStep.MERGE):
        facts = replace(facts, merged_here=True, merged_commit=SHA, base_before="b" * 40)
    if FORWARD.index(step) > FORWARD.index(CycleStep.DEPLOY):
        facts = replace(facts, cut_over=True)
    return replace(cycle, facts=facts)


def failing(cycle: Cycle, step: CycleStep, failure_class: FailureClass) -> Cycle:
    begun = progress.begun(cycle, step, NOW)
    return progress.failed(begun, step, Failed(failure_class=failure_class, reason="x"), NOW)


def rolled_back(cycle: Cycle, *, performed: bool, succeeded: bool | None, denied: bool) -> Cycle:
    status = PolicyStatus.DENIED if denied else PolicyStatus.ALLOWED
    result = replace(
        cycle.result,
        rollback_performed=performed,
        rollback_succeeded=succeeded,
        rollback_policy_status=status,
        rollback_policy_reason="project_frozen" if denied else "rollback_target_validated",
    )
    return done(replace(cycle, result=result), CycleStep.ROLLBACK)


# Forward --------------------------------------------------------------------


@pytest.mark.parametrize("step", FORWARD)
def test_each_step_follows_the_one_before(step: CycleStep) -> None:
    assert next_act(upto(step)) == Do(step=step)


def test_a_change_whose_steps_are_all_done_has_succeeded() -> None:
    assert next_act(done(change(), *FORWARD)) == End(outcome=CycleOutcome.SUCCEEDED)


@pytest.mark.parametrize("until", FORWARD)
def test_a_cycle_ends_with_the_last_step_that_was_asked_for(until: CycleStep) -> None:
    cycle = done(change(until=until), *FORWARD[: FORWARD.index(until)])
    assert next_act(cycle) == Do(step=until)
    cycle = done(cycle, until)
    end = next_act(cycle)
    assert end == End(outcome=CycleOutcome.SUCCEEDED)
    assert isinstance(end, End)
    closed = progress.closed(cycle, end, NOW)
    for status in closed.steps[len(FORWARD[: FORWARD.index(until)]) + 1 : len(FORWARD)]:
        assert (status.state, status.reason) == (StepState.SKIPPED, "not_asked_for")


def test_a_cycle_that_a_person_is_to_merge_ends_before_as_a_success() -> None:
    cycle = upto(CycleStep.MERGE)
    merge = replace(
        cycle.step(CycleStep.MERGE), state=StepState.SKIPPED, reason=AUTO_MERGE_DISABLED
    )
    cycle = cycle.with_step(merge)
    end = next_act(cycle)
    assert end == End(outcome=CycleOutcome.SUCCEEDED)
    assert isinstance(end, End)
    assert last_step(cycle) is CycleStep.MERGE
    closed = progress.closed(cycle, end, NOW)
    assert closed.step(CycleStep.STAGE).reason == AUTO_MERGE_DISABLED


def test_a_commit_that_is_on_the_base_is_deployed_without_a_merge() -> None:
    cycle = upto(CycleStep.MERGE)
    merge = replace(
        cycle.step(CycleStep.MERGE), state=StepState.SKIPPED, reason="commit_is_on_base"
    )
    assert next_act(cycle.with_step(merge)) == Do(step=CycleStep.STAGE)


def test_nothing_follows_the_end_of_a_cycle() -> None:
    cycle = progress.closed(change(), End(outcome=CycleOutcome.SUCCEEDED), NOW)
    with pytest.raises(ValueError, match="has ended"):
        next_act(cycle)


# Failures -------------------------------------------------------------------


@pytest.mark.parametrize("step", FORWARD[: FORWARD.index(CycleStep.MERGE)])
@pytest.mark.parametrize("failure_class", FailureClass)
def test_a_failure_before_the_merge_ends_the_cycle_and_undoes_nothing(
    step: CycleStep, failure_class: FailureClass
) -> None:
    cycle = failing(upto(step), step, failure_class)
    assert next_act(cycle) == End(outcome=failure_class.outcome, reason=failure_class)


@pytest.mark.parametrize("step", [CycleStep.STAGE, CycleStep.DEPLOY])
@pytest.mark.parametrize(
    "failure_class",
    [FailureClass.STAGE_FAILURE, FailureClass.CANCELLED, FailureClass.DEADLINE_EXCEEDED],
)
def test_a_failure_between_merge_and_cutover_undoes_the_merge(
    step: CycleStep, failure_class: FailureClass
) -> None:
    cycle = failing(upto(step), step, failure_class)
    assert next_act(cycle) == Do(step=CycleStep.REVERT)
    cycle = done(cycle, CycleStep.REVERT)
    assert next_act(cycle) == End(outcome=failure_class.outcome, reason=failure_class)


def test_a_commit_that_others_merged_is_left_on_the_base_before_cutover() -> None:
    cycle = upto(CycleStep.STAGE)
    cycle = replace(cycle, facts=replace(cycle.facts, merged_here=False))
    cycle = failing(cycle, CycleStep.STAGE, FailureClass.STAGE_FAILURE)
    assert isinstance(next_act(cycle), End)


@pytest.mark.parametrize(
    "failure_class",
    [FailureClass.CANCELLED, FailureClass.DEADLINE_EXCEEDED, FailureClass.INTERNAL],
)
def test_a_merge_that_was_broken_off_is_looked_for_on_the_base(
    failure_class: FailureClass,
) -> None:
    cycle = failing(upto(CycleStep.MERGE), CycleStep.MERGE, failure_class)
    assert merge_in_doubt(cycle)
    assert next_act(cycle) == Do(step=CycleStep.REVERT)


def test_a_merge_that_conflicts_is_not_in_doubt() -> None:
    cycle = failing(upto(CycleStep.MERGE), CycleStep.MERGE, FailureClass.MERGE_CONFLICT)
    assert isinstance(next_act(cycle), End)


def test_a_merge_that_never_began_is_not_in_doubt() -> None:
    cancelled = Failed(failure_class=FailureClass.CANCELLED, reason="cancelled")
    cycle = progress.failed(upto(CycleStep.MERGE), CycleStep.MERGE, cancelled, NOW)
    assert isinstance(next_act(cycle), End)


@pytest.mark.parametrize("failure_class", FailureClass)
@pytest.mark.parametrize(
    "step", [CycleStep.DEPLOY, CycleStep.WATCHDOG, CycleStep.HEALTH, CycleStep.FINALIZE]
)
def test_every_failure_after_cutover_asks_the_policy(
    step: CycleStep, failure_class: FailureClass
) -> None:
    cycle = upto(step)
    cycle = replace(cycle, facts=replace(cycle.facts, cut_over=True))
    cycle = failing(cycle, step, failure_class)
    assert next_act(cycle) == Do(step=CycleStep.ROLLBACK)


@pytest.mark.parametrize("failure_class", FailureClass)
def test_a_rollback_that_succeeded_is_followed_by_the_revert(failure_class: FailureClass) -> None:
    cycle = failing(upto(CycleStep.HEALTH), CycleStep.HEALTH, failure_class)
    cycle = rolled_back(cycle, performed=True, succeeded=True, denied=False)
    assert next_act(cycle) == Do(step=CycleStep.REVERT)
    for reverted in (
        done(cycle, CycleStep.REVERT),
        failing(cycle, CycleStep.REVERT, FailureClass.INTERNAL),
    ):
        assert next_act(reverted) == End(outcome=CycleOutcome.ROLLED_BACK, reason=failure_class)


@pytest.mark.parametrize("succeeded", [False, None])
def test_a_rollback_that_failed_reverts_nothing(succeeded: bool | None) -> None:
    cycle = failing(upto(CycleStep.HEALTH), CycleStep.HEALTH, FailureClass.HEALTH_FAILURE)
    cycle = rolled_back(cycle, performed=True, succeeded=succeeded, denied=False)
    assert next_act(cycle) == End(
        outcome=CycleOutcome.ROLLBACK_FAILED, reason=FailureClass.HEALTH_FAILURE
    )


def test_a_rollback_that_broke_before_it_told_anything_has_failed() -> None:
    cycle = failing(upto(CycleStep.HEALTH), CycleStep.HEALTH, FailureClass.HEALTH_FAILURE)
    cycle = failing(cycle, CycleStep.ROLLBACK, FailureClass.INTERNAL)
    assert next_act(cycle) == End(
        outcome=CycleOutcome.ROLLBACK_FAILED, reason=FailureClass.HEALTH_FAILURE
    )


@pytest.mark.parametrize("failure_class", FailureClass)
@pytest.mark.parametrize("as_failed", [False, True])
def test_a_denied_rollback_ends_by_the_first_failure(
    failure_class: FailureClass, as_failed: bool
) -> None:
    cycle = failing(upto(CycleStep.HEALTH), CycleStep.HEALTH, failure_class)
    cycle = rolled_back(cycle, performed=False, succeeded=None, denied=True)
    if as_failed:
        cycle = failing(cycle, CycleStep.ROLLBACK, failure_class)
    assert next_act(cycle) == End(outcome=failure_class.outcome, reason=failure_class)


# A rollback that was asked for -----------------------------------------------


def test_a_rollback_that_was_asked_for_succeeds_by_rolling_back() -> None:
    cycle = rollback()
    assert next_act(cycle) == Do(step=CycleStep.PREPARE)
    cycle = done(cycle, CycleStep.PREPARE)
    assert next_act(cycle) == Do(step=CycleStep.ROLLBACK)
    cycle = rolled_back(cycle, performed=True, succeeded=True, denied=False)
    assert next_act(cycle) == Do(step=CycleStep.REVERT)
    assert next_act(done(cycle, CycleStep.REVERT)) == End(outcome=CycleOutcome.SUCCEEDED)
    failed = failing(cycle, CycleStep.REVERT, FailureClass.INTERNAL)
    assert next_act(failed) == End(outcome=CycleOutcome.SUCCEEDED)


def test_a_rollback_that_was_asked_for_and_denied_has_failed_by_the_policy() -> None:
    cycle = done(rollback(), CycleStep.PREPARE)
    cycle = rolled_back(cycle, performed=False, succeeded=None, denied=True)
    assert next_act(cycle) == End(outcome=CycleOutcome.FAILED, reason="project_frozen")


def test_a_rollback_that_was_asked_for_and_unhealthy_has_failed() -> None:
    cycle = done(rollback(), CycleStep.PREPARE)
    cycle = rolled_back(cycle, performed=True, succeeded=False, denied=False)
    end = next_act(cycle)
    assert isinstance(end, End)
    assert end.outcome is CycleOutcome.ROLLBACK_FAILED


def test_a_rollback_that_cannot_be_prepared_ends_there() -> None:
    cycle = failing(rollback(), CycleStep.PREPARE, FailureClass.PREPARE_FAILURE)
    assert next_act(cycle) == End(outcome=CycleOutcome.FAILED, reason=FailureClass.PREPARE_FAILURE)


# Cancellation ----------------------------------------------------------------


def cancelled(cycle: Cycle) -> Cycle:
    return replace(cycle, cancellation=Cancellation(principal="local:1000", time=NOW))


@pytest.mark.parametrize("step", FORWARD)
def test_a_change_can_be_cancelled_before_every_step(step: CycleStep) -> None:
    assert cancel_due(cancelled(upto(step)))
    assert not cancel_due(upto(step))


def test_a_change_that_has_done_everything_can_no_longer_be_cancelled() -> None:
    assert not cancel_due(cancelled(done(change(), *FORWARD)))


@pytest.mark.parametrize("step", [CycleStep.ROLLBACK, CycleStep.REVERT])
def test_going_back_cannot_be_cancelled(step: CycleStep) -> None:
    cycle = failing(upto(CycleStep.HEALTH), CycleStep.HEALTH, FailureClass.HEALTH_FAILURE)
    assert not cancel_due(cancelled(cycle))
    begun = progress.begun(done(rollback(), CycleStep.PREPARE), CycleStep.ROLLBACK, NOW)
    assert not cancel_due(cancelled(begun))


def test_a_rollback_can_be_cancelled_until_it_begins() -> None:
    cycle = done(rollback(), CycleStep.PREPARE)
    assert cancel_due(cancelled(rollback()))
    assert cancel_due(cancelled(cycle))


# Holds and waits -------------------------------------------------------------


def held(reason: str = "remote_unreachable") -> Held:
    return Held(reason=reason, external_cause=ExternalCause.REMOTE)


def test_a_hold_ends_with_its_own_deadline_however_often_it_is_tried() -> None:
    cycle = upto(CycleStep.PUSH)
    now = NOW
    first = None
    for attempt in itertools.count(1):
        cycle = progress.begun(cycle, CycleStep.PUSH, now)
        assert cycle.step(CycleStep.PUSH).attempt == attempt
        now += timedelta(hours=1)
        cycle = progress.ended(cycle, CycleStep.PUSH, held(), now, SECOND)
        if cycle.failure is not None:
            break
        first = first or cycle.deadline_time
        assert cycle.state is CycleState.HELD
        assert cycle.deadline_time == first
        assert cycle.wake_time is not None
    assert cycle.failure == CycleFailure(
        step=CycleStep.PUSH,
        failure_class=FailureClass.DEADLINE_EXCEEDED,
        reason="remote_unreachable",
        external_cause=ExternalCause.REMOTE,
    )
    assert cycle.step(CycleStep.PUSH).waiting == BootstrapSettings().hold_timeout


def test_what_holds_a_cycle_is_said_through_a_retry_and_not_after_it() -> None:
    cycle = progress.begun(upto(CycleStep.PUSH), CycleStep.PUSH, NOW)
    cycle = progress.ended(cycle, CycleStep.PUSH, held(), NOW, SECOND)
    cycle = progress.begun(cycle, CycleStep.PUSH, NOW + SECOND)
    assert cycle.state is CycleState.HELD
    assert cycle.step(CycleStep.PUSH).reason == "remote_unreachable"
    cycle = progress.ended(cycle, CycleStep.PUSH, Done(), NOW + SECOND, SECOND)
    assert cycle.step(CycleStep.PUSH).reason == ""


def test_what_a_held_step_waited_is_told_apart_once_it_is_done() -> None:
    cycle = progress.begun(upto(CycleStep.PUSH), CycleStep.PUSH, NOW)
    cycle = progress.ended(cycle, CycleStep.PUSH, held(), NOW, SECOND)
    cycle = progress.begun(cycle, CycleStep.PUSH, NOW + SECOND)
    assert cycle.state is CycleState.HELD
    cycle = progress.ended(cycle, CycleStep.PUSH, Done(), NOW + 2 * SECOND, SECOND)
    status = cycle.step(CycleStep.PUSH)
    assert (cycle.state, cycle.wake_time, cycle.deadline_time) == (CycleState.RUNNING, None, None)
    assert (status.waiting, status.waiting_since) == (2 * SECOND, None)
    assert status.start_time == NOW


def test_another_hold_gets_a_deadline_of_its_own() -> None:
    cycle = progress.begun(upto(CycleStep.PUSH), CycleStep.PUSH, NOW)
    cycle = progress.ended(cycle, CycleStep.PUSH, held(), NOW, SECOND)
    later = NOW + timedelta(hours=23)
    cycle = progress.ended(
        progress.begun(cycle, CycleStep.PUSH, later), CycleStep.PUSH, Done(), later, SECOND
    )
    cycle = progress.begun(cycle, CycleStep.PULL_REQUEST, later)
    cycle = progress.ended(cycle, CycleStep.PULL_REQUEST, held(), later, SECOND)
    assert cycle.deadline_time == later + BootstrapSettings().hold_timeout


def test_a_wait_for_a_decision_shows_until_when() -> None:
    from att_server.core.cycles.model import ApprovalRequest

    asked = ApprovalRequest(
        commit_sha=SHA, plan_digest="d", expire_time=NOW + SECOND, reason="required_by_settings"
    )
    cycle = progress.begun(upto(CycleStep.APPROVAL), CycleStep.APPROVAL, NOW)
    end = Waiting(until=NOW + SECOND, reason="approval", deadline=NOW + SECOND, approval=asked)
    cycle = progress.ended(cycle, CycleStep.APPROVAL, end, NOW, SECOND)
    assert cycle.state is CycleState.AWAITING_APPROVAL
    assert (cycle.approval, cycle.deadline_time) == (asked, NOW + SECOND)
    assert cycle.current_step is CycleStep.APPROVAL


def test_going_back_to_a_step_repeats_all_up_to_the_present_one() -> None:
    cycle = progress.begun(upto(CycleStep.MERGE), CycleStep.MERGE, NOW)
    cycle = progress.ended(
        cycle, CycleStep.MERGE, Again(step=CycleStep.TEST, reason="base_moved"), NOW, SECOND
    )
    assert next_act(cycle) == Do(step=CycleStep.TEST)
    cycle = progress.begun(cycle, CycleStep.TEST, NOW)
    assert cycle.step(CycleStep.TEST).attempt == 2
    assert cycle.current_step is CycleStep.TEST
    assert cycle.step(CycleStep.EDIT).state is StepState.SUCCEEDED


def test_a_step_cannot_send_a_cycle_ahead() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        progress.checked(
            upto(CycleStep.TEST), CycleStep.TEST, Again(step=CycleStep.MERGE, reason="x")
        )


def test_a_cycle_has_its_hands_on_the_app_from_deploy_on() -> None:
    assert not reached_deploy(upto(CycleStep.DEPLOY))
    assert reached_deploy(progress.begun(upto(CycleStep.DEPLOY), CycleStep.DEPLOY, NOW))
    assert reached_deploy(upto(CycleStep.HEALTH))


@pytest.mark.parametrize("step", CycleStep)
def test_every_step_has_an_end(step: CycleStep) -> None:
    limit = time_limit(step, BootstrapSettings())
    assert BootstrapSettings().step_timeout <= limit < timedelta(days=2)


@pytest.mark.parametrize("step", CycleStep)
def test_every_step_that_is_not_done_says_why(step: CycleStep) -> None:
    assert skip_reason_at_end(change(), step)


# Everything at once -----------------------------------------------------------


LIMIT = 400
HOLDS = 5


def _leaves(
    cycle: Cycle, step: CycleStep, draw: Callable[[st.SearchStrategy[bool]], bool]
) -> Leaves:
    """What a step of this kind may leave when it is done."""
    facts: CycleFacts = cycle.facts
    result: CycleResult = cycle.result
    if step is CycleStep.MERGE:
        facts = replace(facts, merged_commit=SHA, merged_here=draw(st.booleans()))
    if step is CycleStep.DEPLOY:
        facts = replace(facts, cut_over=draw(st.booleans()))
    if step is CycleStep.ROLLBACK:
        performed = draw(st.booleans())
        result = replace(
            result,
            rollback_performed=performed,
            rollback_succeeded=draw(st.booleans()) if performed else None,
            rollback_policy_status=PolicyStatus.ALLOWED if performed else PolicyStatus.DENIED,
        )
    return Leaves(facts=facts, result=result)


@given(data=st.data())
@settings(max_examples=400)
def test_whatever_happens_a_cycle_ends_and_does_nothing_twice_or_without_cause(
    data: st.DataObject,
) -> None:
    until = data.draw(st.sampled_from(FORWARD))
    cycle = data.draw(st.sampled_from([change(until=until), rollback()]))
    now, holds, returns = NOW, 0, 0
    done_steps: list[CycleStep] = []
    for _ in range(LIMIT):
        if data.draw(st.integers(0, 30)) == 0:
            cycle = cancelled(cycle)
        act = next_act(cycle)
        if isinstance(act, End):
            break
        now += SECOND
        step = act.step
        assert step not in done_steps, "a step is not done again after it succeeded"
        assert step in [status.step for status in cycle.steps]
        if cycle.kind is CycleKind.CHANGE:
            if step is CycleStep.ROLLBACK:
                assert cycle.facts.cut_over
                assert cycle.failure is not None
            if step is CycleStep.REVERT and cycle.facts.cut_over:
                assert cycle.result.rollback_succeeded
            if step in FORWARD:
                assert cycle.failure is None
                assert FORWARD.index(step) <= FORWARD.index(until)
        if cancel_due(cycle):
            by_hand = Failed(failure_class=FailureClass.CANCELLED, reason="cancelled")
            cycle = progress.failed(cycle, step, by_hand, now)
            assert cycle.failure is not None
            continue
        cycle = progress.begun(cycle, step, now)
        if data.draw(st.booleans(), label="killed"):
            continue  # Another engine finds it as it is now.
        kind = data.draw(st.sampled_from([Done, Done, Done, Skipped, Failed, Held, Waiting, Again]))
        end: StepEnd
        if kind is Held and holds < HOLDS:
            holds, end = holds + 1, held()
        elif kind is Waiting and holds < HOLDS:
            holds, end = holds + 1, Waiting(until=now, reason="poll")
        elif kind is Again and returns < 3 and step is CycleStep.MERGE:
            returns, end = returns + 1, Again(step=CycleStep.TEST, reason="base_moved")
            done_steps = [each for each in done_steps if each < CycleStep.TEST]
            order = [status.step for status in cycle.steps]
            again = order[order.index(CycleStep.TEST) : order.index(step) + 1]
            done_steps = [each for each in done_steps if each not in again]
        elif kind is Failed:
            failure_class = data.draw(st.sampled_from(list(FailureClass)))
            leaves = _leaves(cycle, step, data.draw)
            end = Failed(failure_class=failure_class, reason="x", leaves=leaves)
        elif kind is Skipped:
            end = Skipped(reason="not_configured")
        else:
            end = Done(leaves=_leaves(cycle, step, data.draw))
        cycle = progress.ended(cycle, step, end, now, SECOND)
        if isinstance(end, Done | Skipped | Failed):
            done_steps.append(step)
            assert cycle.step(step).state.over
    assert isinstance(act, End), "a cycle ends"
    closed = progress.closed(cycle, act, now)
    assert closed.ended
    assert closed.outcome is act.outcome
    assert all(status.state.over for status in closed.steps)
    assert all(status.reason for status in closed.steps if status.state is StepState.SKIPPED)
    assert (closed.wake_time, closed.deadline_time, closed.approval) == (None, None, None)
    assert (
        closed.facts.cut_over
        or not closed.result.rollback_performed
        or (closed.kind is CycleKind.ROLLBACK)
    )
    if closed.outcome is CycleOutcome.SUCCEEDED and closed.kind is CycleKind.CHANGE:
        assert closed.failure is None

"""The engine carries every cycle to its end, whatever happens to it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from att_server.core.cycles.forge import ForgeUnavailable
from att_server.core.cycles.model import (
    ApprovalRequest,
    Cycle,
    CycleKind,
    CycleState,
    CycleStep,
    StepState,
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
    StepWork,
    Waiting,
)
from att_server.core.cycles.worker import CLEANUP_TRIES
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import CycleOutcome, ExternalCause, FailureClass
from att_server.core.model import Event, ProjectMode
from att_server.core.repository import RepositoryError, RepositoryFailure
from att_server.core.rollback_verdict import PolicyStatus
from tests.core.scripted_cycles import SECOND, SHA, EngineBench, as_usual, forever, turns

FULL = AttError(Reason.STORAGE_FULL, "The disk is full.")
UNREACHABLE = RepositoryError(RepositoryFailure.REMOTE_UNREACHABLE, "No route to host.")
FORWARD_STEPS = tuple(CycleStep)[:15]


@pytest.fixture
def bench() -> EngineBench:
    return EngineBench()


def unhealthy() -> Failed:
    return Failed(failure_class=FailureClass.HEALTH_FAILURE, reason="http_status")


# Forward --------------------------------------------------------------------


async def test_a_change_whose_steps_go_well_succeeds(bench: EngineBench) -> None:
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.SUCCEEDED, "")
    assert [bench.step(step).attempts for step in FORWARD_STEPS] == [1] * 15
    assert bench.step(CycleStep.ROLLBACK).attempts == 0
    assert all(cycle.step(step).attempt == 1 for step in FORWARD_STEPS)
    assert cycle.step(CycleStep.ROLLBACK).state is StepState.SKIPPED
    assert bench.cleanup.cleaned == [cycle.cycle_id]
    assert cycle.facts.cleaned_up
    assert [event.event_type for event in await bench.events()] == ["cycle.ended"]


async def test_a_step_that_is_not_configured_is_skipped_with_the_reason(
    bench: EngineBench,
) -> None:
    bench.step(CycleStep.CI).skipped = "not_configured"
    bench.step(CycleStep.TEST).script = [Skipped(reason="not_configured")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    for step in (CycleStep.CI, CycleStep.TEST):
        status = cycle.step(step)
        assert (status.state, status.reason) == (StepState.SKIPPED, "not_configured")
    assert bench.step(CycleStep.CI).attempts == 0
    assert cycle.outcome is CycleOutcome.SUCCEEDED


async def test_steps_see_what_the_ones_before_left(bench: EngineBench) -> None:
    settings = BootstrapSettings(bake_time=SECOND)

    async def prepare(work: StepWork) -> StepEnd:
        assert work.settings == BootstrapSettings()
        return Done(leaves=Leaves(facts=replace(work.cycle.facts, settings=settings)))

    bench.step(CycleStep.PREPARE).script = [prepare]
    async with bench.serving():
        await bench.end(await bench.start())
    assert bench.step(CycleStep.BRANCH).works[0].settings == settings


async def test_what_a_step_notes_is_stored_before_it_goes_on(bench: EngineBench) -> None:
    seen: list[str] = []

    async def push(work: StepWork) -> StepEnd:
        event = Event(event_type="git.push", time=work.now)
        await work.note(Leaves(evidence={"noted": "yes"}, log_tail=b"half", events=(event,)))
        stored = (await bench.cycle(work.cycle.cycle_id)).step(CycleStep.PUSH)
        seen.append(stored.evidence["noted"])
        return Done(leaves=Leaves(evidence={"done": "yes"}))

    bench.step(CycleStep.PUSH).script = [push]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert seen == ["yes"]
    assert cycle.step(CycleStep.PUSH).evidence == {"noted": "yes", "done": "yes"}
    assert cycle.step(CycleStep.PUSH).log_tail == b"half"
    (event,) = await bench.events("git.push")
    assert (event.cycle_id, event.project_id, event.phase, event.principal) == (
        cycle.cycle_id,
        "web",
        "push",
        "local:1000",
    )


async def test_a_base_that_moved_has_the_steps_from_test_done_again(bench: EngineBench) -> None:
    bench.step(CycleStep.MERGE).script = [Again(step=CycleStep.TEST, reason="base_moved")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert bench.step(CycleStep.TEST).attempts == cycle.step(CycleStep.TEST).attempt == 2
    assert bench.step(CycleStep.EDIT).attempts == 1


# Failures -------------------------------------------------------------------


async def test_a_failure_before_the_merge_ends_the_cycle_with_class_and_reason(
    bench: EngineBench,
) -> None:
    bench.step(CycleStep.TEST).script = [
        Failed(failure_class=FailureClass.TEST_FAILURE, reason="exit_code")
    ]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.FAILED, "test_failure")
    assert cycle.failure is not None
    assert cycle.failure.reason == cycle.step(CycleStep.TEST).reason == "exit_code"
    assert bench.step(CycleStep.COMMIT).attempts == bench.step(CycleStep.REVERT).attempts == 0
    (error,) = await bench.events("error")
    assert (error.phase, error.reason) == ("test", "test_failure")
    (ended,) = await bench.events("cycle.ended")
    assert (ended.reason, ended.attributes["outcome"]) == ("test_failure", "failed")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (RepositoryError(RepositoryFailure.REMOTE_REFUSED, "Refused."), "remote_refused"),
        (AttError(Reason.SETTINGS_INVALID, "Not valid."), "settings_invalid"),
    ],
)
async def test_what_a_step_raises_is_a_failure_of_its_class(
    bench: EngineBench, raised: Exception, reason: str
) -> None:
    bench.step(CycleStep.PUSH).script = [raised]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == (
        FailureClass.PUSH_FAILURE,
        reason,
    )
    assert cycle.step(CycleStep.PUSH).evidence["error"] == str(raised)


async def test_a_defect_of_a_step_is_internal(
    bench: EngineBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.step(CycleStep.PUSH).script = [KeyError("x")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == (FailureClass.INTERNAL, "defect")
    assert "defect in push" in caplog.text


async def test_a_step_that_sends_the_cycle_ahead_is_a_defect(bench: EngineBench) -> None:
    bench.step(CycleStep.TEST).script = [Again(step=CycleStep.MERGE, reason="x")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.outcome_reason == FailureClass.INTERNAL


async def test_a_failure_between_merge_and_cutover_undoes_the_merge(bench: EngineBench) -> None:
    bench.step(CycleStep.STAGE).script = [
        Failed(failure_class=FailureClass.STAGE_FAILURE, reason="exit_code")
    ]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.FAILED, "stage_failure")
    assert bench.step(CycleStep.REVERT).attempts == 1
    assert bench.step(CycleStep.ROLLBACK).attempts == 0


async def test_an_unhealthy_release_is_rolled_back_and_reverted(bench: EngineBench) -> None:
    bench.step(CycleStep.HEALTH).script = [unhealthy()]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.ROLLED_BACK, "health_failure")
    assert bench.step(CycleStep.ROLLBACK).attempts == bench.step(CycleStep.REVERT).attempts == 1
    assert len(await bench.events("error")) == 1
    assert bench.deployments.held == set()


async def test_a_rollback_that_fails_keeps_the_change_and_makes_the_project_safe(
    bench: EngineBench,
) -> None:
    bench.step(CycleStep.HEALTH).script = [unhealthy()]
    bench.step(CycleStep.ROLLBACK).script = [KeyError("x")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.outcome is CycleOutcome.ROLLBACK_FAILED
    assert bench.step(CycleStep.REVERT).attempts == 0
    project = bench.deployments.project("web")
    assert (project.mode, project.mode_reason) == (ProjectMode.SAFE, "rollback_failed")


async def test_a_denied_rollback_changes_no_mode_by_itself(bench: EngineBench) -> None:
    async def denied(work: StepWork) -> StepEnd:
        result = replace(
            work.cycle.result,
            rollback_policy_status=PolicyStatus.DENIED,
            rollback_policy_reason="rollback_disabled_for_health_failure",
        )
        return Failed(
            failure_class=FailureClass.HEALTH_FAILURE,
            reason=result.rollback_policy_reason,
            leaves=Leaves(result=result),
        )

    bench.step(CycleStep.HEALTH).script = [unhealthy()]
    bench.step(CycleStep.ROLLBACK).script = [denied]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.FAILED, "health_failure")
    assert bench.deployments.project("web").mode is ProjectMode.NORMAL


async def test_a_revert_that_fails_blocks_the_project_and_changes_no_outcome(
    bench: EngineBench,
) -> None:
    bench.step(CycleStep.HEALTH).script = [unhealthy()]
    bench.step(CycleStep.REVERT).script = [KeyError("x")]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.outcome is CycleOutcome.ROLLED_BACK
    project = bench.deployments.project("web")
    assert (project.mode, project.mode_reason) == (ProjectMode.SAFE, "base_contains_bad_change")


async def test_a_project_that_is_frozen_stays_frozen(bench: EngineBench) -> None:
    async def freeze(work: StepWork) -> StepEnd:
        await bench.deployments.set_mode("web", ProjectMode.FROZEN, "audit")
        return unhealthy()

    bench.step(CycleStep.HEALTH).script = [freeze]
    bench.step(CycleStep.REVERT).script = [KeyError("x")]
    async with bench.serving():
        await bench.end(await bench.start())
    assert bench.deployments.project("web").mode is ProjectMode.FROZEN


# A rollback that was asked for -----------------------------------------------


async def test_a_rollback_that_was_asked_for_does_three_steps(bench: EngineBench) -> None:
    steps = (CycleStep.PREPARE, CycleStep.ROLLBACK, CycleStep.REVERT)
    async with bench.serving():
        cycle_id = await bench.create(kind=CycleKind.ROLLBACK, steps=steps)
        await bench.engine.begin(cycle_id)
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert [status.state for status in cycle.steps] == [StepState.SUCCEEDED] * 3
    assert bench.step(CycleStep.MERGE).attempts == 0


# Holds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (UNREACHABLE, ExternalCause.REMOTE),
        (ForgeUnavailable("rate_limited", "Too many requests."), ExternalCause.FORGE),
        (FULL, None),
        (AttError(Reason.SUPERVISOR_UNREACHABLE, "It is silent."), None),
        (RepositoryError(RepositoryFailure.LOCKED, "Somebody holds it."), None),
    ],
)
async def test_what_fails_outside_holds_the_cycle_until_it_works_again(
    bench: EngineBench, raised: Exception, cause: ExternalCause | None
) -> None:
    bench.step(CycleStep.PUSH).script = [raised] * 3
    async with bench.serving():
        cycle_id = await bench.start()
        held = await bench.held(cycle_id)
        assert held.step(CycleStep.PUSH).state is StepState.WAITING
        assert held.wake_time == bench.clock.now() + SECOND
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert cycle.step(CycleStep.PUSH).attempt == 4
    assert cycle.step(CycleStep.PUSH).waiting >= 7 * SECOND
    (event,) = await bench.events("cycle.held")
    assert event.attributes.get("external_cause") == cause
    assert await bench.events("error") == []


async def test_waits_between_tries_double_up_to_a_minute(bench: EngineBench) -> None:
    bench.step(CycleStep.PUSH).script = [UNREACHABLE] * 9
    waits: list[timedelta] = []
    async with bench.serving():
        cycle_id = await bench.start()
        for attempt in range(1, 10):
            held = await bench.until(
                cycle_id,
                lambda cycle, attempt=attempt: (
                    cycle.step(CycleStep.PUSH).attempt == attempt  # type: ignore[misc]  # bound now
                    and cycle.wake_time is not None
                ),
            )
            assert held.wake_time is not None
            waits.append(held.wake_time - bench.clock.now())
            # The lease is renewed beside it.
            await bench.clock.wait_for_sleepers(2)
            bench.clock.advance(waits[-1])
    assert [wait / SECOND for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_an_outage_that_lasts_too_long_is_a_failure_with_its_cause(
    bench: EngineBench,
) -> None:
    settings = BootstrapSettings(hold_timeout=timedelta(minutes=5))

    async def prepare(work: StepWork) -> StepEnd:
        return Done(leaves=Leaves(facts=replace(work.cycle.facts, settings=settings)))

    bench.step(CycleStep.PREPARE).script = [prepare]
    bench.step(CycleStep.PUSH).script = [UNREACHABLE] * 100
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.FAILED, "deadline_exceeded")
    assert cycle.failure is not None
    assert (cycle.failure.reason, cycle.failure.external_cause) == (
        "remote_unreachable",
        ExternalCause.REMOTE,
    )
    (error,) = await bench.events("error")
    assert error.attributes["external_cause"] == "remote"


async def test_a_held_cycle_that_can_be_decided_looks_at_the_decision_at_once(
    bench: EngineBench,
) -> None:
    asked = ApprovalRequest(
        commit_sha=SHA,
        plan_digest="d",
        expire_time=bench.clock.now() + timedelta(days=1),
        reason="inconclusive",
    )

    async def health(work: StepWork) -> StepEnd:
        if work.cycle.decision is None:
            return Held(reason="inconclusive", decidable=asked)
        return Done()

    bench.step(CycleStep.HEALTH).script = [health] * 2
    async with bench.serving():
        cycle_id = await bench.start()
        held = await bench.held(cycle_id)
        assert held.approval == asked
        before = bench.clock.now()
        await bench.decide(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert bench.clock.now() == before


# Waits ----------------------------------------------------------------------


def approval(bench: EngineBench) -> StepEnd:
    expire = bench.clock.now() + timedelta(hours=1)
    asked = ApprovalRequest(commit_sha=SHA, plan_digest="d", expire_time=expire, reason="required")
    return Waiting(until=expire, reason="required", deadline=expire, approval=asked)


async def test_a_cycle_awaits_a_decision_and_goes_on_with_it(bench: EngineBench) -> None:
    bench.step(CycleStep.APPROVAL).script = [approval(bench)]
    async with bench.serving():
        cycle_id = await bench.start()
        waiting = await bench.until(
            cycle_id, lambda cycle: cycle.state is CycleState.AWAITING_APPROVAL
        )
        assert waiting.approval is not None
        assert waiting.current_step is CycleStep.APPROVAL
        await bench.decide(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert cycle.step(CycleStep.APPROVAL).attempt == 1
    assert bench.step(CycleStep.APPROVAL).attempts == 2
    decision = bench.step(CycleStep.APPROVAL).works[1].cycle.decision
    assert decision is not None
    assert decision.approved


async def test_a_decision_survives_a_restart_of_the_server(bench: EngineBench) -> None:
    bench.step(CycleStep.APPROVAL).script = [approval(bench)]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.until(cycle_id, lambda cycle: cycle.state is CycleState.AWAITING_APPROVAL)
    await bench.decide(cycle_id)
    async with bench.serving():
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.SUCCEEDED


async def test_a_poll_is_looked_at_again_in_time_over_a_restart(bench: EngineBench) -> None:
    until = bench.clock.now() + timedelta(seconds=30)
    bench.step(CycleStep.CI).script = [Waiting(until=until, reason="pending")]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.until(cycle_id, lambda cycle: cycle.wake_time == until)
    async with bench.serving():
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert bench.clock.now() >= until
    assert bench.step(CycleStep.CI).attempts == 2
    assert cycle.step(CycleStep.CI).attempt == 1
    assert cycle.step(CycleStep.CI).waiting >= timedelta(seconds=30)


async def test_a_step_that_hangs_is_ended(bench: EngineBench) -> None:
    bench.step(CycleStep.PUSH).script = [forever]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == (
        FailureClass.DEADLINE_EXCEEDED,
        "step_timed_out",
    )


# Cancellation ----------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [CycleStep.PREPARE, CycleStep.TEST, CycleStep.CI, CycleStep.APPROVAL]
)
async def test_a_cancellation_interrupts_the_step_and_cleans_up(
    bench: EngineBench, step: CycleStep
) -> None:
    bench.step(step).script = [forever]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(step).begun.wait()
        await bench.cancel(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.CANCELLED, "cancelled")
    assert cycle.step(step).state is StepState.FAILED
    assert bench.cleanup.cleaned == [cycle_id]
    assert await bench.events("error") == []


async def test_a_step_that_cannot_be_interrupted_ends_before_the_cycle_is_cancelled(
    bench: EngineBench,
) -> None:
    go_on = asyncio.Event()

    async def merge(work: StepWork) -> StepEnd:
        await go_on.wait()
        return Done(leaves=as_usual(work))

    bench.step(CycleStep.MERGE).script = [merge]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.MERGE).begun.wait()
        await bench.cancel(cycle_id)
        await turns(50)
        assert not (await bench.cycle(cycle_id)).ended
        go_on.set()
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.CANCELLED
    assert cycle.step(CycleStep.MERGE).state is StepState.SUCCEEDED
    assert bench.step(CycleStep.STAGE).attempts == 0
    assert bench.step(CycleStep.REVERT).attempts == 1


async def test_cancelling_a_held_cycle_needs_no_end_of_the_outage(bench: EngineBench) -> None:
    bench.step(CycleStep.PUSH).script = [UNREACHABLE] * 100
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.held(cycle_id)
        await bench.cancel(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.CANCELLED


async def test_cancelling_a_merge_that_is_in_doubt_looks_at_the_base(bench: EngineBench) -> None:
    bench.step(CycleStep.MERGE).script = [UNREACHABLE] * 100
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.held(cycle_id)
        await bench.cancel(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.CANCELLED
    assert bench.step(CycleStep.REVERT).attempts == 1


async def test_cancelling_after_the_cutover_rolls_back(bench: EngineBench) -> None:
    bench.step(CycleStep.HEALTH).script = [forever]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.HEALTH).begun.wait()
        await bench.cancel(cycle_id)
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.ROLLED_BACK, "cancelled")
    assert bench.step(CycleStep.ROLLBACK).attempts == 1


async def test_going_back_is_not_cancelled(bench: EngineBench) -> None:
    go_on = asyncio.Event()

    async def rollback(work: StepWork) -> StepEnd:
        await go_on.wait()
        return Done(leaves=as_usual(work))

    bench.step(CycleStep.HEALTH).script = [unhealthy()]
    bench.step(CycleStep.ROLLBACK).script = [rollback]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.ROLLBACK).begun.wait()
        await bench.cancel(cycle_id)
        go_on.set()
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert (cycle.outcome, cycle.outcome_reason) == (CycleOutcome.ROLLED_BACK, "health_failure")


# Servers that end ------------------------------------------------------------


@pytest.mark.parametrize("step", FORWARD_STEPS)
async def test_a_server_that_ends_leaves_the_step_to_the_next_one(
    bench: EngineBench, step: CycleStep
) -> None:
    bench.step(step).script = [forever]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(step).begun.wait()
    left = await bench.cycle(cycle_id)
    assert left.step(step).state is StepState.RUNNING
    assert left.failure is None
    async with bench.serving():
        cycle = await bench.until(cycle_id, lambda cycle: cycle.ended)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert cycle.step(step).attempt == 2
    others = [each for each in FORWARD_STEPS if each is not step]
    assert [bench.step(each).attempts for each in others] == [1] * 14


async def test_projects_of_cycles_that_deploy_are_held_before_apps_are_looked_after(
    bench: EngineBench,
) -> None:
    bench.step(CycleStep.HEALTH).script = [forever]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.HEALTH).begun.wait()
        early = await bench.start("api")
        await bench.until(early, lambda cycle: cycle.current_step is CycleStep.HEALTH)
    bench.deployments.held.clear()
    bench.step(CycleStep.HEALTH).script = [forever]
    async with bench.serving():
        assert "web" in bench.deployments.held
        assert (await bench.cycle(cycle_id)).state is CycleState.RUNNING


async def test_a_cycle_that_was_stored_and_not_begun_is_found(bench: EngineBench) -> None:
    async with bench.serving():
        cycle_id = await bench.create()
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED


async def test_a_full_disk_delays_a_cycle_and_loses_nothing(bench: EngineBench) -> None:
    async def test(work: StepWork) -> StepEnd:
        bench.fail_writes(FULL)
        return Done()

    bench.step(CycleStep.TEST).script = [test]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.TEST).begun.wait()
        for _ in range(20):
            bench.clock.advance(SECOND)
            await turns(20)
        assert (await bench.cycle(cycle_id)).step(CycleStep.TEST).state is StepState.RUNNING
        bench.fail_writes(None)
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert bench.step(CycleStep.TEST).attempts == 1


async def test_a_defect_in_the_journal_is_survived(
    bench: EngineBench, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(work: StepWork) -> StepEnd:
        bench.fail_writes(AttError(Reason.INTERNAL, "broken"))
        return Done()

    bench.step(CycleStep.TEST).script = [test]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.TEST).begun.wait()
        while "is tried again" not in caplog.text:
            await asyncio.sleep(0)
        bench.fail_writes(None)
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED


# Leases ----------------------------------------------------------------------


async def test_an_engine_whose_cycle_was_taken_stops_without_a_trace(bench: EngineBench) -> None:
    go_on = asyncio.Event()

    async def test(work: StepWork) -> StepEnd:
        await go_on.wait()
        return Done()

    bench.step(CycleStep.TEST).script = [test]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.TEST).begun.wait()
        other = await bench.journal.take(cycle_id, "other", lease=timedelta(hours=1), force=True)
        go_on.set()
        await turns(100)
        cycle = await bench.cycle(cycle_id)
    assert other is not None
    assert (cycle.revision, cycle.failure) == (other.revision, None)
    assert bench.step(CycleStep.COMMIT).attempts == 0


async def test_a_step_may_not_act_once_the_cycle_was_taken(bench: EngineBench) -> None:
    acted: list[str] = []

    async def merge(work: StepWork) -> StepEnd:
        await bench.journal.take(work.cycle.cycle_id, "other", lease=timedelta(hours=1), force=True)
        await work.note(Leaves())
        acted.append("merged")
        return Done()

    bench.step(CycleStep.MERGE).script = [merge]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.MERGE).begun.wait()
        await turns(100)
    assert acted == []
    assert (await bench.cycle(cycle_id)).failure is None


async def test_a_lost_lease_ends_the_step_that_is_under_way(bench: EngineBench) -> None:
    ended: list[bool] = []

    async def test(work: StepWork) -> StepEnd:
        try:
            return await forever(work)
        finally:
            ended.append(True)

    bench.step(CycleStep.TEST).script = [test]
    async with bench.serving():
        cycle_id = await bench.start()
        await bench.step(CycleStep.TEST).begun.wait()
        await bench.journal.take(cycle_id, "other", lease=timedelta(hours=1), force=True)
        await bench.clock.wait_for_sleepers(2)
        bench.clock.advance(5 * SECOND)
        await turns(100)
        assert ended == [True]
        cycle = await bench.cycle(cycle_id)
    assert cycle.failure is None
    assert cycle.step(CycleStep.TEST).state is StepState.RUNNING


async def test_an_engine_takes_over_what_another_left_when_its_lease_has_run_out(
    bench: EngineBench,
) -> None:
    cycle_id = await bench.create()
    await bench.journal.take(cycle_id, "gone", lease=timedelta(seconds=15), force=False)
    async with bench.serving(alone=False):
        assert bench.step(CycleStep.PREPARE).attempts == 0
        cycle = await bench.end(cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert bench.clock.now() - cycle.create_time >= timedelta(seconds=15)


# Ends -----------------------------------------------------------------------


async def test_a_cleanup_that_fails_is_tried_again(bench: EngineBench) -> None:
    bench.cleanup.problems = [UNREACHABLE, UNREACHABLE]
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.facts.cleaned_up
    assert bench.cleanup.cleaned == [cycle.cycle_id]


async def test_what_cannot_be_cleaned_up_is_told_and_keeps_no_cycle_from_its_end(
    bench: EngineBench,
) -> None:
    bench.cleanup.problems = [UNREACHABLE] * CLEANUP_TRIES
    async with bench.serving():
        cycle = await bench.end(await bench.start())
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert not cycle.facts.cleaned_up
    (error,) = await bench.events("error")
    assert (error.phase, error.message) == ("cleanup", "No route to host.")


async def test_many_projects_cycle_at_once(bench: EngineBench) -> None:
    together = asyncio.Barrier(50)

    async def meet(work: StepWork) -> StepEnd:
        await together.wait()
        return Done()

    bench.step(CycleStep.TEST).script = [meet] * 50
    async with bench.serving():
        cycles = [await bench.start(f"web-{number}") for number in range(50)]
        ended: list[Cycle] = [await bench.end(cycle_id) for cycle_id in cycles]
    assert {cycle.outcome for cycle in ended} == {CycleOutcome.SUCCEEDED}

"""HEALTH: what makes a release healthy, what does not, and what nobody can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.core.cycles.health_trial import (
    FAILURES_IN_A_ROW,
    FLAPPING,
    Health,
    HealthTrial,
    HealthVerdict,
)
from att_server.core.cycles.model import CycleStep, Decision, HealthStatus
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Again, Done, Failed, Held
from att_server.core.cycles.steps.health import DISMISSED, INCONCLUSIVE, HealthStep
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import FailureClass
from att_server.core.model import ProbeResult
from att_server.core.settings import HttpProbe, Probe
from att_server.testing import FakeClock
from tests.core.step_bench import NEW, PROJECT, Bench

SECOND = timedelta(seconds=1)
OK, BAD = "http_ok", "http_status"
UNMADE = "port_owned_by_other_process"
PROBE = Probe(kind=HttpProbe(url="http://127.0.0.1:8000/health"))
SETTINGS = BootstrapSettings(health_check=PROBE, health_check_interval=5 * SECOND)
BAKED = replace(SETTINGS, bake_time=20 * SECOND)


def step(bench: Bench) -> HealthStep:
    return HealthStep(deployments=bench.deployments, clock=bench.clock)


async def deployed(settings: BootstrapSettings = SETTINGS, *answers: str | AttError) -> Bench:
    bench = Bench(settings)
    if answers:
        bench.deployments.answers(NEW, *answers)
    await bench.deploy()
    return bench


# Healthy --------------------------------------------------------------------


async def test_a_release_that_answers_at_once_is_healthy_at_once() -> None:
    bench = await deployed(SETTINGS, OK)
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.clock.now() == began
    assert bench.cycle.result.health_status is HealthStatus.HEALTHY
    assert bench.deployments.checked == [PROBE]
    (event,) = bench.events
    assert (event.event_type, event.reason) == ("health", OK)


async def test_without_a_check_the_readiness_probe_or_the_process_decides() -> None:
    bench = await deployed(BootstrapSettings())
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.deployments.checked == [None]


async def test_as_many_successes_in_a_row_as_are_asked_for_are_needed() -> None:
    settings = replace(SETTINGS, health_check_retries=3)
    bench = await deployed(settings, OK, OK, BAD, OK)
    assert isinstance(await bench.run(step(bench)), Done)
    assert len(bench.deployments.checked) == 6


async def test_a_slow_start_is_waited_for() -> None:
    bench = await deployed(SETTINGS, *["tcp_refused"] * 8, OK)
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.cycle.step(CycleStep.HEALTH).evidence["checks"] == "9"


async def test_a_quick_start_costs_no_whole_interval() -> None:
    bench = await deployed(SETTINGS, "tcp_refused", "tcp_refused", OK)
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.clock.now() - began < SECOND


async def test_successes_that_go_on_when_the_time_is_up_may_come_to_their_end() -> None:
    settings = replace(SETTINGS, health_check_retries=10, health_timeout=30 * SECOND)
    bench = await deployed(settings, OK)
    assert isinstance(await bench.run(step(bench)), Done)


# Unhealthy ------------------------------------------------------------------


async def test_what_is_not_healthy_in_its_time_is_unhealthy_for_the_last_reason() -> None:
    bench = await deployed(SETTINGS, "tcp_refused", BAD)
    bench.deployments.lines[PROJECT] = [b"cannot reach the database"]
    began = bench.clock.now()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert (end.failure_class, end.reason) == (FailureClass.HEALTH_FAILURE, BAD)
    assert end.leaves.log_tail == b"cannot reach the database\n"
    assert 25 * SECOND < bench.clock.now() - began <= 36 * SECOND
    assert bench.cycle.result.health_status is HealthStatus.UNHEALTHY


async def test_a_process_that_exits_between_two_checks_is_noticed_at_once() -> None:
    bench = Bench(SETTINGS)
    bench.deployments.answers(NEW, BAD)
    bench.deployments.exits(NEW, after=timedelta(seconds=2.5))
    await bench.deploy()
    began = bench.clock.now()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert (end.reason, end.leaves.evidence["exit_code"]) == ("process_exited", "1")
    assert bench.clock.now() - began < 3 * SECOND


async def test_an_app_that_restarts_while_it_bakes_is_unhealthy() -> None:
    bench = Bench(BAKED)
    bench.deployments.answers(NEW, OK)
    bench.deployments.exits(NEW, after=12 * SECOND, restarts=True)
    await bench.deploy()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "process_exited"


# Baking ---------------------------------------------------------------------


async def test_it_bakes_with_checks_going_on_for_all_of_the_bake_time() -> None:
    bench = await deployed(BAKED, OK)
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert 20 * SECOND <= bench.clock.now() - began < 21 * SECOND
    assert len(bench.deployments.checked) >= 5
    assert bench.cycle.facts.healthy_since == began


async def test_three_failures_in_a_row_while_it_bakes_are_unhealthy() -> None:
    bench = await deployed(BAKED, OK, OK, BAD, BAD, BAD)
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == BAD
    assert len(bench.deployments.checked) == 5


async def test_one_failure_while_it_bakes_begins_the_bake_time_anew() -> None:
    bench = await deployed(BAKED, OK, OK, BAD, OK)
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.clock.now() - began >= 35 * SECOND


async def test_an_app_that_flaps_does_not_bake_for_ever() -> None:
    bench = await deployed(BAKED, *[OK, OK, BAD, BAD] * 100)
    began = bench.clock.now()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == FLAPPING
    assert bench.clock.now() - began <= 30 * SECOND + 3 * 20 * SECOND + 10 * SECOND


async def test_an_app_that_flaps_before_it_was_ever_healthy_is_told_so() -> None:
    bench = await deployed(replace(SETTINGS, health_check_retries=2), *[OK, BAD] * 100)
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == FLAPPING


async def test_the_bake_time_goes_on_over_a_death_of_the_server() -> None:
    bench = await deployed(BAKED, OK)
    running = asyncio.ensure_future(bench.run(step(bench)))
    await bench.clock.wait_for_sleepers()
    running.cancel()
    await asyncio.wait([running])
    bench.clock.advance(timedelta(minutes=1))
    again = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.clock.now() == again


async def test_an_app_that_was_healthy_before_a_death_of_the_server_has_to_be_so_again() -> None:
    bench = await deployed(BAKED, OK, BAD)
    running = asyncio.ensure_future(bench.run(step(bench)))
    await bench.clock.wait_for_sleepers()
    running.cancel()
    await asyncio.wait([running])
    bench.clock.advance(timedelta(minutes=1))
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)


async def test_what_had_no_time_left_after_a_death_of_the_server_gets_one_round() -> None:
    bench = await deployed(SETTINGS, "tcp_refused", "tcp_refused", OK)
    bench.clock.advance(timedelta(hours=3))
    assert isinstance(await bench.run(step(bench)), Done)


# Nobody can tell ------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [UNMADE, "command_error", AttError(Reason.SETTINGS_INVALID, "att.toml cannot be read.")],
    ids=["foreign-port", "no-command", "settings"],
)
async def test_a_check_that_cannot_be_made_holds_and_asks_a_person(
    answer: str | AttError,
) -> None:
    bench = await deployed(SETTINGS, answer)
    end = await bench.run(step(bench))
    assert isinstance(end, Held)
    assert end.reason == INCONCLUSIVE
    assert end.decidable is not None
    assert end.decidable.commit_sha == NEW
    assert end.leaves.evidence["check_reason"] in (UNMADE, "command_error", "settings_invalid")
    assert bench.cycle.result.health_status is HealthStatus.INCONCLUSIVE


async def test_one_check_that_cannot_be_made_says_nothing() -> None:
    bench = await deployed(BAKED, OK, UNMADE, OK)
    assert isinstance(await bench.run(step(bench)), Done)


async def test_the_time_that_it_was_held_is_not_held_against_it() -> None:
    bench = await deployed(SETTINGS, UNMADE)
    assert isinstance(await bench.run(step(bench)), Held)
    bench.clock.advance(timedelta(hours=1))
    bench.deployments.answers(NEW, "tcp_refused", OK)
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.cycle.result.health_status is HealthStatus.HEALTHY


async def test_a_silent_supervisor_is_not_the_apps_failure() -> None:
    bench = await deployed(SETTINGS, OK)
    bench.deployments.silence(PROJECT)
    end = await bench.run(step(bench))
    assert isinstance(end, Held)
    assert end.leaves.evidence["check_reason"] == "supervisor_unreachable"


async def test_a_run_that_was_lost_has_to_stay_up_first() -> None:
    bench = await deployed(SETTINGS, OK)
    bench.deployments.lose(PROJECT)
    end = await bench.run(step(bench))
    assert isinstance(end, Again)
    assert end.step is CycleStep.WATCHDOG
    assert bench.deployments.switched == []


# A person decides -----------------------------------------------------------


def decided(bench: Bench, *, approved: bool, **wrong: str) -> None:
    """Decides what was asked, or something else."""
    asked = bench.cycle.approval
    decision = Decision(
        approved=approved,
        principal="token:ann",
        time=bench.clock.now(),
        commit_sha=asked.commit_sha if asked is not None else "",
        plan_digest=asked.plan_digest if asked is not None else "",
    )
    bench.cycle = replace(bench.cycle, decision=replace(decision, **wrong))  # type: ignore[arg-type] # its texts


async def test_a_person_may_take_an_inconclusive_release_for_good() -> None:
    bench = await deployed(SETTINGS, UNMADE)
    assert isinstance(await bench.run(step(bench)), Held)
    decided(bench, approved=True)
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.cycle.result.health_status is HealthStatus.HEALTHY
    assert bench.cycle.step(CycleStep.HEALTH).evidence["decided_by"] == "token:ann"


async def test_a_person_may_dismiss_an_inconclusive_release() -> None:
    bench = await deployed(SETTINGS, UNMADE)
    assert isinstance(await bench.run(step(bench)), Held)
    decided(bench, approved=False)
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert (end.failure_class, end.reason) == (FailureClass.HEALTH_FAILURE, DISMISSED)
    assert bench.cycle.result.health_status is HealthStatus.UNHEALTHY


async def test_no_person_can_take_an_unhealthy_release_for_good() -> None:
    bench = await deployed(SETTINGS, UNMADE)
    assert isinstance(await bench.run(step(bench)), Held)
    decided(bench, approved=True)
    bench.deployments.answers(NEW, BAD)
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == BAD


async def test_the_decision_of_the_approval_before_is_not_taken_for_one_on_health() -> None:
    bench = await deployed(SETTINGS, UNMADE)
    decided(bench, approved=True, commit_sha=NEW, plan_digest=bench.cycle.facts.plan_digest)
    assert isinstance(await bench.run(step(bench)), Held)
    assert bench.cycle.approval is not None
    assert bench.cycle.approval.plan_digest != bench.cycle.facts.plan_digest


@pytest.mark.parametrize("wrong", [{"commit_sha": "e" * 40}, {"plan_digest": "other"}])
async def test_a_decision_on_something_else_does_not_count(wrong: dict[str, str]) -> None:
    bench = await deployed(SETTINGS, UNMADE)
    assert isinstance(await bench.run(step(bench)), Held)
    decided(bench, approved=True, **wrong)
    assert isinstance(await bench.run(step(bench)), Held)


# The rules, whatever comes --------------------------------------------------

ANSWERS = st.lists(st.sampled_from([OK, BAD, UNMADE]), min_size=1, max_size=200)


def judged(answers: Sequence[str], *, retries: int, bake: int) -> HealthVerdict | None:
    """The verdict on checks every five seconds, the last answer for ever."""
    clock = FakeClock()
    trial = HealthTrial(
        retries=retries, interval=5 * SECOND, bake_time=timedelta(seconds=bake), due=30.0
    )
    for index in range(1_000):
        reason = answers[min(index, len(answers) - 1)]
        result = ProbeResult(
            healthy=reason == OK, probe="http", reason=reason, checked_at=clock.now()
        )
        verdict = trial.saw(result, index * 5.0)
        if verdict is not None:
            assert index + 1 == trial.checks
            return replace_reason(verdict, answers[: index + 1])
    return None


def replace_reason(verdict: HealthVerdict, seen: Sequence[str]) -> HealthVerdict:
    made = [answer for answer in seen if answer != UNMADE]
    if verdict.health is Health.HEALTHY:
        assert seen[-1] == OK
    if verdict.health is Health.UNHEALTHY:
        assert made[-1] == BAD
        assert verdict.reason in (BAD, FLAPPING)
    if verdict.health is Health.INCONCLUSIVE:
        assert seen[-1] == UNMADE
    return verdict


@given(ANSWERS, st.integers(1, 5), st.integers(0, 60))
def test_every_series_of_checks_comes_to_a_verdict(
    answers: list[str], retries: int, bake: int
) -> None:
    assert judged(answers, retries=retries, bake=bake) is not None


@given(ANSWERS, st.integers(1, 5), st.integers(0, 60))
def test_healthy_only_after_successes_in_a_row_and_a_whole_bake_time(
    answers: list[str], retries: int, bake: int
) -> None:
    padded = [*answers, *[answers[-1]] * 200]
    for count in range(1, len(padded)):
        if judged_prefix(padded[:count], retries=retries, bake=bake) is Health.HEALTHY:
            seen = padded[:count]
            since_failure = next(
                (n for n, each in enumerate(reversed(seen)) if each == BAD), len(seen)
            )
            assert since_failure >= retries + -(-bake // 5)
            assert all(each == OK for each in seen[-retries:])
            return


def judged_prefix(answers: Sequence[str], *, retries: int, bake: int) -> Health | None:
    trial = HealthTrial(
        retries=retries, interval=5 * SECOND, bake_time=timedelta(seconds=bake), due=30.0
    )
    now = FakeClock().now()
    for index, reason in enumerate(answers):
        result = ProbeResult(healthy=reason == OK, probe="http", reason=reason, checked_at=now)
        verdict = trial.saw(result, index * 5.0)
        if verdict is not None:
            return verdict.health if index == len(answers) - 1 else None
    return None


@given(st.integers(1, 5), st.integers(0, 60), st.integers(0, 10))
def test_failures_fewer_than_three_in_a_row_are_forgiven_once(
    retries: int, bake: int, before: int
) -> None:
    answers = [OK] * (retries + before) + [BAD] * (FAILURES_IN_A_ROW - 1) + [OK]
    verdict = judged(answers, retries=retries, bake=bake)
    assert verdict is not None
    assert verdict.health is Health.HEALTHY

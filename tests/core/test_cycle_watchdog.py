"""WATCHDOG: what keeps a run stable, and what does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from att_server.core.cycles.model import CycleKind, CycleRequest, WatchdogStatus
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Asked, Done, Failed, Held
from att_server.core.cycles.steps.watchdog import WatchdogStep
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import FailureClass
from att_server.core.releases import DeploymentContext
from tests.core.step_bench import NEW, PROJECT, Bench

SECOND = timedelta(seconds=1)
WATCH = 3 * 5 * SECOND


def step(bench: Bench) -> WatchdogStep:
    return WatchdogStep(deployments=bench.deployments, clock=bench.clock)


@pytest.fixture
async def bench() -> Bench:
    bench = Bench()
    await bench.deploy()
    return bench


async def test_a_run_that_stays_up_for_all_intervals_is_stable(bench: Bench) -> None:
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert WATCH <= bench.clock.now() - began < WATCH + SECOND
    result = bench.cycle.result
    assert result.restart_watchdog_status is WatchdogStatus.STABLE
    assert result.restart_watchdog_reason == "stayed_up"
    (event,) = bench.events
    assert (event.event_type, event.reason) == ("restart_watchdog", "stayed_up")


async def test_an_exit_fails_at_once_with_its_code_and_the_last_lines(bench: Bench) -> None:
    bench.deployments.exits(NEW, after=2 * SECOND)
    bench.deployments.lines[PROJECT] = [b"about to fail", b"failed"]
    await bench.deploy()
    began = bench.clock.now()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.failure_class is FailureClass.RESTART_WATCHDOG_FAILURE
    assert end.reason == "process_exited"
    assert end.leaves.evidence["exit_code"] == "1"
    assert end.leaves.log_tail == b"about to fail\nfailed\n"
    assert bench.clock.now() - began < 3 * SECOND
    assert bench.cycle.result.restart_watchdog_status is WatchdogStatus.UNSTABLE


async def test_a_restart_between_two_looks_is_seen(bench: Bench) -> None:
    bench.deployments.exits(NEW, after=2 * SECOND, restarts=True)
    await bench.deploy()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "process_exited"


async def test_a_restart_while_no_server_looked_is_seen_after_it(bench: Bench) -> None:
    bench.deployments.restart(PROJECT)
    bench.clock.advance(timedelta(hours=1))
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "process_exited"


async def test_an_app_that_crashed_before_its_run_was_noted_is_unstable(bench: Bench) -> None:
    bench.deployments.restart(PROJECT)
    status = bench.deployments.status(PROJECT)
    facts = replace(bench.cycle.facts, deploy_run_id=status.run_id)
    bench.cycle = replace(bench.cycle, facts=facts)
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "process_restarted"


async def test_time_that_no_server_looked_counts_as_the_supervisor_did(bench: Bench) -> None:
    bench.clock.advance(timedelta(hours=1))
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert bench.clock.now() == began


async def test_what_ended_the_run_is_the_reason(bench: Bench) -> None:
    bench.deployments.exit(PROJECT, reason="startup_deadline")
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "startup_deadline"


@pytest.mark.parametrize("how", ["supervisor_lost", "host_restarted"])
async def test_a_run_that_was_lost_is_begun_again_and_watched_anew(bench: Bench, how: str) -> None:
    bench.clock.advance(10 * SECOND)
    bench.deployments.lose(PROJECT, reason=how)
    began = bench.clock.now()
    assert isinstance(await bench.run(step(bench)), Done)
    assert [release for _, release, _ in bench.deployments.switched] == [NEW]
    assert bench.clock.now() - began >= WATCH
    assert bench.cycle.facts.deploy_run_id == bench.deployments.status(PROJECT).run_id
    assert bench.cycle.facts.lost_runs == 1


async def test_a_release_that_takes_its_supervisor_down_each_time_is_unstable(
    bench: Bench,
) -> None:
    bench.deployments.loses(NEW, after=SECOND)
    await bench.deploy()
    end = await bench.run(step(bench))
    assert isinstance(end, Failed)
    assert end.reason == "supervisor_lost"
    assert len(bench.deployments.switched) == 2


async def test_runs_are_begun_again_for_as_long_as_who_starts_them_bears_it(bench: Bench) -> None:
    bench.deployments.bears = 5
    bench.deployments.loses(NEW, after=SECOND)
    await bench.deploy()
    assert isinstance(await bench.run(step(bench)), Failed)
    assert len(bench.deployments.switched) == 5


@pytest.mark.parametrize("note", [0, 1])
async def test_a_kill_around_the_new_start_makes_no_second_one(bench: Bench, note: int) -> None:
    bench.deployments.lose(PROJECT)
    await bench.run_killed(step(bench), note)
    assert isinstance(await bench.run(step(bench)), Done)
    assert len(bench.deployments.switched) == 1


async def test_a_supervisor_that_answers_again_in_time_is_no_failure(bench: Bench) -> None:
    bench.deployments.silence(PROJECT)
    running = asyncio.ensure_future(bench.run(step(bench)))
    await bench.clock.wait_for_sleepers()
    bench.deployments.hear(PROJECT)
    assert isinstance(await running, Done)


async def test_a_silent_supervisor_holds_the_cycle_until_it_answers(bench: Bench) -> None:
    bench.deployments.silence(PROJECT)
    end = await bench.run(step(bench))
    assert isinstance(end, Held)
    assert (end.reason, end.decidable) == ("supervisor_unreachable", None)
    bench.deployments.hear(PROJECT)
    assert isinstance(await bench.run(step(bench)), Done)


async def test_a_start_that_cannot_be_repeated_fails_as_a_start_does(bench: Bench) -> None:
    bench.deployments.lose(PROJECT)
    bench.deployments.refuses(NEW)
    with pytest.raises(AttError) as error:
        await bench.run(step(bench))
    assert error.value.reason is Reason.COMMAND_NOT_FOUND


def test_only_an_app_of_the_runtime_is_watched() -> None:
    watchdog = step(Bench())
    asked = Asked(kind=CycleKind.CHANGE, request=CycleRequest(), settings=BootstrapSettings())
    external = CycleRequest(deployment_context=DeploymentContext.EXTERNAL)
    assert watchdog.skip_reason(asked) == ""
    assert watchdog.skip_reason(replace(asked, request=external)) == "external_context"

"""The server itself brings apps to their desired state, where no call does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import DesiredState, RuntimeState
from att_server.core.recovery import astray
from att_server.core.settings import RestartCondition, RestartPolicy, RuntimeSettings
from tests.core.fake_server import NONE, RUN, Server, run_id

ALWAYS = RestartPolicy(condition=RestartCondition.ALWAYS)
ON_FAILURE = RestartPolicy(condition=RestartCondition.ON_FAILURE)
NEVER = RestartPolicy(condition=RestartCondition.NEVER)


def under(policy: RestartPolicy) -> RuntimeSettings:
    return RuntimeSettings(restart=policy)


async def test_an_app_lost_with_its_supervisor_is_started_again_at_once(server: Server) -> None:
    first = await server.start(under(ON_FAILURE))
    server.driver.lose("web")
    await server.until(RuntimeState.BACKOFF)
    server.driver.restart("web")
    again = await server.until(RuntimeState.READY)
    assert run_id(again) != run_id(first)
    types = await server.events()
    assert types.count("ended") == types.count("restarting") == 1


async def test_an_app_lost_with_its_supervisor_stays_down_without_a_policy(
    server: Server,
) -> None:
    await server.start()
    server.driver.lose("web")
    assert (await server.start(request_id="again")).state is RuntimeState.READY
    assert "restarting" not in await server.events()


async def test_an_app_lost_while_no_server_ran_is_started_again(server: Server) -> None:
    await server.start(under(ALWAYS))
    await server.driver.aclose()
    server.driver.lose("web")
    async with server.serving():
        await server.until(RuntimeState.BACKOFF)


async def test_losses_count_as_restarts_that_can_be_too_many(server: Server) -> None:
    once = RestartPolicy(condition=RestartCondition.ALWAYS, max_restarts=1)
    await server.start(under(once))
    server.driver.lose("web")
    await server.until(RuntimeState.BACKOFF)
    server.driver.restart("web")
    await server.until(RuntimeState.READY)
    server.driver.lose("web")
    failed = await server.until(RuntimeState.FAILED)
    assert failed.status is not None
    assert failed.status.reason == "crash_loop"
    assert failed.desired is DesiredState.RUNNING


@pytest.mark.parametrize(
    ("policy", "exit_code", "comes_back"),
    [(ON_FAILURE, 0, False), (NEVER, 1, False), (ON_FAILURE, 1, True), (ALWAYS, 1, True)],
)
async def test_what_had_failed_for_good_is_tried_again_after_a_restart_of_the_host(
    server: Server, policy: RestartPolicy, exit_code: int, comes_back: bool
) -> None:
    at_once = RestartPolicy(condition=policy.condition, max_restarts=0)
    first = await server.start(under(at_once))
    server.driver.exit("web", exit_code)
    await server.driver.aclose()
    async with server.serving():
        before = server.runtimes.get("web").state
        assert not before.alive
    await server.driver.aclose()
    server.driver.reboot("web")
    async with server.serving():
        if comes_back:
            assert run_id(await server.until(RuntimeState.READY)) != run_id(first)
        else:
            assert (await server.stop()).status == server.runtimes.get("web").status
            assert run_id(server.runtimes.get("web")) == run_id(first)


async def test_an_app_that_waits_to_be_started_again_is_started_at_once_by_a_call(
    server: Server,
) -> None:
    first = await server.start(under(ALWAYS))
    server.driver.exit("web", 1)
    runtime = await server.start(under(ALWAYS), request_id="now")
    assert runtime.state is RuntimeState.READY
    assert run_id(runtime) != run_id(first)
    assert runtime.status is not None
    assert runtime.status.restarts == 0
    server.driver.exit("web", 1)
    repeated = await server.start(under(ALWAYS), request_id="now")
    assert repeated.state is RuntimeState.BACKOFF


async def test_an_app_that_waits_to_be_started_again_is_not_started_with_other_settings(
    server: Server,
) -> None:
    await server.start(under(ALWAYS))
    server.driver.exit("web", 1)
    with pytest.raises(AttError) as refused:
        await server.start(under(ON_FAILURE))
    assert refused.value.reason is Reason.RUNTIME_SPEC_CONFLICT
    assert server.runtimes.get("web").state is RuntimeState.BACKOFF


async def test_a_stop_between_two_runs_ends_the_restarting(server: Server) -> None:
    await server.start(under(ALWAYS))
    server.driver.exit("web", 1)
    runtime = await server.stop()
    assert (runtime.state, runtime.desired) == (RuntimeState.STOPPED, DesiredState.STOPPED)
    await server.projects.delete("web", request_id="", principal="")


async def test_a_restart_between_two_runs_makes_one_run(server: Server) -> None:
    await server.start(under(ALWAYS))
    server.driver.exit("web", 1)
    runtime = await server.restart()
    assert runtime.state is RuntimeState.READY
    assert runtime.status is not None
    assert runtime.status.restarts == 0


async def test_a_project_whose_app_waits_to_be_started_again_is_not_deleted(
    server: Server,
) -> None:
    await server.start(under(ALWAYS))
    server.driver.exit("web", 1)
    with pytest.raises(AttError) as kept:
        await server.projects.delete("web", request_id="", principal="")
    assert kept.value.reason is Reason.PROJECT_NOT_STOPPED


async def test_calls_wait_for_what_the_server_does_by_itself(server: Server) -> None:
    await server.start(under(ALWAYS))
    for _ in range(20):
        server.driver.lose("web")
        calls = [server.restart(), server.start(under(ALWAYS)), server.stop()]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        busy = [
            outcome
            for outcome in outcomes
            if isinstance(outcome, AttError) and outcome.metadata.get("operation") == "recovery"
        ]
        assert not busy
        await server.restart()


async def test_what_cannot_be_recovered_is_tried_again_and_told_once(server: Server) -> None:
    await server.start()
    await server.driver.aclose()
    server.driver.lose("web", reason="host_restarted")
    server.settings.settings["web"] = AttError(Reason.SETTINGS_INVALID, "line 3")
    async with server.serving():
        for wait in (1, 2, 4, 8):
            await server.clock.wait_for_sleepers()
            assert server.runtimes.get("web").desired is DesiredState.RUNNING
            server.clock.advance(timedelta(seconds=wait))
            await asyncio.sleep(0)
        await server.clock.wait_for_sleepers()
        (failed,) = await server.told("runtime.recovery_failed")
        assert failed.reason == "SETTINGS_INVALID"
        server.settings.settings["web"] = RUN
        server.clock.advance(timedelta(seconds=60))
        await server.until(RuntimeState.READY)


async def test_a_stop_ends_the_tries_to_recover(server: Server) -> None:
    await server.start()
    await server.driver.aclose()
    server.driver.lose("web", reason="host_restarted")
    server.settings.settings["web"] = AttError(Reason.SETTINGS_INVALID, "line 3")
    async with server.serving():
        await server.clock.wait_for_sleepers()
        await server.stop()
        server.settings.settings["web"] = NONE
        server.clock.advance(timedelta(seconds=60))
        await server.projects.delete("web", request_id="", principal="")
        assert server.clock.sleepers == 0


async def test_an_app_that_ends_while_it_is_stopped_is_not_started_again(server: Server) -> None:
    await server.start(under(ALWAYS))
    server.driver.hold_stops()
    stopping = asyncio.create_task(server.stop())
    await server.until(RuntimeState.STOPPING)
    server.driver.lose("web")
    server.driver.release_stops()
    runtime = await stopping
    assert runtime.desired is DesiredState.STOPPED
    assert not runtime.state.alive
    assert (await server.events()).count("started") == 1


async def test_an_app_whose_restart_was_cut_short_by_a_kill_is_started(server: Server) -> None:
    before = run_id(await server.start())
    # What a server leaves that dies while the app ends: it is to run.
    server.driver.hold_stops()
    stopping = asyncio.create_task(server.driver.stop("web", None))
    await server.until(RuntimeState.STOPPING)
    async with server.serving():
        server.driver.release_stops()
        await stopping
        assert run_id(await server.until(RuntimeState.READY)) != before


async def test_an_app_that_its_probe_ends_is_left_to_its_supervisor(server: Server) -> None:
    await server.start()
    status = server.driver.status("web")
    ending = replace(status, state=RuntimeState.STOPPING, reason="liveness_failed")
    assert not astray(DesiredState.RUNNING, ending)
    assert astray(DesiredState.RUNNING, replace(ending, reason=""))

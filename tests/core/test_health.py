"""What probes make of apps, on fakes: a whole server without its wire."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import RuntimeState
from att_server.core.settings import (
    CommandProbe,
    Probe,
    RestartCondition,
)
from tests.core.fake_server import Server, run_id
from tests.core.probed_app import (
    LINE,
    LIVE,
    MINUTE,
    READY,
    SECOND,
    health,
    pass_rounds,
    ready_probe,
    reason,
    refusal,
    settings,
    state,
)

# Readiness ------------------------------------------------------------------


async def test_readiness_is_lost_and_regained_by_the_threshold(server: Server) -> None:
    await server.start(settings(readiness=ready_probe(threshold=2)))
    seen = []
    for healthy in (True, False, True, True, False, True, False, False, True, True):
        await server.clock.wait_for_sleepers()
        server.prober.set(READY, healthy=healthy)
        await pass_rounds(server)
        seen.append((state(server) is RuntimeState.READY, health(server).healthy))
    verdicts = [False, False, False, True, True, True, True, False, False, True]
    assert seen == [(verdict, verdict) for verdict in verdicts]
    assert (await server.events())[-3:] == ["ready", "unready", "ready"]


async def test_health_tells_the_verdict_and_the_reason_of_the_last_check(server: Server) -> None:
    server.prober.set(READY, healthy=True)
    await server.start(settings(readiness=ready_probe(threshold=2)), wait_ready=False)
    await pass_rounds(server)
    server.prober.set(READY, healthy=False)
    await pass_rounds(server)
    assert (health(server).healthy, health(server).reason) == (True, "http_status")
    assert health(server).checked_at == server.clock.now()


async def test_an_app_that_misses_its_deadline_is_ended(server: Server) -> None:
    probe = ready_probe(deadline=timedelta(seconds=10))
    call = asyncio.create_task(
        server.start(settings(readiness=probe), wait_ready=True, timeout=MINUTE)
    )
    await pass_rounds(server, 9)
    assert state(server) is RuntimeState.RUNNING
    server.clock.advance(SECOND)
    failed = await refusal(call)
    assert (failed.reason, failed.metadata["cause"]) == (
        Reason.RUNTIME_START_FAILED,
        "startup_deadline",
    )
    assert (state(server), reason(server)) == (RuntimeState.FAILED, "startup_deadline")


async def test_a_check_that_hangs_does_not_put_the_deadline_off(server: Server) -> None:
    probe = Probe(kind=READY, timeout=timedelta(hours=1), deadline=timedelta(seconds=10))
    await server.start(settings(readiness=probe))
    await pass_rounds(server, 7)
    server.clock.advance(timedelta(seconds=2.5))
    await server.clock.wait_for_sleepers()
    bounds = [probe.timeout for probe, _ in server.prober.probed]
    assert bounds[0] == timedelta(seconds=10)
    assert bounds[-1] == timedelta(seconds=0.5)


async def test_a_run_after_a_missed_deadline_is_probed_anew(server: Server) -> None:
    probe = ready_probe(deadline=timedelta(seconds=2))
    call = asyncio.create_task(
        server.start(
            settings(readiness=probe, restart=RestartCondition.ON_FAILURE),
            wait_ready=True,
            timeout=MINUTE,
        )
    )
    await pass_rounds(server)
    server.clock.advance(SECOND)
    first = await server.until(RuntimeState.BACKOFF)
    assert reason(server) == "startup_deadline"
    server.prober.set(READY, healthy=True)
    server.driver.restart("web")
    runtime = await call
    assert runtime.state is RuntimeState.READY
    assert run_id(runtime) != run_id(first)


async def test_the_deadline_is_for_the_first_success_only(server: Server) -> None:
    server.prober.set(READY, healthy=True)
    await server.start(settings(readiness=ready_probe(deadline=timedelta(seconds=3))))
    await pass_rounds(server)
    server.prober.set(READY, healthy=False)
    await pass_rounds(server, 10)
    assert state(server) is RuntimeState.RUNNING


async def test_a_line_that_matched_is_not_looked_for_again() -> None:
    server = Server()
    async with server.serving():
        await server.create()
        await server.start(settings(readiness=ready_probe(LINE)))
        await pass_rounds(server, 2)
        server.prober.set(LINE, healthy=True)
        server.clock.advance(SECOND)
        await server.until(RuntimeState.READY)
        asked = len(server.prober.probed)
        assert server.clock.sleepers == 0
    async with server.serving():
        # The line may have been trimmed meanwhile.
        server.prober.set(LINE, healthy=False)
        while server.runtimes.get("web").health is None:
            await asyncio.sleep(0)
        assert (health(server).healthy, health(server).reason) == (True, "log_matched")
        assert state(server) is RuntimeState.READY
        assert len(server.prober.probed) == asked


# Liveness -------------------------------------------------------------------


async def test_an_app_that_fails_its_liveness_probe_is_started_again(server: Server) -> None:
    server.prober.set(LIVE, healthy=True)
    first = await server.start(settings(liveness=Probe(kind=LIVE)))
    await pass_rounds(server)
    server.prober.set(LIVE, healthy=False)
    await pass_rounds(server, 2)
    assert state(server) is RuntimeState.READY
    assert health(server).healthy
    server.clock.advance(SECOND)
    await server.until(RuntimeState.BACKOFF)
    assert reason(server) == "liveness_failed"
    assert not health(server).healthy
    server.prober.set(LIVE, healthy=True)
    server.driver.restart("web")
    await pass_rounds(server, 5)
    assert run_id(server.runtimes.get("web")) != run_id(first)
    assert health(server).healthy


async def test_an_app_that_is_never_to_be_restarted_fails_for_good(server: Server) -> None:
    liveness = Probe(kind=LIVE, threshold=1)
    await server.start(settings(liveness=liveness, restart=RestartCondition.NEVER))
    await server.until(RuntimeState.FAILED)
    assert reason(server) == "liveness_failed"


async def test_liveness_is_not_asked_before_the_app_is_ready(server: Server) -> None:
    await server.start(settings(readiness=ready_probe(), liveness=Probe(kind=LIVE)))
    await pass_rounds(server, 5)
    assert {probe.kind for probe, _ in server.prober.probed} == {READY}
    server.prober.set(READY, healthy=True)
    server.clock.advance(SECOND)
    await server.clock.wait_for_sleepers(2)
    assert server.prober.probed[-1][0].kind == LIVE
    assert health(server).probe == "http"


async def test_an_app_that_is_unready_for_a_while_is_still_asked_whether_it_lives(
    server: Server,
) -> None:
    server.prober.set(READY, healthy=True)
    server.prober.set(LIVE, healthy=True)
    await server.start(settings(readiness=ready_probe(), liveness=Probe(kind=LIVE)))
    await pass_rounds(server, probes=2)
    server.prober.set(READY, healthy=False)
    await pass_rounds(server, 3, probes=2)
    assert state(server) is RuntimeState.RUNNING
    server.prober.set(LIVE, healthy=False)
    await pass_rounds(server, 2, probes=2)
    server.clock.advance(SECOND)
    await server.until(RuntimeState.BACKOFF)
    assert reason(server) == "liveness_failed"


async def test_failures_before_the_first_success_count_after_the_deadline(server: Server) -> None:
    liveness = Probe(kind=LIVE, threshold=2, deadline=timedelta(seconds=10))
    await server.start(settings(liveness=liveness))
    await pass_rounds(server, 9)
    assert state(server) is RuntimeState.READY
    server.clock.advance(SECOND)
    await server.until(RuntimeState.BACKOFF)
    assert reason(server) == "liveness_failed"


# Ends in the middle ---------------------------------------------------------


async def test_a_result_of_a_run_that_is_over_is_dropped(server: Server) -> None:
    server.prober.hold_answers()
    await server.start(settings(readiness=ready_probe(), restart=RestartCondition.ALWAYS))
    while not server.prober.probed:
        await asyncio.sleep(0)
    server.driver.exit("web", 1)
    server.driver.restart("web")
    while len(server.prober.probed) < 2:
        await asyncio.sleep(0)
    server.prober.set(READY, healthy=True)
    server.prober.release_answers()
    runtime = await server.until(RuntimeState.READY)
    assert runtime.status is not None
    assert server.prober.probed[-1][1].pid == runtime.status.pid
    assert (await server.events()).count("ready") == 1


async def test_an_app_is_stopped_while_a_check_hangs(server: Server) -> None:
    server.prober.hold_answers()
    await server.start(settings(readiness=ready_probe(), liveness=Probe(kind=LIVE)))
    while not server.prober.probed:
        await asyncio.sleep(0)
    assert (await server.stop()).state is RuntimeState.STOPPED
    server.prober.set(READY, healthy=True)
    server.prober.release_answers()
    await asyncio.sleep(0)
    assert state(server) is RuntimeState.STOPPED
    assert server.runtimes.get("web").health is None


async def test_a_deleted_project_is_not_probed(server: Server) -> None:
    await server.start(settings(readiness=ready_probe()))
    await pass_rounds(server)
    await server.stop()
    await server.projects.delete("web", principal="", request_id="")
    assert server.clock.sleepers == 0
    await server.create()
    assert server.runtimes.get("web").health is None


async def test_a_run_with_new_settings_is_not_probed_by_the_old_ones(server: Server) -> None:
    server.prober.set(READY, healthy=True)
    old = ready_probe()
    await server.projects.update("web", path=None, runtime=settings(readiness=old), principal="")
    first = await server.start(wait_ready=True)
    new = settings(readiness=ready_probe(LINE))
    await server.projects.update("web", path=None, runtime=new, principal="")
    second = await server.restart()
    await server.clock.wait_for_sleepers()
    assert first.status is not None
    assert second.status is not None
    asked = {target.pid: probe.kind for probe, target in server.prober.probed}
    assert asked == {first.status.pid: READY, second.status.pid: LINE}


async def test_an_app_without_a_probe_is_not_checked(server: Server) -> None:
    await server.start()
    server.driver.exit("web")
    await server.start()
    assert server.prober.probed == []
    assert server.clock.sleepers == 0


# Waiting --------------------------------------------------------------------


async def test_a_caller_waits_through_the_restarts_of_an_app(server: Server) -> None:
    given = settings(readiness=ready_probe(), restart=RestartCondition.ON_FAILURE)
    call = asyncio.create_task(server.start(given, wait_ready=True, timeout=MINUTE))
    for _ in range(2):
        await server.until(RuntimeState.RUNNING)
        server.driver.exit("web", 1)
        await server.until(RuntimeState.BACKOFF)
        server.driver.restart("web")
    server.prober.set(READY, healthy=True)
    await pass_rounds(server)
    assert (await call).state is RuntimeState.READY


async def test_a_caller_is_told_of_a_crash_loop(server: Server) -> None:
    given = settings(readiness=ready_probe(), restart=RestartCondition.ON_FAILURE)
    call = asyncio.create_task(server.start(given, wait_ready=True, timeout=MINUTE))
    for _ in range(2):
        await server.until(RuntimeState.RUNNING)
        server.driver.exit("web", 1)
        server.driver.restart("web")
    await server.until(RuntimeState.RUNNING)
    server.driver.exit("web", 1)
    failed = await refusal(call)
    assert (failed.reason, failed.metadata["cause"]) == (Reason.RUNTIME_START_FAILED, "crash_loop")


async def test_a_caller_whose_time_is_over_in_backoff_is_told_how_the_app_ended(
    server: Server,
) -> None:
    given = settings(readiness=ready_probe(), restart=RestartCondition.ON_FAILURE)
    call = asyncio.create_task(
        server.start(given, wait_ready=True, timeout=timedelta(milliseconds=200))
    )
    await server.until(RuntimeState.RUNNING)
    server.driver.exit("web", 7)
    failed = await refusal(call)
    assert failed.reason is Reason.RUNTIME_NOT_READY
    assert "code 7" in failed.message


# One check ------------------------------------------------------------------


async def test_a_check_without_a_probe_is_of_the_process(server: Server) -> None:
    never = await server.runtimes.check("web", None)
    assert (never.healthy, never.probe, never.reason) == (False, "process", "process_not_running")
    await server.start()
    running = await server.runtimes.check("web", None)
    assert (running.healthy, running.reason) == (True, "process_running")
    server.driver.exit("web", 4)
    ended = await server.runtimes.check("web", None)
    assert (ended.healthy, ended.reason, ended.exit_code) == (False, "process_exited", 4)
    assert ended.checked_at == server.clock.now()


async def test_a_check_is_by_the_given_probe_else_by_the_readiness_probe(server: Server) -> None:
    given = settings(readiness=ready_probe())
    await server.projects.update("web", path=None, runtime=given, principal="")
    await server.start()
    before = server.runtimes.get("web").revision
    command = CommandProbe(command=("true",))
    server.prober.set(command, healthy=True)
    result = await server.runtimes.check("web", Probe(kind=command))
    assert (result.healthy, result.reason) == (True, "command_ok")
    assert result.command == ("true",)
    assert (await server.runtimes.check("web", None)).reason == "http_error"
    server.driver.exit("web", 1)
    after = await server.runtimes.check("web", Probe(kind=command))
    assert (after.healthy, after.reason, after.exit_code) == (False, "process_exited", 1)
    assert before <= server.runtimes.get("web").revision


async def test_a_check_of_no_project_is_refused(server: Server) -> None:
    with pytest.raises(AttError) as refused:
        await server.runtimes.check("nobody", None)
    assert refused.value.reason is Reason.PROJECT_NOT_FOUND

"""What becomes of apps, on fakes: a whole server without its wire."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    DesiredState,
    Event,
    RuntimeState,
)
from att_server.core.request_claim import RequestClaim
from att_server.core.settings import (
    HttpProbe,
    LogProbe,
    Probe,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from tests.core.fake_server import HEALTH, NONE, PROBED, Server, run_id


async def test_an_app_without_a_probe_is_ready_as_it_runs(server: Server) -> None:
    runtime = await server.start()
    assert runtime.state is RuntimeState.READY
    assert runtime.desired is DesiredState.RUNNING
    assert await server.events() == ["start_requested", "started", "ready"]


async def test_starting_it_again_returns_the_run_that_is_there(server: Server) -> None:
    first = await server.start()
    again = await server.start()
    assert run_id(again) == run_id(first)


async def test_starting_it_with_other_settings_is_refused(server: Server) -> None:
    first = await server.start()
    with pytest.raises(AttError) as refused:
        await server.start(RuntimeSettings(env={"COLOUR": "red"}))
    assert refused.value.reason is Reason.RUNTIME_SPEC_CONFLICT
    assert refused.value.metadata["run_id"] == run_id(first)
    assert run_id(server.runtimes.get("web")) == run_id(first)


async def test_two_starts_at_once_make_one_run(server: Server) -> None:
    one, two = await asyncio.gather(server.start(), server.start())
    assert run_id(one) == run_id(two)
    assert (await server.events()).count("started") == 1


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        (RuntimeSettings(command=("gone",)), Reason.COMMAND_NOT_FOUND),
        (RuntimeSettings(), Reason.COMMAND_MISSING),
    ],
)
async def test_a_start_that_cannot_be_changes_nothing(
    runtime: RuntimeSettings, reason: Reason
) -> None:
    server = Server()
    async with server.serving():
        await server.create(runtime)
        with pytest.raises(AttError) as refused:
            await server.start(request_id="once")
        assert refused.value.reason is reason
        assert server.runtimes.get("web").state is RuntimeState.STOPPED
        assert server.projects.get("web").desired is DesiredState.STOPPED
        assert await server.events() == []


async def test_a_run_that_cannot_be_started_says_why(server: Server) -> None:
    server.driver.missing.add("serve")
    with pytest.raises(AttError) as failed:
        await server.start()
    assert failed.value.reason is Reason.RUNTIME_START_FAILED
    assert failed.value.metadata["cause"] == "command_not_found"
    assert server.runtimes.get("web").state is RuntimeState.FAILED
    assert server.projects.get("web").desired is DesiredState.STOPPED


async def test_a_probed_app_is_ready_when_its_probe_holds(server: Server) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    starting = asyncio.create_task(server.start(wait_ready=True, timeout=timedelta(minutes=1)))
    await server.clock.wait_for_sleepers()
    waiting = server.runtimes.get("web")
    assert waiting.state is RuntimeState.RUNNING
    assert waiting.health is not None
    assert waiting.health.reason == "http_error"
    server.prober.set(HEALTH, healthy=True)
    server.clock.advance(timedelta(seconds=1))
    runtime = await starting
    assert runtime.state is RuntimeState.READY
    assert runtime.health is not None
    assert runtime.health.healthy


async def test_as_many_successes_in_a_row_as_the_threshold_make_it_ready(server: Server) -> None:
    probed = RuntimeSettings(
        command=("serve",), readiness=Probe(kind=HttpProbe(url=HEALTH), threshold=2)
    )
    await server.projects.update("web", path=None, runtime=probed, principal="")
    await server.start()
    for healthy in (True, False, True):
        server.prober.set(HEALTH, healthy=healthy)
        await server.clock.wait_for_sleepers()
        server.clock.advance(timedelta(seconds=1))
        await server.clock.wait_for_sleepers()
        assert server.runtimes.get("web").state is RuntimeState.RUNNING
    server.clock.advance(timedelta(seconds=1))
    await server.until(RuntimeState.READY)


async def test_who_waits_too_long_is_told_and_the_app_runs_on(server: Server) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    with pytest.raises(AttError) as late:
        await server.start(wait_ready=True, timeout=timedelta(0))
    assert late.value.reason is Reason.RUNTIME_NOT_READY
    assert server.runtimes.get("web").state is RuntimeState.RUNNING


async def test_an_app_that_ends_before_it_is_ready_fails_the_start_with_its_last_lines(
    server: Server,
) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    starting = asyncio.create_task(server.start(wait_ready=True, timeout=timedelta(minutes=1)))
    await server.clock.wait_for_sleepers()
    server.driver.exit("web", 3)
    with pytest.raises(AttError) as failed:
        await starting
    assert failed.value.reason is Reason.RUNTIME_START_FAILED
    assert failed.value.metadata["cause"] == "exited"
    assert " said\n  this" in failed.value.message


async def test_a_start_goes_on_when_its_caller_leaves(server: Server) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    caller = asyncio.create_task(server.start(wait_ready=True, timeout=timedelta(minutes=1)))
    await server.clock.wait_for_sleepers()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    server.prober.set(HEALTH, healthy=True)
    server.clock.advance(timedelta(seconds=1))
    await server.until(RuntimeState.READY)


async def test_a_stopped_app_is_stopped_and_stays_so(server: Server) -> None:
    await server.start()
    runtime = await server.stop()
    assert runtime.state is RuntimeState.STOPPED
    assert runtime.desired is DesiredState.STOPPED
    assert runtime.status is not None
    assert runtime.status.exit is not None
    assert runtime.status.exit.signal == 15
    again = await server.stop()
    assert again == runtime
    assert await server.events() == [
        "start_requested",
        "started",
        "ready",
        "stop_requested",
        "ended",
    ]


async def test_stopping_what_never_ran_is_done(server: Server) -> None:
    assert (await server.stop()).state is RuntimeState.STOPPED


async def test_concurrent_stops_join(server: Server) -> None:
    await server.start()
    server.driver.hold_stops()
    stops = [asyncio.create_task(server.stop()) for _ in range(3)]
    await server.until(RuntimeState.STOPPING)
    with pytest.raises(AttError) as refused:
        await server.start()
    assert refused.value.reason is Reason.PROJECT_BUSY
    server.driver.release_stops()
    assert {runtime.state for runtime in await asyncio.gather(*stops)} == {RuntimeState.STOPPED}


async def test_a_restart_makes_another_run_with_the_settings_of_the_last_start(
    server: Server,
) -> None:
    first = await server.start(RuntimeSettings(env={"COLOUR": "red"}))
    second = await server.restart()
    assert run_id(second) != run_id(first)
    assert second.state is RuntimeState.READY
    assert first.status is not None
    assert second.status is not None
    assert second.status.spec_digest == first.status.spec_digest


async def test_a_restart_of_a_stopped_app_starts_it(server: Server) -> None:
    assert (await server.restart()).state is RuntimeState.READY


async def test_a_repeated_request_id_returns_the_first_outcome(server: Server) -> None:
    first = await server.start(request_id="start")
    server.driver.exit("web", 1)
    again = await server.start(request_id="start")
    assert (run_id(again), again.state) == (run_id(first), RuntimeState.EXITED)
    second = await server.restart(request_id="restart")
    assert run_id(await server.restart(request_id="restart")) == run_id(second)
    with pytest.raises(AttError) as refused:
        await server.restart(request_id="start")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_an_exit_is_shown_until_the_next_start(server: Server) -> None:
    await server.start()
    server.driver.exit("web", 3)
    for _ in range(2):
        runtime = server.runtimes.get("web")
        assert runtime.state is RuntimeState.EXITED
        assert runtime.status is not None
        assert runtime.status.exit is not None
        assert runtime.status.exit.exit_code == 3
    await server.start()
    assert server.runtimes.get("web").state is RuntimeState.READY


async def test_followers_are_woken_by_growth_and_by_ends(server: Server) -> None:
    await server.start()
    server.grew.clear()
    server.driver.grow("web")
    assert server.grew == ["web"]
    server.driver.exit("web")
    assert server.grew == ["web", "web"]
    assert server.runs.current_run("web") == ""


async def test_the_next_server_finds_what_runs_and_reports_nothing_twice(server: Server) -> None:
    before = await server.start()
    types = await server.events()
    async with server.serving():
        after = server.runtimes.get("web")
        assert (run_id(after), after.state) == (run_id(before), RuntimeState.READY)
        assert await server.events() == [*types, "adopted"]


async def test_an_end_while_no_server_ran_is_reported_by_the_next(server: Server) -> None:
    await server.start()
    await server.events()
    await server.driver.aclose()
    server.driver.exit("web", 4)
    async with server.serving():
        assert server.runtimes.get("web").state is RuntimeState.EXITED
        assert (await server.events())[-1] == "ended"


async def test_desired_apps_come_back_after_a_restart_of_the_host(server: Server) -> None:
    before = await server.start(RuntimeSettings(env={"COLOUR": "red"}))
    await server.driver.aclose()
    server.driver.lose("web", reason="host_restarted")
    async with server.serving():
        after = await server.until(RuntimeState.READY)
        assert run_id(after) != run_id(before)
        assert after.status is not None
        assert before.status is not None
        assert after.status.spec_digest == before.status.spec_digest


async def test_an_app_that_ended_by_itself_is_not_started_by_the_next_server(
    server: Server,
) -> None:
    await server.start()
    server.driver.exit("web", 0)
    async with server.serving():
        assert server.runtimes.get("web").state is RuntimeState.EXITED
        assert (await server.events()).count("started") == 1


async def test_a_stop_that_was_cut_short_is_finished_by_the_next_server(server: Server) -> None:
    await server.start()
    server.driver.hold_stops()
    stopping = asyncio.create_task(server.stop())
    await server.until(RuntimeState.STOPPING)
    stopping.cancel()
    server.driver.release_stops()
    async with server.serving():
        await server.until(RuntimeState.STOPPED)


async def test_a_start_that_was_cut_short_is_done_by_the_next_server(server: Server) -> None:
    wanted = Event(event_type="runtime.start_requested", time=server.clock.now(), project_id="web")
    await server.projects.set_desired("web", DesiredState.RUNNING, NONE, wanted)
    async with server.serving():
        await server.until(RuntimeState.READY)


async def test_a_silent_supervisor_makes_the_state_unknown_and_keeps_the_project(
    server: Server,
) -> None:
    await server.start()
    server.driver.silence("web")
    assert server.runtimes.get("web").state is RuntimeState.UNKNOWN
    with pytest.raises(AttError) as refused:
        await server.stop()
    assert refused.value.reason is Reason.SUPERVISOR_UNREACHABLE
    with pytest.raises(AttError) as unsure:
        await server.start()
    assert unsure.value.reason is Reason.SUPERVISOR_UNREACHABLE
    with pytest.raises(AttError) as kept:
        await server.projects.delete("web", request_id="", principal="")
    assert kept.value.reason is Reason.PROJECT_NOT_STOPPED
    server.driver.unsilence("web")
    assert (await server.start()).state is RuntimeState.READY
    assert (await server.stop()).state is RuntimeState.STOPPED


async def test_an_app_that_may_have_filled_the_disk_can_be_stopped(server: Server) -> None:
    await server.start()
    server.store.write_error = AttError(Reason.STORAGE_FULL, "Free some.", path="/att.db")
    with pytest.raises(AttError) as unstored:
        await server.stop()
    assert unstored.value.reason is Reason.STORAGE_FULL
    assert unstored.value.metadata["path"] == "/att.db"
    assert "is stopped, but that could not be stored" in unstored.value.message
    runtime = server.runtimes.get("web")
    assert (runtime.state, runtime.desired) == (RuntimeState.STOPPED, DesiredState.RUNNING)
    server.store.write_error = None
    assert (await server.stop()).desired is DesiredState.STOPPED


async def test_an_app_is_not_stopped_where_that_may_not_be_stored_for_another_reason(
    server: Server,
) -> None:
    await server.start()
    server.store.write_error = AttError(Reason.AUDIT_UNAVAILABLE, "The store is broken.")
    with pytest.raises(AttError) as refused:
        await server.stop()
    server.store.write_error = None
    assert refused.value.reason is Reason.AUDIT_UNAVAILABLE
    assert server.runtimes.get("web").state is RuntimeState.READY


async def test_a_signal_is_sent_once_under_its_request_id(server: Server) -> None:
    await server.start()
    for _ in range(2):
        await server.runtimes.signal("web", 10, request_id="once", principal="")
    assert server.driver.signals == [("web", 10)]


async def test_a_deleted_project_has_no_runtime(server: Server) -> None:
    await server.start()
    await server.stop()
    await server.projects.delete("web", request_id="", principal="")
    with pytest.raises(AttError) as missing:
        server.runtimes.get("web")
    assert missing.value.reason is Reason.PROJECT_NOT_FOUND
    assert server.runtimes.list(10, "")[0] == []


async def test_revisions_rise_with_every_change(server: Server) -> None:
    revisions = [server.runtimes.get("web").revision]
    await server.start()
    revisions.append(server.runtimes.get("web").revision)
    await server.stop()
    revisions.append(server.runtimes.get("web").revision)
    assert revisions == sorted(set(revisions))
    assert server.runtimes.list(10, "")[2] >= revisions[-1]


async def test_a_request_id_is_refused_for_other_settings_of_any_kind(server: Server) -> None:
    await server.start(request_id="once")
    for other in (
        RuntimeSettings(env_file=".env"),
        RuntimeSettings(restart=RestartPolicy(condition=RestartCondition.ALWAYS)),
        RuntimeSettings(limits=ResourceLimits(open_files=100)),
        RuntimeSettings(liveness=Probe(kind=TcpProbe(port=80))),
        RuntimeSettings(readiness=Probe(kind=LogProbe(pattern="up"))),
    ):
        server.settings.env_files[".env"] = {}
        with pytest.raises(AttError) as refused:
            await server.start(other, request_id="once")
        assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_a_failed_start_is_told_again_to_a_repeated_call(server: Server) -> None:
    server.driver.missing.add("serve")
    for _ in range(2):
        with pytest.raises(AttError) as failed:
            await server.start(request_id="once")
        assert failed.value.reason is Reason.RUNTIME_START_FAILED
    assert (await server.events()).count("start_failed") == 1


async def test_a_start_needs_one_write_and_its_outcome_comes_later(server: Server) -> None:
    await server.start(request_id="once")
    await server.runs.events.flush()
    claimed = await server.store.claim_request(
        RequestClaim(
            request_id="once",
            method="StartRuntime",
            digest="",
            project_id="web",
            time=server.clock.now(),
        )
    )
    assert claimed is not None
    assert claimed.outcome == run_id(server.runtimes.get("web"))


async def test_a_start_cut_short_after_its_claim_is_made_up_for_by_the_repeated_call(
    server: Server,
) -> None:
    claimed = server.runtimes._intents.request("StartRuntime", "web", NONE, "once")
    await server.store.claim_request(claimed)
    server.clock.advance(timedelta(seconds=1))
    first = await server.start(request_id="once")
    assert first.state is RuntimeState.READY
    server.driver.exit("web", 1)
    again = await server.start(request_id="once")
    assert run_id(again) == run_id(first)


async def test_what_the_env_file_gives_is_secret_and_what_env_says_wins(server: Server) -> None:
    server.settings.env_files[".env"] = {"TOKEN": "hunter2", "COLOUR": "red"}
    settings = RuntimeSettings(env_file=".env", env={"COLOUR": "blue"})
    first = await server.start(settings)
    spec = server.driver.specs["web"]
    assert spec.secrets == {"TOKEN": "hunter2"}
    assert spec.env["COLOUR"] == "blue"
    assert "TOKEN" not in spec.env
    assert "hunter2" not in repr(await server.told(""))
    server.settings.env_files[".env"] = {"TOKEN": "other"}
    with pytest.raises(AttError) as refused:
        await server.start(settings)
    assert refused.value.reason is Reason.RUNTIME_SPEC_CONFLICT
    assert first.status is not None
    assert "hunter2" not in first.status.spec_digest


@pytest.mark.parametrize("reason", ["startup_deadline", "liveness_failed"])
async def test_an_app_that_was_ended_before_it_was_ready_says_why(
    server: Server, reason: str
) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    starting = asyncio.create_task(server.start(wait_ready=True, timeout=timedelta(minutes=1)))
    await server.clock.wait_for_sleepers()
    await server.driver.fail("web", run_id(server.runtimes.get("web")), reason)
    with pytest.raises(AttError) as failed:
        await starting
    assert failed.value.reason is Reason.RUNTIME_START_FAILED
    assert failed.value.metadata["cause"] == reason
    assert " said\n  this" in failed.value.message


async def test_an_app_in_a_crash_loop_fails_the_start_that_waits_for_it(server: Server) -> None:
    once = RestartPolicy(condition=RestartCondition.ALWAYS, max_restarts=1)
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    starting = asyncio.create_task(
        server.start(RuntimeSettings(restart=once), wait_ready=True, timeout=timedelta(minutes=1))
    )
    await server.clock.wait_for_sleepers()
    server.driver.exit("web", 1)
    server.driver.restart("web")
    server.driver.exit("web", 1)
    with pytest.raises(AttError) as failed:
        await starting
    assert failed.value.metadata["cause"] == "crash_loop"
    assert " said\n  this" in failed.value.message


async def test_who_waits_too_long_for_an_app_that_falls_again_and_again_sees_why(
    server: Server,
) -> None:
    always = RuntimeSettings(restart=RestartPolicy(condition=RestartCondition.ALWAYS))
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    await server.start(always)
    server.driver.exit("web", 7)
    server.driver.restart("web")
    with pytest.raises(AttError) as late:
        await server.start(always, wait_ready=True, timeout=timedelta(0))
    assert late.value.reason is Reason.RUNTIME_NOT_READY
    assert "exited with code 7" in late.value.message
    assert " said\n  this" in late.value.message

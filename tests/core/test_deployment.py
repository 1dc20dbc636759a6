"""Apps that are run from releases, on fakes: a whole server without its wire."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.core.cycles.artifacts import Manifest
from att_server.core.errors import AttError, Reason
from att_server.core.model import DesiredState, EventFilter, ProjectMode, RuntimeState
from att_server.core.settings import (
    HttpProbe,
    Probe,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
)
from tests.core.fake_server import HEALTH, RUN, Server, run_id

OLD, NEW = "a" * 40, "b" * 40
CYCLE = "01JD0000000000000000000001"
RESTARTED = RuntimeSettings(
    command=("serve",), restart=RestartPolicy(condition=RestartCondition.ALWAYS)
)


async def stage(server: Server, *releases: str) -> None:
    for release_id in releases:
        manifest = Manifest(
            release_id=release_id, tree="c" * 40, cycle_id=CYCLE, create_time=server.clock.now()
        )
        await server.artifacts.seal("web", manifest)


async def switch(server: Server, release_id: str = NEW) -> str:
    status = await server.deployments.switch("web", release_id, cycle_id=CYCLE)
    return status.run_id


@pytest.fixture
async def staged(server: Server) -> Server:
    await stage(server, OLD, NEW)
    return server


# Switching ------------------------------------------------------------------


async def test_a_switch_runs_the_app_from_the_release(staged: Server) -> None:
    before = run_id(await staged.start())
    after = await switch(staged)
    runtime = staged.deployments.runtime("web")
    assert runtime.state is RuntimeState.READY
    assert runtime.status is not None
    assert runtime.status.release_id == NEW
    assert run_id(runtime) == after != before
    assert staged.projects.get("web").release_id == NEW
    assert await staged.artifacts.current("web") == NEW
    spec = staged.driver.specs["web"]
    assert spec.directory == staged.artifacts.directory("web", NEW)
    assert spec.env["ATT_RELEASE_ID"] == NEW
    assert spec.env["ATT_DATA_DIR"] == str(staged.artifacts.data_directory("web"))


async def test_a_switch_starts_an_app_that_did_not_run(staged: Server) -> None:
    await switch(staged)
    assert staged.deployments.runtime("web").desired is DesiredState.RUNNING
    assert staged.deployments.runtime("web").state is RuntimeState.READY


async def test_a_switch_back_to_no_release_runs_the_app_from_its_own_directory(
    staged: Server,
) -> None:
    await switch(staged)
    await switch(staged, "")
    assert staged.driver.specs["web"].directory == Path("/web")
    assert "ATT_RELEASE_ID" not in staged.driver.specs["web"].env
    assert staged.projects.get("web").release_id == ""


async def test_every_switch_makes_one_run_of_the_same_release_too(staged: Server) -> None:
    first = await switch(staged)
    second = await switch(staged)
    assert first != second
    assert (await staged.events()).count("started") == 2


async def test_a_switch_is_told_with_the_intent_and_in_its_place(staged: Server) -> None:
    await staged.start()
    await switch(staged)
    await staged.runs.events.flush()
    events, _ = await staged.store.list_events(EventFilter(), cursor=0, limit=100)
    types = [event.event_type for event in events]
    assert types[-4:] == ["deploy.started", "runtime.ended", "runtime.started", "runtime.ready"]
    started = next(event for event in events if event.event_type == "deploy.started")
    assert started.cycle_id == CYCLE
    assert started.attributes == {"release_id": NEW, "release_before": ""}


async def test_what_the_last_start_was_given_is_kept(staged: Server) -> None:
    await staged.start(RuntimeSettings(env={"COLOUR": "red"}))
    await switch(staged)
    assert staged.driver.specs["web"].env["COLOUR"] == "red"


async def test_the_settings_are_those_of_the_release(server: Server) -> None:
    await stage(server, NEW)
    await server.projects.update("web", path=None, runtime=RuntimeSettings(), principal="")
    directory = server.artifacts.directory("web", NEW)
    server.settings.settings["web"] = RuntimeSettings(command=("checkout",))
    server.settings.settings[directory] = RuntimeSettings(command=("released",))
    await switch(server)
    assert server.driver.specs["web"].command == ("released",)
    assert (await server.projects.effective(server.projects.get("web"))).command == ("released",)


# What cannot be switched to ---------------------------------------------------


@pytest.mark.parametrize("check_only", [True, False])
async def test_what_is_wrong_with_a_release_is_found_before_anything_is_done(
    staged: Server, check_only: bool
) -> None:
    before = run_id(await staged.start())
    wrong = AttError(Reason.SETTINGS_INVALID, "wrong", path="", line="1", key="x")
    staged.settings.settings[staged.artifacts.directory("web", NEW)] = wrong
    act = staged.deployments.check_release("web", NEW) if check_only else switch(staged)
    with pytest.raises(AttError) as caught:
        await act
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert run_id(staged.deployments.runtime("web")) == before
    assert staged.deployments.runtime("web").state is RuntimeState.READY
    assert staged.projects.get("web").release_id == ""
    assert await staged.artifacts.current("web") == ""
    assert await staged.told("deploy.") == []


async def test_a_directory_without_a_manifest_is_no_release(server: Server) -> None:
    await server.artifacts.link_shared("web", NEW, [])
    with pytest.raises(AttError) as caught:
        await switch(server)
    assert caught.value.reason is Reason.PROJECT_PATH_INVALID
    assert caught.value.metadata == {"path": str(server.artifacts.directory("web", NEW))}


async def test_a_release_that_cannot_be_started_says_why(staged: Server) -> None:
    await switch(staged, OLD)
    staged.settings.settings[staged.artifacts.directory("web", NEW)] = RuntimeSettings()
    staged.driver.missing.add("serve")
    with pytest.raises(AttError) as caught:
        await switch(staged)
    assert caught.value.reason is Reason.RUNTIME_START_FAILED
    assert caught.value.metadata["cause"] == "command_not_found"
    assert staged.projects.get("web").release_id == NEW


async def test_an_app_that_may_run_is_not_switched(staged: Server) -> None:
    await staged.start()
    staged.driver.silence("web")
    with pytest.raises(AttError) as caught:
        await switch(staged)
    assert caught.value.reason is Reason.SUPERVISOR_UNREACHABLE
    assert staged.projects.get("web").release_id == ""
    staged.driver.unsilence("web")
    assert await switch(staged)


# Who may do something with the app --------------------------------------------


async def test_lifecycle_calls_are_kept_out_while_the_project_is_held(staged: Server) -> None:
    before = run_id(await staged.start())
    await staged.deployments.hold("web")
    await staged.deployments.hold("web")
    for call in (staged.stop, staged.restart, staged.start):
        with pytest.raises(AttError) as refused:
            await call()
        assert refused.value.reason is Reason.PROJECT_BUSY
        assert refused.value.metadata["operation"] == "deployment"
    with pytest.raises(AttError) as refused:
        await staged.projects.delete("web", request_id="", principal="")
    assert refused.value.reason is Reason.PROJECT_BUSY
    assert run_id(staged.deployments.runtime("web")) == before
    staged.deployments.let_go("web")
    staged.deployments.let_go("web")
    assert run_id(await staged.restart()) != before


async def test_a_hold_waits_for_the_call_that_goes_on(staged: Server) -> None:
    await staged.start()
    staged.driver.hold_stops()
    stopping = asyncio.create_task(staged.stop())
    await staged.until(RuntimeState.STOPPING)
    holding = asyncio.create_task(staged.deployments.hold("web"))
    again = asyncio.create_task(staged.deployments.hold("web"))
    await asyncio.sleep(0)
    assert not holding.done()
    staged.driver.release_stops()
    await asyncio.gather(stopping, holding, again)
    with pytest.raises(AttError) as refused:
        await staged.start()
    assert refused.value.reason is Reason.PROJECT_BUSY


async def test_a_start_by_a_person_uses_the_release(staged: Server) -> None:
    await switch(staged)
    staged.deployments.let_go("web")
    await staged.stop()
    await staged.start()
    assert staged.driver.specs["web"].release_id == NEW
    await staged.restart()
    assert staged.driver.specs["web"].release_id == NEW


# Kills ------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["stop", "start"])
async def test_a_server_killed_in_a_switch_is_followed_by_one_that_runs_the_release(
    before: str,
) -> None:
    server = Server()
    async with server.serving():
        await server.create()
        await stage(server, OLD, NEW)
        await switch(server, OLD)
        if before == "stop":
            server.driver.hold_stops()
            switching = asyncio.create_task(switch(server))
            await server.until(RuntimeState.STOPPING)
            switching.cancel()
            await asyncio.wait([switching])
        else:
            await server.projects.set_release("web", NEW)
            await server.driver.stop("web", None)
    async with server.serving():
        server.driver.release_stops()
        await server.until(RuntimeState.READY)
        status = server.deployments.runtime("web").status
        assert status is not None
        assert status.release_id == NEW


async def test_a_project_that_is_held_is_not_recovered_until_it_is_let_go() -> None:
    server = Server()
    async with server.serving():
        await server.create(RESTARTED)
        await stage(server, OLD, NEW)
        await switch(server, OLD)
    server.driver.lose("web")
    server.held_at_start = ("web",)
    async with server.serving():
        assert not await server.deployments.changed("web", timedelta(milliseconds=20))
        assert server.deployments.runtime("web").state is RuntimeState.EXITED
        await switch(server)
        server.deployments.let_go("web")
        assert server.deployments.runtime("web").state is RuntimeState.READY
        assert (await server.events()).count("started") == 2


async def test_a_switch_that_is_repeated_makes_one_more_run_at_worst(staged: Server) -> None:
    await switch(staged, OLD)
    await switch(staged)
    await switch(staged)
    assert (await staged.events()).count("started") == 3
    assert staged.deployments.runtime("web").state is RuntimeState.READY


# Looking ----------------------------------------------------------------------


async def test_a_check_asks_the_probe_of_the_release(staged: Server) -> None:
    probe = Probe(kind=HttpProbe(url=HEALTH))
    staged.settings.settings[staged.artifacts.directory("web", NEW)] = RuntimeSettings(
        readiness=probe
    )
    await switch(staged)
    assert (await staged.deployments.check("web", None)).reason == "http_error"
    staged.prober.set(HEALTH, healthy=True)
    assert (await staged.deployments.check("web", None)).healthy
    assert (await staged.deployments.check("web", probe)).probe == "http"


async def test_a_check_without_a_probe_is_of_the_process(staged: Server) -> None:
    await switch(staged)
    assert (await staged.deployments.check("web", None)).reason == "process_running"
    staged.driver.exit("web", 3)
    result = await staged.deployments.check("web", None)
    assert (result.healthy, result.reason, result.exit_code) == (False, "process_exited", 3)


async def test_a_change_of_the_app_is_noticed(staged: Server) -> None:
    await switch(staged)
    waiting = asyncio.create_task(staged.deployments.changed("web", timedelta(minutes=1)))
    await asyncio.sleep(0)
    staged.driver.exit("web", 1)
    assert await waiting


async def test_the_last_lines_are_told_oldest_first(staged: Server) -> None:
    log_id = staged.projects.get("web").log_id
    for number in range(50):
        staged.logs.append_lines("web", log_id, b"line %d" % number)
    assert await staged.deployments.recent_lines("web", 2) == [b"line 48", b"line 49"]
    assert len(await staged.deployments.recent_lines("web", 1000)) == 50


async def test_an_app_that_printed_nothing_has_no_last_lines(staged: Server) -> None:
    assert await staged.deployments.recent_lines("web", 10) == []


# The mode ---------------------------------------------------------------------


async def test_a_mode_is_told_once_with_its_reason(staged: Server) -> None:
    for _ in range(2):
        await staged.deployments.set_mode("web", ProjectMode.SAFE, "rollback_failed")
    project = staged.deployments.project("web")
    assert (project.mode, project.mode_reason) == (ProjectMode.SAFE, "rollback_failed")
    [event] = await staged.told("project.mode")
    assert event.reason == "rollback_failed"
    assert event.attributes == {"mode": "safe", "before": "normal"}
    await staged.projects.set_mode("web", ProjectMode.NORMAL, "", principal="token:1")
    _, left = await staged.told("project.mode")
    assert (left.principal, left.attributes["mode"]) == ("token:1", "normal")


async def test_what_is_not_stored_is_not_shown(staged: Server) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise AttError(Reason.STORAGE_FULL, "full", path="/")

    put = staged.store.put_project
    staged.store.put_project = refuse  # type: ignore[method-assign]  # the disk is full
    with pytest.raises(AttError):
        await switch(staged)
    with pytest.raises(AttError):
        await staged.deployments.set_mode("web", ProjectMode.SAFE, "x")
    staged.store.put_project = put  # type: ignore[method-assign]  # as it was
    project = staged.projects.get("web")
    assert (project.release_id, project.mode) == ("", ProjectMode.NORMAL)
    assert await staged.artifacts.current("web") == ""


async def test_a_deleted_project_leaves_no_release(server: Server) -> None:
    await stage(server, NEW)
    await switch(server)
    server.deployments.let_go("web")
    await server.stop()
    await server.projects.delete("web", request_id="", principal="")
    assert await server.artifacts.staged("web") == frozenset()
    assert await server.artifacts.current("web") == ""
    await server.create(RUN)
    assert server.projects.get("web").release_id == ""

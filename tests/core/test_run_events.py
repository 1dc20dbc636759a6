"""What runs go through is told in the audit log, each happening exactly once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.events import EventManager
from att_server.core.model import EventFilter, RuntimeState
from att_server.core.settings import RestartCondition, RestartPolicy, RuntimeSettings
from tests.core.fake_server import PROBED, Server, run_id

RESTARTED = RuntimeSettings(
    command=("serve",), restart=RestartPolicy(condition=RestartCondition.ALWAYS)
)


@pytest.fixture
async def restarted(server: Server) -> Server:
    await server.projects.update("web", path=None, runtime=RESTARTED, principal="")
    return server


async def test_a_restart_by_policy_is_told_with_attempt_wait_and_cause(restarted: Server) -> None:
    first = await restarted.start()
    restarted.driver.exit("web", 3)
    assert restarted.runtimes.get("web").state is RuntimeState.BACKOFF
    restarted.driver.restart("web")
    assert await restarted.events() == [
        "start_requested",
        "started",
        "ready",
        "ended",
        "restarting",
        "started",
        "ready",
    ]
    (restarting,) = await restarted.told("runtime.restarting")
    assert restarting.run_id == run_id(first)
    assert restarting.reason == "exited"
    assert restarting.attributes == {"attempt": "1", "cause": "exited", "wait": "1.000"}


async def test_an_end_is_told_with_its_cause_and_reason(restarted: Server) -> None:
    runtime = await restarted.start()
    await restarted.driver.fail("web", run_id(runtime), "liveness_failed")
    (ended,) = await restarted.told("runtime.ended")
    assert ended.attributes["cause"] == "signal 15"
    assert ended.attributes["reason"] == "liveness_failed"
    assert float(ended.attributes["seconds"]) >= 0


async def test_a_crash_loop_is_told_as_a_failure(server: Server) -> None:
    looping = RestartPolicy(condition=RestartCondition.ALWAYS, max_restarts=1)
    await server.start(RuntimeSettings(restart=looping))
    server.driver.exit("web", 1)
    server.driver.restart("web")
    server.driver.exit("web", 1)
    (failed,) = await server.told("runtime.failed")
    assert failed.reason == "crash_loop"
    assert (await server.events()).count("restarting") == 1


async def test_runs_that_no_server_saw_are_each_told_once(restarted: Server) -> None:
    await restarted.start()
    await restarted.events()
    await restarted.driver.aclose()
    for _ in range(30):
        restarted.driver.exit("web", 1)
        restarted.driver.restart("web")
    for _ in range(2):
        async with restarted.serving():
            types = await restarted.events()
            assert types.count("started") == 31
            assert types.count("ended") == types.count("restarting") == 30
        await restarted.driver.aclose()
    attempts = [event.attributes["attempt"] for event in await restarted.told("runtime.restarting")]
    assert attempts == [str(number) for number in range(1, 31)]


async def test_what_one_status_tells_of_several_runs_is_all_told(restarted: Server) -> None:
    await restarted.start()
    restarted.driver.hold_words()
    for _ in range(3):
        restarted.driver.exit("web", 1)
        restarted.driver.restart("web")
    restarted.driver.exit("web", 1)
    restarted.driver.release_words()
    types = await restarted.events()
    assert types.count("started") == types.count("ended") == types.count("restarting") == 4


async def test_a_run_whose_end_was_not_stored_before_its_server_died_is_told_by_the_next(
    server: Server,
) -> None:
    first = await server.start()
    await server.events()
    # The end and the next start come between two servers: nobody stores them.
    await server.driver.aclose()
    await server.driver.stop("web", None)
    second = await server.driver.start(server.driver.specs["web"])
    for _ in range(2):
        async with server.serving():
            types = await server.events()
            assert types.count("started") == 2
            assert types.count("ended") == 1
            assert "restarting" not in types
        await server.driver.aclose()
    (ended,) = await server.told("runtime.ended")
    assert ended.run_id == run_id(first) != second.run_id


async def test_readiness_that_comes_and_goes_is_told_each_time(server: Server) -> None:
    await server.projects.update("web", path=None, runtime=PROBED, principal="")
    runtime = await server.start()
    for _ in range(40):
        await server.driver.set_ready("web", run_id(runtime))
        await server.driver.set_ready("web", run_id(runtime), ready=False)
    assert (await server.events()).count("unready") == 40
    await server.driver.aclose()
    async with server.serving():
        types = await server.events()
        assert types.count("started") == 1
        assert types.count("ready") == types.count("unready") == 40
        await server.driver.set_ready("web", run_id(runtime))
        assert (await server.events()).count("ready") == 41


async def test_events_of_a_silent_supervisor_are_told_once_it_answers(restarted: Server) -> None:
    await restarted.start()
    restarted.driver.silence("web")
    types = await restarted.events()
    restarted.driver.unsilence("web")
    assert await restarted.events() == types


async def test_events_wait_for_a_store_that_cannot_be_written(restarted: Server) -> None:
    await restarted.start()
    full = AttError(Reason.STORAGE_FULL, "There is no space left.")
    restarted.store.write_error = full
    restarted.driver.exit("web", 1)
    with pytest.raises(AttError):
        await restarted.runs.events.flush()
    restarted.driver.restart("web")
    restarted.store.write_error = None
    types = await restarted.events()
    assert types[-4:] == ["ended", "restarting", "started", "ready"]
    assert types.count("started") == 2


async def test_what_a_server_that_died_did_not_store_is_told_by_the_next(server: Server) -> None:
    await server.start()
    await server.events()
    server.store.write_error = AttError(Reason.STORAGE_FULL, "There is no space left.")
    server.driver.exit("web", 1)
    await server.clock.wait_for_sleepers()  # it will try again, but dies before
    server.store.write_error = None
    async with server.serving():
        assert (await server.events()).count("ended") == 1


async def test_the_wait_is_told_as_it_was(restarted: Server) -> None:
    await restarted.start()
    await restarted.events()
    await restarted.driver.aclose()
    restarted.driver.exit("web", 1)
    restarted.clock.advance(timedelta(seconds=5))
    restarted.driver.restart("web")
    async with restarted.serving():
        (restarting,) = await restarted.told("runtime.restarting")
        assert restarting.attributes["wait"] == "5.000"


async def test_who_lists_events_is_told_of_everything_that_was_shown_before(
    server: Server,
) -> None:
    events = EventManager(store=server.store, stored=Bell(), settle=server.runs.events.settle)
    for _ in range(5):
        runtime = await server.restart()
        told, _, _ = await events.list(EventFilter(), cursor=0, limit=1000, tail=False)
        assert (told[-1].event_type, told[-1].run_id) == ("runtime.ready", run_id(runtime))

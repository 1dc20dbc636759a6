"""What every `RuntimeDriver` does, real and fake."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Mapping
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import RunSpec, RunStatus, RuntimeState
from att_server.core.ports import RuntimeDriver
from att_server.core.settings import RestartPolicy
from att_server.testing.driver import FakeRuntimeDriver
from tests.supervisor.host import Host, Listener, new_host, policy, until


class Fixture:
    """A driver to test, and the way to the one that a next server would have."""

    def __init__(self, host: Host, fake: FakeRuntimeDriver | None) -> None:
        self.host = host
        self._fake = fake
        self._opened: list[RuntimeDriver] = []

    async def adopted(
        self, *projects: str, listener: Listener | None = None
    ) -> tuple[RuntimeDriver, Mapping[str, RunStatus]]:
        """The driver of a new server, and what it found."""
        for project in projects:
            self.host.project(project).mkdir(parents=True, exist_ok=True)
        driver: RuntimeDriver = self._fake or self.host.driver()
        self._opened.append(driver)
        logs = dict.fromkeys(projects, self.host.log_id)
        return driver, await driver.adopt(logs, listener or Listener())

    def lasting(
        self,
        *,
        project: str = "app",
        probed: bool = False,
        restart: RestartPolicy | None = None,
    ) -> RunSpec:
        return self.host.spec("sleep", "60", project=project, probed=probed, restart=restart)

    def lose(self) -> None:
        """The supervisor of `app` dies."""
        if self._fake is not None:
            self._fake.lose("app")
        else:
            self.host.kill_supervisor()

    async def aclose(self) -> None:
        for driver in self._opened:
            await driver.aclose()


def in_backoff(status: RunStatus) -> bool:
    return status.state is RuntimeState.BACKOFF


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@pytest.fixture(params=["fake", "supervisors"])
async def drivers(request: pytest.FixtureRequest, host: Host) -> object:
    fixture = Fixture(host, FakeRuntimeDriver() if request.param == "fake" else None)
    yield fixture
    await fixture.aclose()


async def test_a_project_that_never_ran_is_not_found(drivers: Fixture) -> None:
    driver, found = await drivers.adopted("app")
    assert found == {}
    assert await driver.stop("app", None) is None


async def test_an_app_without_a_probe_is_ready_when_started(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    spec = drivers.lasting()
    status = await driver.start(spec)
    assert status.state is RuntimeState.READY
    assert status.spec_digest == spec.digest()
    assert status.command == spec.command
    assert status.pid > 0
    assert status.run_id
    assert status.start_time is not None
    assert status.ready_time is not None
    assert status.exit is None


async def test_what_was_prepared_is_for_one_start(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    async with driver.prepared("app", drivers.host.log_id):
        first = await driver.start(drivers.lasting())
        assert first.state is RuntimeState.READY
        await driver.stop("app", timedelta(0))
        second = await driver.start(drivers.lasting())
    assert second.state is RuntimeState.READY
    assert second.run_id != first.run_id


async def test_a_preparation_without_a_start_changes_nothing(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    async with driver.prepared("app", drivers.host.log_id):
        pass
    assert not listener.statuses
    first = await driver.start(drivers.lasting())
    async with driver.prepared("app", drivers.host.log_id):
        pass  # it runs
    assert listener.statuses["app"][-1] == first
    await driver.stop("app", timedelta(0))
    async with driver.prepared("app", drivers.host.log_id):
        pass
    assert (await driver.start(drivers.lasting())).state is RuntimeState.READY


async def test_a_probed_app_is_ready_when_told_so(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    status = await driver.start(drivers.lasting(probed=True))
    assert (status.state, status.ready_time) == (RuntimeState.RUNNING, None)
    await driver.set_ready("app", "01J0000000000000000000000A")
    assert listener.statuses["app"][-1].state is RuntimeState.RUNNING
    await driver.set_ready("app", status.run_id)
    ready = await listener.until("app", lambda s: s.state is RuntimeState.READY)
    assert ready.ready_time is not None
    await driver.set_ready("app", status.run_id)
    assert listener.statuses["app"][-1].ready_time == ready.ready_time


async def test_readiness_can_be_taken_back(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    status = await driver.start(drivers.lasting(probed=True))
    await driver.set_ready("app", status.run_id)
    await listener.until("app", lambda s: s.state is RuntimeState.READY)
    await driver.set_ready("app", "01J0000000000000000000000A", ready=False)
    assert listener.statuses["app"][-1].state is RuntimeState.READY
    await driver.set_ready("app", status.run_id, ready=False)
    unready = await listener.until("app", lambda s: s.state is RuntimeState.RUNNING)
    assert (unready.run_id, unready.ready_time) == (status.run_id, None)


async def test_a_failed_run_is_followed_by_what_the_policy_says(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    spec = drivers.lasting(restart=policy(wait=3600))
    started = await driver.start(spec)
    await driver.fail("app", "01J0000000000000000000000A", "liveness_failed")
    assert listener.statuses["app"][-1].state is RuntimeState.READY
    await driver.fail("app", started.run_id, "liveness_failed")
    waits = await listener.until("app", in_backoff)
    assert (waits.reason, waits.run_id, waits.restarts) == ("liveness_failed", started.run_id, 0)
    assert waits.exit is not None
    assert waits.exit.reason == "liveness_failed"
    assert waits.next_restart_time is not None
    await driver.fail("app", started.run_id, "liveness_failed")
    assert await driver.usage(["app"]) == {}
    with pytest.raises(AttError) as refused:
        await driver.signal("app", signal.SIGUSR1)
    assert refused.value.reason is Reason.RUNTIME_NOT_RUNNING
    again = await driver.start_now("app")
    assert again is not None
    assert (again.state, again.restarts) == (RuntimeState.READY, 0)
    assert [run.run_id for run in again.past] == [started.run_id]
    assert again.past[0].exit == waits.exit
    assert await driver.start_now("app") == again


async def test_a_failed_run_without_a_policy_has_failed(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    assert await driver.start_now("app") is None
    started = await driver.start(drivers.lasting())
    await driver.fail("app", started.run_id, "startup_deadline")
    status = await listener.until("app", lambda s: not s.state.alive)
    assert (status.state, status.reason) == (RuntimeState.FAILED, "startup_deadline")
    assert await driver.start_now("app") == status


async def test_a_stop_in_backoff_is_the_end_at_once(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    started = await driver.start(drivers.lasting(restart=policy(wait=3600)))
    await driver.fail("app", started.run_id, "liveness_failed")
    waits = await listener.until("app", in_backoff)
    status = await driver.stop("app", None)
    assert status is not None
    assert (status.state, status.reason, status.exit) == (RuntimeState.STOPPED, "", waits.exit)
    assert status.next_restart_time is None


async def test_a_start_after_a_loss_waits_and_goes_on_counting(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    spec = drivers.lasting(restart=policy(wait=3600, max_restarts=1))
    started = await driver.start(spec)
    drivers.lose()
    lost = await listener.until("app", lambda s: not s.state.alive)
    assert (lost.state, lost.reason) == (RuntimeState.EXITED, "supervisor_lost")
    waits = await driver.start(spec, after_loss=True)
    assert (waits.state, waits.reason) == (RuntimeState.BACKOFF, "supervisor_lost")
    assert (waits.run_id, waits.restarts) == (started.run_id, 0)
    assert waits.exit == lost.exit


async def test_usage_is_of_what_runs(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app", "other")
    await driver.start(drivers.lasting())
    used = await driver.usage(["app", "other", "unknown"])
    assert list(used) == ["app"]
    assert used["app"].process_count == 1
    assert await driver.usage([]) == {}
    await driver.stop("app", timedelta(0))
    assert await driver.usage(["app"]) == {}


async def test_a_command_that_is_missing_fails_the_start(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    status = await driver.start(drivers.host.spec("no-such-command"))
    assert (status.state, status.start_failure) == (RuntimeState.FAILED, "command_not_found")
    assert status.pid == 0
    assert status.exit is not None
    assert status.exit.start_error is not None
    assert status.reason == "start_error"
    assert await driver.stop("app", None) == status


async def test_stop_ends_the_app_and_keeps_how(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    started = await driver.start(drivers.lasting())
    status = await driver.stop("app", None)
    assert status is not None
    assert (status.state, status.run_id) == (RuntimeState.STOPPED, started.run_id)
    assert status.exit is not None
    assert status.exit.signal == signal.SIGTERM
    assert status.exit.duration >= timedelta(0)
    assert await driver.stop("app", timedelta(0)) == status


async def test_the_runs_before_a_start_are_told_by_it(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    runs = []
    for _ in range(10):
        runs.append((await driver.start(drivers.lasting())).run_id)
        await driver.stop("app", timedelta(0))
    status = await driver.start(drivers.lasting())
    assert [run.run_id for run in status.earlier] == runs[-8:]
    assert status.past == ()
    await driver.stop("app", timedelta(0))


async def test_stops_at_the_same_time_join(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    await driver.start(drivers.lasting())
    ends = await asyncio.gather(*(driver.stop("app", None) for _ in range(5)))
    assert len(set(ends)) == 1
    assert ends[0] is not None
    assert ends[0].state is RuntimeState.STOPPED


async def test_a_stop_goes_on_without_its_caller(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    await driver.start(drivers.lasting())
    stop = asyncio.create_task(driver.stop("app", None))
    await listener.until("app", lambda s: s.state is not RuntimeState.READY)
    stop.cancel()
    await asyncio.gather(stop, return_exceptions=True)
    status = await driver.stop("app", None)
    assert status is not None
    assert status.state is RuntimeState.STOPPED


async def test_the_listener_is_told_every_state_to_the_last(drivers: Fixture) -> None:
    listener = Listener()
    driver, _ = await drivers.adopted("app", listener=listener)
    started = await driver.start(drivers.lasting())
    stopped = await driver.stop("app", None)
    assert stopped is not None
    await listener.until("app", lambda s: s == stopped)
    told = [s.state for s in listener.statuses["app"] if s.run_id == started.run_id]
    order = [RuntimeState.READY, RuntimeState.STOPPING, RuntimeState.STOPPED]
    assert [state for state in told if state in order] == order


async def test_runs_have_ids_of_their_own(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    runs = []
    for _ in range(3):
        runs.append((await driver.start(drivers.lasting())).run_id)
        await driver.stop("app", timedelta(0))
    assert sorted(set(runs)) == runs


async def test_a_new_server_finds_apps_as_they_are(drivers: Fixture) -> None:
    first, _ = await drivers.adopted("app", "ended", "never")
    running = await first.start(drivers.lasting())
    await first.start(drivers.lasting(project="ended"))
    ended = await first.stop("ended", None)
    await first.aclose()
    second, found = await drivers.adopted("app", "ended", "never")
    assert found == {"app": running, "ended": ended}
    stopped = await second.stop("app", None)
    assert stopped is not None
    assert stopped.run_id == running.run_id


async def test_a_signal_needs_an_app_that_runs(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    with pytest.raises(AttError) as never:
        await driver.signal("app", signal.SIGUSR1)
    assert never.value.reason is Reason.RUNTIME_NOT_RUNNING
    await driver.start(drivers.lasting())
    await driver.signal("app", signal.SIGCONT)
    await driver.stop("app", None)
    with pytest.raises(AttError) as stopped:
        await driver.signal("app", signal.SIGUSR1)
    assert stopped.value.reason is Reason.RUNTIME_NOT_RUNNING


async def test_a_forgotten_project_never_ran(drivers: Fixture) -> None:
    driver, _ = await drivers.adopted("app")
    await driver.start(drivers.lasting())
    await driver.stop("app", None)
    await driver.forget("app")
    await driver.forget("app")
    assert await driver.stop("app", None) is None
    await driver.aclose()
    _, found = await drivers.adopted("app")
    assert found == {}


async def test_many_apps_start_and_stop_side_by_side(drivers: Fixture) -> None:
    names = [f"app{number}" for number in range(8)]
    driver, _ = await drivers.adopted(*names)
    specs = [drivers.lasting(project=name) for name in names]
    started = await asyncio.gather(*map(driver.start, specs))
    assert {status.state for status in started} == {RuntimeState.READY}
    assert len({status.pid for status in started}) == len(names)
    stopped = await asyncio.gather(*(driver.stop(name, timedelta(0)) for name in names))
    assert {status.state for status in stopped if status} == {RuntimeState.STOPPED}


async def test_growth_of_the_log_is_told(host: Host) -> None:
    listener = Listener()
    driver = await host.opened("app", listener=listener)
    await driver.start(host.spec("sh", "-c", "while :; do echo line; sleep 0.01; done"))
    await until(lambda: listener.growths.get("app", 0) > 5, "growth is told")
    await driver.aclose()

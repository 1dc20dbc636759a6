"""Health over a change of the server, and with a supervisor that does not hear or understand."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import RuntimeState
from att_server.core.settings import Probe
from att_server.testing.driver import FakeRuntimeDriver
from tests.core.fake_server import Server
from tests.core.probed_app import (
    LIVE,
    MINUTE,
    READY,
    SECOND,
    health,
    pass_rounds,
    ready_probe,
    reason,
    settings,
    state,
)

# Another server -------------------------------------------------------------


async def test_one_failure_after_a_restart_of_the_server_does_not_make_an_app_unready() -> None:
    server = Server()
    server.prober.set(READY, healthy=True)
    async with server.serving():
        await server.create(settings(readiness=ready_probe(threshold=3)))
        call = asyncio.create_task(server.start(wait_ready=True, timeout=MINUTE))
        await pass_rounds(server)
        server.clock.advance(SECOND)
        await call
    server.prober.set(READY, healthy=False)
    async with server.serving():
        await pass_rounds(server)
        assert state(server) is RuntimeState.READY
        await pass_rounds(server)
        assert state(server) is RuntimeState.RUNNING


async def test_an_app_that_was_ready_is_not_ended_by_the_deadline_of_another_server() -> None:
    server = Server()
    server.prober.set(READY, healthy=True)
    async with server.serving():
        await server.create(settings(readiness=ready_probe(deadline=timedelta(seconds=5))))
        await server.start(wait_ready=True)
        server.prober.set(READY, healthy=False)
        await pass_rounds(server)
        assert state(server) is RuntimeState.RUNNING
    async with server.serving():
        await pass_rounds(server, 20)
        assert state(server) is RuntimeState.RUNNING


LATE = ready_probe(threshold=2, deadline=timedelta(seconds=30))


async def test_a_deadline_that_passed_without_a_server_leaves_a_round_of_checks() -> None:
    server = Server()
    async with server.serving():
        await server.create(settings(readiness=LATE))
        await server.start()
        await pass_rounds(server)
    server.clock.advance(timedelta(hours=1))
    server.prober.set(READY, healthy=True)
    async with server.serving():
        await pass_rounds(server)
        await server.until(RuntimeState.READY)


async def test_a_deadline_that_passed_without_a_server_is_missed_after_that() -> None:
    server = Server()
    async with server.serving():
        await server.create(settings(readiness=LATE))
        await server.start()
        await pass_rounds(server)
    server.clock.advance(timedelta(hours=1))
    async with server.serving():
        await pass_rounds(server, 5)
        assert state(server) is RuntimeState.RUNNING
        server.clock.advance(SECOND)
        await server.until(RuntimeState.FAILED)
        assert reason(server) == "startup_deadline"


# A supervisor that does not hear --------------------------------------------


async def test_what_a_silent_supervisor_missed_it_is_told_later(server: Server) -> None:
    await server.start(settings(readiness=ready_probe()))
    await pass_rounds(server)
    server.driver.silence("web")
    server.prober.set(READY, healthy=True)
    await pass_rounds(server, 3)
    assert state(server) is RuntimeState.UNKNOWN
    assert health(server).healthy
    server.driver.unsilence("web")
    server.clock.advance(SECOND)
    await server.until(RuntimeState.READY)


class DriverThatLosesWords(FakeRuntimeDriver):
    """The connection breaks with each first word of a kind, which nobody notices."""

    lost: frozenset[str] = frozenset()

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        if reason in self.lost:
            await super().fail(project_id, run_id, reason)
        self.lost |= {reason}

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        if str(ready) in self.lost:
            await super().set_ready(project_id, run_id, ready=ready)
        self.lost |= {str(ready)}


async def test_what_a_supervisor_did_not_hear_it_is_told_again() -> None:
    server = Server()
    server.driver = DriverThatLosesWords(clock=server.clock)
    server.prober.set(READY, healthy=True)
    async with server.serving():
        await server.create(settings(readiness=ready_probe(), liveness=Probe(kind=LIVE)))
        await server.start()
        await server.clock.wait_for_sleepers(2)
        server.clock.advance(SECOND)
        await server.until(RuntimeState.READY)
        await pass_rounds(server, probes=2)
        assert state(server) is RuntimeState.READY
        server.clock.advance(SECOND)
        await server.until(RuntimeState.BACKOFF)
        assert reason(server) == "liveness_failed"


# A supervisor of the release before -----------------------------------------


class DriverOfOldSupervisors(FakeRuntimeDriver):
    """Its supervisors know neither `fail` nor that a run can become unready."""

    async def fail(self, project_id: str, run_id: str, reason: str) -> None:
        raise AttError(
            Reason.SUPERVISOR_UNREACHABLE, "It does not know the command.", project_id=project_id
        )

    async def set_ready(self, project_id: str, run_id: str, *, ready: bool = True) -> None:
        if not ready:
            await self.fail(project_id, run_id, "")
        await super().set_ready(project_id, run_id)


async def test_an_app_under_an_old_supervisor_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.driver = DriverOfOldSupervisors(clock=server.clock)
    probe = ready_probe(deadline=timedelta(seconds=2))
    async with server.serving():
        await server.create(settings(readiness=probe, liveness=Probe(kind=LIVE)))
        await server.start()
        await pass_rounds(server, 5)
        assert state(server) is RuntimeState.RUNNING
        server.prober.set(READY, healthy=True)
        server.clock.advance(SECOND)
        await server.until(RuntimeState.READY)
        server.prober.set(READY, healthy=False)
        await pass_rounds(server, 5, probes=2)
        assert state(server) is RuntimeState.READY
        assert not health(server).healthy
    # Once for what it should have done, not once a check.
    assert len([line for line in caplog.messages if "does not know" in line]) == 3

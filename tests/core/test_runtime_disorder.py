"""Calls and ends in any order leave apps as they are meant to be, and each run told once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    DesiredState,
    Event,
    EventFilter,
    Project,
    RunSpec,
    RunStatus,
    RuntimeState,
)
from att_server.core.request_claim import RequestClaim
from att_server.core.settings import RestartCondition, RestartPolicy, RuntimeSettings
from att_server.testing.clock import FakeClock
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.state_store import MemoryStateStore
from tests.core.fake_server import Server

LOOPING = RuntimeSettings(
    command=("serve",),
    restart=RestartPolicy(condition=RestartCondition.ON_FAILURE, max_restarts=3),
)
REFUSALS = {Reason.PROJECT_BUSY, Reason.RUNTIME_SPEC_CONFLICT}


class HesitantStore(MemoryStateStore):
    """Takes its time, so that others come in between."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    async def put_project(
        self, project: Project, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        await hesitate(self._chance)
        known = await super().put_project(project, *events, claim=claim)
        await hesitate(self._chance)
        return known

    async def claim_request(self, claim: RequestClaim) -> RequestClaim | None:
        await hesitate(self._chance)
        known = await super().claim_request(claim)
        await hesitate(self._chance)
        return known

    async def list_events(
        self, selected: EventFilter, *, cursor: int, limit: int, tail: bool = False
    ) -> tuple[Sequence[Event], int]:
        await hesitate(self._chance)
        return await super().list_events(selected, cursor=cursor, limit=limit, tail=tail)


class HesitantDriver(FakeRuntimeDriver):
    """Takes its time, before and after."""

    def __init__(self, clock: FakeClock, chance: random.Random) -> None:
        super().__init__(clock=clock)
        self._chance = chance

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        await hesitate(self._chance)
        await super().start(spec, after_loss=after_loss)
        await hesitate(self._chance)
        return self.status("web")

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        await hesitate(self._chance)
        await super().stop(project_id, grace)
        await hesitate(self._chance)
        return self.status(project_id)


async def hesitate(chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)


async def disturb(server: Server, chance: random.Random) -> None:
    """Something that happens to the app without a call, if it can happen now."""
    status = server.runs.entry("web").status
    if status is None or not status.state.alive:
        return
    if status.state is RuntimeState.BACKOFF:
        server.driver.restart("web")
    elif status.exit is None and status.state is not RuntimeState.STOPPING:
        match chance.randrange(4):
            case 0:
                server.driver.exit("web", 0)
            case 1:
                server.driver.exit("web", 1)
            case 2:
                server.driver.lose("web")
            case _:
                await server.driver.fail("web", status.run_id, "liveness_failed")


async def call(server: Server, chance: random.Random) -> None:
    """A call of one of several clients; what it is refused for is only what another call does."""
    await hesitate(chance)
    try:
        match chance.randrange(3):
            case 0:
                await server.start(request_id=f"{chance.randrange(20)}")
            case 1:
                await server.stop()
            case _:
                await server.restart(request_id=f"again {chance.randrange(20)}")
    except AttError as error:
        if error.reason not in REFUSALS or error.metadata.get("operation") == "recovery":
            raise


@pytest.mark.parametrize("seed", range(20))
async def test_calls_and_ends_in_any_order_leave_what_is_desired(seed: int) -> None:
    chance = random.Random(seed)
    server = Server()
    server.store = HesitantStore(chance)
    server.driver = HesitantDriver(server.clock, chance)
    async with server.serving():
        await server.create(LOOPING)
    for _ in range(4):
        async with server.serving():
            await disorder(server, chance)
        await server.driver.aclose()
        await disturb(server, chance)
    async with server.serving():
        runtime = await server.stop()
        assert not runtime.state.alive
        assert runtime.desired is DesiredState.STOPPED
        runtime = await server.restart()
        assert (runtime.state, runtime.desired) == (RuntimeState.READY, DesiredState.RUNNING)
    told = Counter(
        (event.event_type, event.run_id)
        for event in await server.told()
        if event.event_type in ("runtime.started", "runtime.ended", "runtime.restarting")
    )
    assert not [key for key, count in told.items() if count > 1]
    started = {run for kind, run in told if kind == "runtime.started"}
    ended = {run for kind, run in told if kind == "runtime.ended"}
    assert started - ended == {runtime.status.run_id if runtime.status else ""}


async def disorder(server: Server, chance: random.Random) -> None:
    for _ in range(5):
        async with asyncio.TaskGroup() as calls:
            for _ in range(chance.randrange(1, 4)):
                calls.create_task(call(server, chance))
            for _ in range(chance.randrange(4)):
                await disturb(server, chance)
                await asyncio.sleep(0)
        server.clock.advance(timedelta(seconds=chance.randrange(3)))

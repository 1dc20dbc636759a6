"""Every call that needs more than a viewer is on the disk before it is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from att.v1 import (
    bootstrap_service_pb2,
    project_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_server.core.audit import DENIED, INTENT, LOST, OUTCOME, AuditLog
from att_server.core.bell import Bell
from att_server.core.errors import AttError, Reason
from att_server.core.identity import Role
from att_server.core.model import Event, EventFilter
from att_server.core.tokens import TokenManager
from att_server.rpc.access import STORES_FIRST, Rule
from att_server.rpc.boundary import Boundary
from att_server.rpc.call import Answer, Call
from att_server.rpc.limits import Limits
from att_server.rpc.request_facts import MAX_ARGUMENTS_BYTES, arguments
from att_server.testing import FakeClock, MemoryStateStore, fake_adapters, serve_in_process
from att_server.testing.journal import MemoryJournal
from att_server.testing.tokens import MemoryTokens
from tests.rpc.conftest import METHODS, Serve, Wire, bearer, connect, refusal

TOKEN = "att_" + "0" * 26 + "_" + "ab" * 32 + "_01234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    wire: Wire
    store: MemoryStateStore
    tokens: TokenManager

    async def records(self, *event_types: str) -> list[Event]:
        # By the wire, which waits for what is due.
        await self.wire.unary("ListEvents")
        found, _ = await self.store.list_events(
            EventFilter(audit=True, event_types=event_types), cursor=0, limit=1000
        )
        return [*found]


@pytest.fixture
async def audited() -> AsyncIterator[Audited]:
    store, clock = MemoryStateStore(), FakeClock()
    journal, kept = MemoryJournal(store, clock), MemoryTokens()
    adapters = fake_adapters(store=store, journal=journal, tokens=kept, clock=clock)
    async with (
        serve_in_process(adapters, limits=Limits(refusals=3)) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        yield Audited(
            wire=wire,
            store=store,
            tokens=TokenManager(tokens=kept, events=store, clock=clock),
        )


def creation(project_id: str = "web", path: str = "/tmp") -> Any:
    runtime = project_pb2.RuntimeSettings(command=["run"], env={"API_KEY": "hunter2"})
    return project_service_pb2.CreateProjectRequest(
        project_id=project_id, path=path, runtime=runtime
    )


async def test_a_call_has_an_intent_and_an_outcome_with_who_what_and_on_which_project(
    audited: Audited,
) -> None:
    _, secret = await audited.tokens.create("ci", Role.OPERATOR, owner="alice", principal="")
    await audited.wire.unary("CreateProject", creation(), metadata=bearer(secret.reveal()))
    refused = await refusal(audited.wire.unary("CreateProject", creation(path="/")))
    assert refused.reason == Reason.PROJECT_SPEC_CONFLICT
    # An outcome is stored a moment later, so those of two calls may be in any order.
    first, second = await audited.records(INTENT)
    after, failed = await audited.records(OUTCOME)
    assert [first.principal, second.principal[:6]] == ["token:alice", "local:"]
    assert [after.reason, failed.reason] == ["", Reason.PROJECT_SPEC_CONFLICT]
    assert {record.project_id for record in (first, after, second, failed)} == {"web"}
    assert first.attributes["call_id"] == after.attributes["call_id"]
    assert first.attributes["method"] == "att.v1.ProjectService/CreateProject"
    assert first.attributes["peer"] == "unix"
    asked = json.loads(first.attributes["arguments"])
    assert asked["path"] == "/tmp"
    # Of secrets the names.
    assert asked["runtime"] == {"command": ["run"], "env": ["API_KEY"]}
    assert "hunter2" not in repr([first, after, second, failed])


async def test_reads_leave_no_records_and_records_are_no_events_unless_asked_for(
    audited: Audited,
) -> None:
    await audited.wire.unary("CreateProject", creation())
    records = await audited.records()
    for rpc in ("ListProjects", "GetServerInfo", "ListRuntimes", "ListEvents"):
        await audited.wire.unary(rpc)
    assert await audited.records() == records
    events = await audited.wire.unary("ListEvents")
    assert [e.event_type for e in events.events if e.event_type.startswith("audit.")] == []
    watched = audited.wire.stream("WatchEvents")
    first = await anext(aiter(watched))
    assert not first.events
    watched.cancel()


async def test_a_call_that_cannot_be_recorded_is_not_made_and_reads_go_on(
    audited: Audited,
) -> None:
    for reason in (Reason.AUDIT_UNAVAILABLE, Reason.STORAGE_FULL):
        audited.store.write_error = AttError(reason, "the disk is gone")
        refused = await refusal(audited.wire.unary("CreateProject", creation()))
        assert refused.reason == reason
        assert not (await audited.wire.unary("ListProjects")).projects
    audited.store.write_error = None
    await audited.wire.unary("CreateProject", creation())
    assert [record.event_type for record in await audited.records()] == [INTENT, OUTCOME]


async def test_the_intent_is_stored_before_the_call_is_made(serve: Serve) -> None:
    store = MemoryStateStore()
    seen: list[str] = []

    async def start(_request: Any, call: Call) -> Answer:
        found, _ = await store.list_events(EventFilter(audit=True), cursor=0, limit=9)
        seen.extend(record.event_type for record in found)
        assert call.principal == "local:7"
        return runtime_service_pb2.StartRuntimeResponse()

    wire = await serve(store=store, StartRuntime=start)
    await wire.unary("StartRuntime")
    assert seen == [INTENT]


async def test_a_call_that_fails_as_a_defect_has_its_outcome_without_the_words(
    serve: Serve,
) -> None:
    store = MemoryStateStore()

    async def start(_request: Any, _call: Call) -> Answer:
        raise ValueError("password=hunter2")

    wire = await serve(store=store, StartRuntime=start)
    assert (await refusal(wire.unary("StartRuntime"))).reason == Reason.INTERNAL
    await wire.audit.settle()
    found, _ = await store.list_events(EventFilter(audit=True), cursor=0, limit=9)
    assert [(record.event_type, record.reason) for record in found] == [
        (INTENT, ""),
        (OUTCOME, Reason.INTERNAL),
    ]
    assert "hunter2" not in repr(found)


async def test_a_denied_call_is_recorded_until_there_are_too_many(audited: Audited) -> None:
    _, secret = await audited.tokens.create("v", Role.VIEWER, principal="")
    viewer = bearer(secret.reveal())
    reasons = []
    for _ in range(5):
        refused = await refusal(audited.wire.unary("StopRuntime", metadata=viewer))
        reasons.append(refused.reason)
    assert reasons == [Reason.PERMISSION_DENIED] * 3 + [Reason.RATE_LIMITED] * 2
    records = await audited.records(DENIED)
    assert [(r.principal, r.reason) for r in records] == [("token:v", "PERMISSION_DENIED")] * 3
    # What the same caller may do, it still may.
    assert await audited.wire.unary("GetServerInfo", metadata=viewer)


async def test_who_fails_to_get_in_locks_nobody_out(audited: Audited) -> None:
    _, secret = await audited.tokens.create("v", Role.VIEWER, principal="")
    reasons = []
    for _ in range(5):
        refused = await refusal(audited.wire.unary("GetServerInfo", metadata=bearer(TOKEN)))
        reasons.append(refused.reason)
    assert reasons == [Reason.UNAUTHENTICATED] * 3 + [Reason.RATE_LIMITED] * 2
    assert await audited.wire.unary("GetServerInfo", metadata=bearer(secret.reveal()))
    assert await audited.wire.unary("GetServerInfo")
    records = await audited.records(DENIED)
    assert [(r.principal, r.attributes["peer"]) for r in records] == [("", "unix")] * 3


async def test_a_call_that_the_server_did_not_live_to_end_gets_an_outcome_from_the_next() -> None:
    store, clock = MemoryStateStore(), FakeClock()
    for call_id in ("1", "2"):
        attributes = {"call_id": call_id, "method": "m"}
        await store.append_events(
            Event(event_type=INTENT, time=clock.now(), principal="token:ci", attributes=attributes)
        )
    await store.append_events(
        Event(event_type=OUTCOME, time=clock.now(), attributes={"call_id": "1"})
    )
    for _ in range(2):
        await AuditLog(store=store, clock=clock, stored=Bell()).open()
        found, _ = await store.list_events(
            EventFilter(audit=True, event_types=(OUTCOME,)), cursor=0, limit=9
        )
        told = [(r.attributes["call_id"], r.principal, r.reason) for r in found[1:]]
        assert told == [("2", "token:ci", LOST)]


async def test_one_caller_cannot_take_the_calls_and_streams_of_another(serve: Serve) -> None:
    go, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(_request: Any, _call: Call) -> Answer:
        begun.release()
        await go.wait()
        return server_service_pb2.GetServerInfoResponse()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        yield runtime_service_pb2.WatchRuntimesResponse()
        await go.wait()

    tokens = TokenManager(tokens=MemoryTokens(), events=MemoryStateStore(), clock=FakeClock())
    _, secret = await tokens.create("other", Role.VIEWER, principal="")
    wire = await serve(
        tokens=tokens, limits=Limits(calls=2, streams=1), GetServerInfo=wait, WatchRuntimes=watch
    )
    calls = [asyncio.ensure_future(wire.unary("GetServerInfo")) for _ in range(2)]
    for _ in calls:
        await begun.acquire()
    stream = wire.stream("WatchRuntimes")
    assert await anext(aiter(stream))
    for rpc in ("GetServerInfo", "WatchRuntimes"):
        assert (await refusal(wire.call(rpc))).reason == Reason.RATE_LIMITED
    others = asyncio.ensure_future(wire.unary("GetServerInfo", metadata=bearer(secret.reveal())))
    await begun.acquire()
    assert await wire.call("WatchRuntimes", metadata=bearer(secret.reveal()))
    go.set()
    await asyncio.gather(*calls, others)
    stream.cancel()
    assert await wire.call("WatchRuntimes")


def test_arguments_are_short_and_hold_no_secret() -> None:
    request = bootstrap_service_pb2.StartCycleRequest(request_id="r")
    request.cycle.project_id = "web"
    request.cycle.commit_message = f"see {TOKEN}, and 500 more " + "x" * 500
    request.cycle.patch = b"SECRET" * 1000
    for number in range(100):
        edit = request.cycle.edits.add(path=f"src/{number}.py")
        edit.content = b"SECRET"
    text = arguments(request)
    assert len(text) <= MAX_ARGUMENTS_BYTES
    assert "SECRET" not in text
    assert "abab" not in text
    del request.cycle.edits[:]
    asked = json.loads(arguments(request))
    assert asked["cycle"]["patch"] == "<6000 bytes>"
    assert asked["cycle"]["project_id"] == "web"
    assert asked["cycle"]["commit_message"].startswith("see att_***, and")


class _Disk(MemoryStateStore):
    """Loses what is not on the disk when it is asked what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Event] = []
        self._waiting: list[Event] = []

    async def append_events(self, *events: Event, synced: bool = True, **given: Any) -> None:
        await super().append_events(*events, synced=synced, **given)
        self._waiting += events
        if synced:
            self.kept += self._waiting
            self._waiting = []


@pytest.mark.parametrize("rpc", ["PlanCycle", "ProbeHealth", "StopRuntime", "CreateProject"])
async def test_of_a_call_that_acts_before_it_stores_the_intent_is_on_the_disk(
    serve: Serve, rpc: str
) -> None:
    disk = _Disk()
    found: list[str] = []

    async def act(_request: Any, _call: Call) -> Answer:
        found.extend(event.event_type for event in disk.kept)
        raise AttError(Reason.PROJECT_BUSY, "busy")

    wire = await serve(store=disk, **{rpc: act})
    await refusal(wire.unary(rpc))
    assert found == [INTENT]


def test_whatever_stores_first_is_an_rpc_that_acts() -> None:
    rules = {method.full_name: Rule.of(method) for method in METHODS.values()}
    assert all(rules[name].audited for name in STORES_FIRST)

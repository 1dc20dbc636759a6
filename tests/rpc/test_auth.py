"""Who may call what: tokens on the wire, and the matrix of roles and rpcs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest

from att.v1 import event_service_pb2, project_pb2, project_service_pb2, server_service_pb2
from att_server.core.errors import Reason
from att_server.core.identity import Caller, Role
from att_server.core.model import EventFilter
from att_server.core.tokens import TokenManager
from att_server.rpc.auth import required_role
from att_server.rpc.call import Answer, Call
from att_server.testing import FakeClock, MemoryStateStore, fake_adapters, serve_in_process
from att_server.testing.tokens import MemoryTokens
from tests.rpc.conftest import METHODS, Serve, Wire, bearer, connect, read_refusal, refusal

BOUND = 10.0

MATRIX = """
                   viewer  operator  approver  admin
CancelCycle        -       yes       -         yes
CreateProject      -       yes       -         yes
DecideCycle        -       -         yes       -
DeleteProject      -       yes       -         yes
DiffFiles          yes     yes       yes       yes
EvaluateRollback   yes     yes       yes       yes
FollowLogs         yes     yes       yes       yes
GetCycle           yes     yes       yes       yes
GetLogInfo         yes     yes       yes       yes
GetProject         yes     yes       yes       yes
GetRelease         yes     yes       yes       yes
GetRuntime         yes     yes       yes       yes
GetServerInfo      yes     yes       yes       yes
GetTestReport      yes     yes       yes       yes
ListCycles         yes     yes       yes       yes
ListEvents         yes     yes       yes       yes
ListFiles          yes     yes       yes       yes
ListProjects       yes     yes       yes       yes
ListReleases       yes     yes       yes       yes
ListRuntimes       yes     yes       yes       yes
PlanCycle          -       yes       -         yes
ProbeHealth        -       yes       -         yes
ReadFile           yes     yes       yes       yes
ReadLogs           yes     yes       yes       yes
RestartRuntime     -       yes       -         yes
RollbackRelease    -       yes       -         yes
SearchFiles        yes     yes       yes       yes
SetProjectMode     -       -         -         yes
SignalRuntime      -       yes       -         yes
StartCycle         -       yes       -         yes
StartRuntime       -       yes       -         yes
StopRuntime        -       yes       -         yes
TrimLogs           -       yes       -         yes
UpdateProject      -       yes       -         yes
WatchCycle         yes     yes       yes       yes
WatchEvents        yes     yes       yes       yes
WatchRuntimes      yes     yes       yes       yes
"""
"""What is meant. An rpc that is new, or a role that is another, has to be written here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A server over fakes that knows tokens."""

    wire: Wire
    tokens: TokenManager
    events: MemoryStateStore
    clock: FakeClock

    async def token(
        self, role: Role, name: str = "", lifetime: timedelta | None = timedelta(days=1)
    ) -> str:
        _, secret = await self.tokens.create(name or role, role, lifetime=lifetime, principal="")
        return secret.reveal()

    async def as_role(self, role: Role) -> tuple[tuple[str, str], ...]:
        return bearer(await self.token(role))


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    events, kept, clock = MemoryStateStore(), MemoryTokens(), FakeClock()
    adapters = fake_adapters(store=events, tokens=kept, clock=clock)
    async with serve_in_process(adapters) as target, connect(target, NO_BOUNDARY) as wire:
        # Another manager on the same tokens, as the command's.
        tokens = TokenManager(tokens=kept, events=events, clock=clock)
        yield Guarded(wire=wire, tokens=tokens, events=events, clock=clock)


NO_BOUNDARY: Any = None


def test_the_matrix_is_what_the_contract_declares() -> None:
    roles, *rows = (line.split() for line in MATRIX.strip().splitlines())
    meant = {
        rpc: {Role(role) for role, may in zip(roles, cells, strict=True) if may == "yes"}
        for rpc, *cells in rows
    }
    declared = {
        rpc: {role for role in Role if Caller(principal="", role=role).may(required_role(method))}
        for rpc, method in METHODS.items()
    }
    assert declared == meant


@pytest.mark.parametrize("role", list(Role))
async def test_every_rpc_of_a_running_server_keeps_to_the_matrix(
    guarded: Guarded, role: Role
) -> None:
    roles, *rows = (line.split() for line in MATRIX.strip().splitlines())
    metadata = await guarded.as_role(role)
    for rpc, *cells in rows:
        refused = await reason_of(guarded.wire.call(rpc, timeout=BOUND, metadata=metadata))
        denied = refused == Reason.PERMISSION_DENIED
        assert denied == (cells[roles.index(role)] == "-"), rpc


async def test_a_denial_names_the_role_that_is_needed(guarded: Guarded) -> None:
    refused = await refusal(
        guarded.wire.call("DecideCycle", metadata=await guarded.as_role(Role.ADMIN))
    )
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.metadata == {"required_role": "approver"}
    assert "token:admin" in refused.message


async def test_the_socket_alone_is_the_local_user_as_an_operator(guarded: Guarded) -> None:
    info = await guarded.wire.unary("GetServerInfo")
    assert info.principal.startswith("local:")
    assert await reason_of(guarded.wire.call("DeleteProject")) == Reason.FIELD_INVALID
    for rpc in ("DecideCycle", "SetProjectMode"):
        assert await reason_of(guarded.wire.call(rpc)) == Reason.PERMISSION_DENIED


async def test_a_call_with_a_token_is_made_by_who_is_behind_it(guarded: Guarded) -> None:
    metadata = bearer(await guarded.token(Role.VIEWER, "alice"))
    info = await guarded.wire.unary("GetServerInfo", metadata=metadata)
    assert info.principal == "token:alice"
    # The word for the scheme has no case, as everywhere.
    metadata = (("authorization", metadata[0][1].replace("Bearer", "bearer")),)
    assert (await guarded.wire.unary("GetServerInfo", metadata=metadata)).principal == "token:alice"


async def test_tokens_that_are_not_valid_are_answered_alike(guarded: Guarded) -> None:
    good, revoked = await guarded.token(Role.ADMIN, "good"), await guarded.token(Role.ADMIN, "r")
    expired = await guarded.token(Role.ADMIN, "expired", timedelta(seconds=1))
    await guarded.tokens.revoke("r", principal="")
    guarded.clock.advance(timedelta(seconds=1))
    elsewhere = TokenManager(tokens=MemoryTokens(), events=guarded.events, clock=FakeClock())
    _, unknown = await elsewhere.create("good", Role.ADMIN, principal="")
    answers = []
    for text in (expired, revoked, unknown.reveal()):
        for rpc in ("GetServerInfo", "WatchEvents", "DecideCycle"):
            refused = await refusal(guarded.wire.call(rpc, metadata=bearer(text)))
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED
            answers.append((refused.reason, refused.message, refused.metadata))
    assert answers == [answers[0]] * 9
    assert answers[0][0] == Reason.UNAUTHENTICATED
    assert await guarded.wire.unary("GetServerInfo", metadata=bearer(good))


@pytest.mark.parametrize(
    "values",
    [
        ("",),
        ("Bearer",),
        ("Bearer ",),
        ("Basic dXNlcjpwYXNz",),
        ("{token}",),
        ("Bearer  {token}",),
        ("Bearer {token} ",),
        ("Bearer {token},Bearer {token}",),
        ("Bearer {token}", "Bearer {token}"),
        ("Bearer " + "x" * 6000,),
    ],
)
async def test_a_header_that_is_no_token_is_refused_and_not_taken_for_none(
    guarded: Guarded, values: tuple[str, ...]
) -> None:
    token = await guarded.token(Role.ADMIN)
    metadata = tuple(("authorization", value.replace("{token}", token)) for value in values)
    refused = await refusal(guarded.wire.call("GetServerInfo", metadata=metadata))
    # gRPC drops spaces around a value.
    if values != ("Bearer {token} ",):
        assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert token.split("_")[2] not in refused.message


async def test_a_stream_ends_when_its_token_is_revoked(guarded: Guarded) -> None:
    stream = guarded.wire.stream("WatchEvents", metadata=await guarded.as_role(Role.VIEWER))
    reading = asyncio.create_task(drained(stream))
    await guarded.tokens.revoke("viewer", principal="")
    guarded.clock.advance(timedelta(seconds=1))
    error = await asyncio.wait_for(reading, BOUND)
    assert read_refusal(error).reason == Reason.UNAUTHENTICATED


async def test_a_stream_ends_when_its_token_expires_and_its_generator_is_closed(
    serve: Serve,
) -> None:
    clock, closed = FakeClock(), asyncio.Event()
    tokens = TokenManager(tokens=MemoryTokens(), events=MemoryStateStore(), clock=clock)

    async def watch(_request: Any, call: Call) -> AsyncIterator[Answer]:
        try:
            yield event_service_pb2.WatchEventsResponse()
            await asyncio.Event().wait()
        finally:
            assert call.principal == "token:v"
            closed.set()

    wire = await serve(tokens=tokens, WatchEvents=watch)
    _, secret = await tokens.create("v", Role.VIEWER, lifetime=timedelta(seconds=1), principal="")
    stream = wire.stream("WatchEvents", metadata=bearer(secret.reveal()))
    assert await anext(aiter(stream))
    clock.advance(timedelta(seconds=1))
    error = await asyncio.wait_for(drained(stream), BOUND)
    assert read_refusal(error).reason == Reason.UNAUTHENTICATED
    await asyncio.wait_for(closed.wait(), BOUND)


async def test_a_store_of_tokens_that_fails_lets_nobody_in(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryTokens):
        async def token(self, token_id: str) -> Any:
            raise RuntimeError(token_id)

    kept = Broken()
    tokens = TokenManager(tokens=kept, events=MemoryStateStore(), clock=FakeClock())
    _, secret = await tokens.create("v", Role.VIEWER, principal="")

    async def info(_request: Any, _call: Call) -> Answer:
        return server_service_pb2.GetServerInfoResponse()

    wire = await serve(tokens=tokens, GetServerInfo=info)
    with caplog.at_level(logging.DEBUG):
        refused = await refusal(wire.call("GetServerInfo", metadata=bearer(secret.reveal())))
    assert refused.reason == Reason.INTERNAL
    assert secret.reveal().split("_")[2] not in caplog.text + refused.message


async def test_safe_mode_is_left_by_an_admin_with_the_reason_in_the_event(
    guarded: Guarded,
) -> None:
    request = project_service_pb2.CreateProjectRequest(project_id="web", path="/tmp")
    await guarded.wire.unary("CreateProject", request)
    admin = await guarded.as_role(Role.ADMIN)

    async def set_mode(mode: Any, reason: str) -> project_pb2.Project:
        wanted = project_service_pb2.SetProjectModeRequest(
            project_id="web", mode=mode, reason=reason
        )
        answer = await guarded.wire.unary("SetProjectMode", wanted, metadata=admin)
        project: project_pb2.Project = answer.project
        return project

    project = await set_mode(project_pb2.PROJECT_MODE_SAFE, "look at the disk")
    assert (project.mode, project.mode_reason) == (
        project_pb2.PROJECT_MODE_SAFE,
        "look at the disk",
    )
    project = await set_mode(project_pb2.PROJECT_MODE_NORMAL, "the disk is new")
    assert (project.mode, project.mode_reason) == (project_pb2.PROJECT_MODE_NORMAL, "")
    told, _ = await guarded.events.list_events(
        EventFilter(event_types=("project.mode",)), cursor=0, limit=10
    )
    assert [(event.principal, event.message, event.attributes["mode"]) for event in told] == [
        ("token:admin", "look at the disk", "safe"),
        ("token:admin", "the disk is new", "normal"),
    ]


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"mode": 0}, ["mode"]),
        ({"mode": 99}, ["mode"]),
        ({"mode": 1, "reason": "x" * 1001}, ["reason"]),
        ({"mode": 1, "reason": "a\x1b[2J"}, ["reason"]),
        ({"mode": 1, "project_id": "../x"}, ["project_id"]),
    ],
)
async def test_a_mode_that_is_none_is_refused(
    guarded: Guarded, fields: dict[str, Any], broken: list[str]
) -> None:
    request = project_service_pb2.SetProjectModeRequest(**{"project_id": "web", **fields})
    admin = await guarded.as_role(Role.ADMIN)
    refused = await refusal(guarded.wire.call("SetProjectMode", request, metadata=admin))
    assert list(refused.fields) == broken


async def drained(stream: Any) -> grpc.aio.AioRpcError:
    """Reads the stream to the error that it ends with."""
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream ended without an error")


async def reason_of(call: Awaitable[Any]) -> str:
    """The reason that a call is refused for; empty where it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ""
        return read_refusal(error).reason
    return ""

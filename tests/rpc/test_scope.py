"""What a token that is limited to projects gets to see of others: nothing, by any rpc."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from att.v1 import (
    bootstrap_service_pb2,
    event_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
)
from att_server.core.cycles.model import (
    Cycle,
    CycleKind,
    CycleRequest,
    CycleState,
    CycleStep,
    StepStatus,
)
from att_server.core.errors import Reason
from att_server.core.identity import Role
from att_server.core.tokens import TokenManager
from att_server.rpc.access import Rule
from att_server.rpc.boundary import Boundary
from att_server.rpc.limits import Limits
from att_server.testing import FakeClock, MemoryStateStore, fake_adapters, serve_in_process
from att_server.testing.journal import MemoryJournal
from att_server.testing.tokens import MemoryTokens
from tests.rpc.conftest import METHODS, Wire, bearer, connect, read_refusal, refusal

OWN, HIDDEN, ABSENT = "web", "hidden-one", "absent-one"
HIDDEN_CYCLE, ABSENT_CYCLE = "01HIDDENCYCLE0000000000000", "01ABSENTCYCLE0000000000000"
NAMES_NOTHING = {"GetServerInfo", "ListProjects", "ListRuntimes"}
BOUND = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A server of two projects, and tokens of every role that are limited to one."""

    wire: Wire
    store: MemoryStateStore
    tokens: TokenManager

    async def limited(self, role: Role) -> tuple[tuple[str, str], ...]:
        names = {token.name for token in await self.tokens.list()}
        _, secret = await self.tokens.create(
            f"{role}-{len(names)}", role, projects=[OWN], principal=""
        )
        return bearer(secret.reveal())


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    store, clock = MemoryStateStore(), FakeClock()
    journal, kept = MemoryJournal(store, clock), MemoryTokens()
    adapters = fake_adapters(store=store, journal=journal, tokens=kept, clock=clock)
    async with (
        serve_in_process(adapters, limits=Limits(refusals=1000)) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        for project_id in (OWN, HIDDEN):
            request = project_service_pb2.CreateProjectRequest(project_id=project_id, path="/tmp")
            await wire.unary("CreateProject", request)
        await journal.create(ended_cycle(), b"")
        yield Shared(
            wire=wire,
            store=store,
            tokens=TokenManager(tokens=kept, events=store, clock=clock),
        )


def ended_cycle() -> Cycle:
    return Cycle(
        cycle_id=HIDDEN_CYCLE,
        project_id=HIDDEN,
        kind=CycleKind.CHANGE,
        request=CycleRequest(),
        requested_by="local:1",
        create_time=FakeClock().now(),
        state=CycleState.ENDED,
        steps=(StepStatus(step=CycleStep.PREPARE),),
    )


def test_every_rpc_but_a_few_names_a_project_or_a_cycle() -> None:
    rules = {name: Rule.of(method) for name, method in METHODS.items()}
    nameless = {
        name for name, rule in rules.items() if not rule.project_paths and not rule.cycle_paths
    }
    assert nameless == NAMES_NOTHING


@pytest.mark.parametrize("role", list(Role))
async def test_another_project_is_answered_exactly_as_one_that_is_not_there(
    shared: Shared, role: Role
) -> None:
    metadata = await shared.limited(role)
    for rpc, method in METHODS.items():
        rule = Rule.of(method)
        if not rule.project_paths and not rule.cycle_paths:
            continue
        answers = []
        for project_id, cycle_id in ((HIDDEN, HIDDEN_CYCLE), (ABSENT, ABSENT_CYCLE)):
            request = naming(rpc, project_id, cycle_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await shared.wire.call(rpc, request, timeout=BOUND, metadata=metadata)
            refused = read_refusal(caught.value)
            known = repr((refused.code, refused.reason, refused.message, dict(refused.metadata)))
            answers.append(known.replace(project_id, "*").replace(cycle_id, "*"))
        assert answers[0] == answers[1], rpc
        reasons = ["_NOT_FOUND", "PERMISSION_DENIED", "NOT_IMPLEMENTED"]
        if rpc == "DecideCycle":
            reasons.append("FIELD_INVALID")  # its other fields are looked at before the cycle
        assert any(reason in answers[0] for reason in reasons), rpc


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ADMIN])
async def test_no_list_and_no_stream_tells_of_another_project(shared: Shared, role: Role) -> None:
    metadata = await shared.limited(role)
    for rpc in METHODS:
        for request in (None, naming(rpc, OWN, HIDDEN_CYCLE), page_behind_everything(rpc)):
            if request is False:
                continue
            try:
                answer = await shared.wire.call(rpc, request, timeout=2.0, metadata=metadata)
                told = b"" if answer is None else answer.SerializeToString()
            except grpc.aio.AioRpcError as error:
                told = (error.details() or "").replace(HIDDEN_CYCLE, "").encode()
            assert HIDDEN.encode() not in told, rpc
            assert HIDDEN_CYCLE.encode() not in told, rpc


async def test_lists_hold_what_is_in_the_limits_and_page_on_within(shared: Shared) -> None:
    metadata = await shared.limited(Role.VIEWER)
    everything = await shared.wire.unary("ListProjects")
    assert [project.project_id for project in everything.projects] == [HIDDEN, OWN]
    request = project_service_pb2.ListProjectsRequest(page_size=1)
    page = await shared.wire.unary("ListProjects", request, metadata=metadata)
    assert [project.project_id for project in page.projects] == [OWN]
    assert page.next_page_token == ""
    # A token of a page that another was given says where to go on, and opens nothing.
    first = await shared.wire.unary("ListProjects", request)
    request.page_token = first.next_page_token
    page = await shared.wire.unary("ListProjects", request, metadata=metadata)
    assert [project.project_id for project in page.projects] == [OWN]
    runtimes = await shared.wire.unary("ListRuntimes", metadata=metadata)
    assert [runtime.project_id for runtime in runtimes.runtimes] == [OWN]
    assert [c.project_id for c in (await shared.wire.unary("ListCycles")).cycles] == [HIDDEN]
    assert not (await shared.wire.unary("ListCycles", metadata=metadata)).cycles


async def test_events_of_others_and_of_the_server_are_not_shown(shared: Shared) -> None:
    metadata = await shared.limited(Role.VIEWER)
    events = await shared.wire.unary("ListEvents", metadata=metadata)
    assert {event.project_id for event in events.events} == {OWN}
    for filtered in ({"cycle_id": HIDDEN_CYCLE}, {"event_types": ["server.", "token."]}):
        asked = event_service_pb2.ListEventsRequest(
            filter=event_service_pb2.EventFilter(**filtered)
        )
        answer = await shared.wire.unary("ListEvents", asked, metadata=metadata)
        assert not answer.events
        assert not answer.has_more


async def test_a_stream_of_everything_is_one_of_what_the_token_sees(shared: Shared) -> None:
    metadata = await shared.limited(Role.VIEWER)
    watched = runtime_service_pb2.WatchRuntimesRequest()
    stream = shared.wire.stream("WatchRuntimes", watched, metadata=metadata)
    first = await asyncio.wait_for(anext(aiter(stream)), BOUND)
    assert [runtime.project_id for runtime in first.runtimes] == [OWN]
    stream.cancel()

    events = shared.wire.stream("WatchEvents", metadata=metadata)
    reading = aiter(events)
    await asyncio.wait_for(anext(reading), BOUND)
    for project_id in (HIDDEN, OWN):
        request = project_service_pb2.UpdateProjectRequest(project_id=project_id, path="/")
        await shared.wire.unary("UpdateProject", request)
    message = await asyncio.wait_for(anext(reading), BOUND)
    assert {event.project_id for event in message.events} == {OWN}
    events.cancel()


async def test_an_operator_makes_only_the_projects_of_the_limits(shared: Shared) -> None:
    metadata = await shared.limited(Role.OPERATOR)
    answers = []
    for project_id in (HIDDEN, ABSENT):
        request = project_service_pb2.CreateProjectRequest(project_id=project_id, path="/tmp")
        refused = await refusal(shared.wire.unary("CreateProject", request, metadata=metadata))
        answers.append((refused.code, refused.message))
    assert answers[0] == answers[1]
    assert answers[0][0] is grpc.StatusCode.PERMISSION_DENIED
    request = project_service_pb2.CreateProjectRequest(project_id=OWN, path="/tmp")
    assert (await shared.wire.unary("CreateProject", request, metadata=metadata)).project


async def test_one_of_several_projects_that_is_out_of_the_limits_refuses_all(
    shared: Shared,
) -> None:
    metadata = await shared.limited(Role.VIEWER)
    asked = runtime_service_pb2.WatchRuntimesRequest(project_ids=[OWN, HIDDEN])
    refused = await refusal(shared.wire.call("WatchRuntimes", asked, metadata=metadata))
    assert refused.reason == Reason.PROJECT_NOT_FOUND


async def test_what_repeats_a_request_of_another_project_is_not_answered_with_it(
    shared: Shared,
) -> None:
    asked = bootstrap_service_pb2.StartCycleRequest(request_id="r1")
    asked.cycle.project_id = HIDDEN
    refused = await refusal(
        shared.wire.unary("StartCycle", asked, metadata=await shared.limited(Role.OPERATOR))
    )
    assert refused.reason == Reason.PROJECT_NOT_FOUND


def naming(rpc: str, project_id: str, cycle_id: str) -> Message:
    """A request that names this project and this cycle wherever it can, and is empty else."""
    request = GetMessageClass(METHODS[rpc].input_type)()
    rule = Rule.of(METHODS[rpc])
    for paths, value in ((rule.project_paths, project_id), (rule.cycle_paths, cycle_id)):
        for *parents, name in paths:
            place: Any = request
            for parent in parents:
                place = getattr(place, parent)
            if isinstance(getattr(place, name), str):
                setattr(place, name, value)
            else:
                getattr(place, name).append(value)
    return request


def page_behind_everything(rpc: str) -> Any:
    """A request for all that there is, from a cursor of somebody else; False: none such."""
    request: Any = GetMessageClass(METHODS[rpc].input_type)()
    if "cursor" in request.DESCRIPTOR.fields_by_name:
        request.cursor = 0
        return request
    return False

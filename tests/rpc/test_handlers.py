"""Handlers follow the contract: every rpc is served, none without its checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from att_server.core.errors import Reason
from att_server.rpc.auth import required_role
from att_server.rpc.boundary import Boundary
from att_server.rpc.call import Answer, Call
from att_server.rpc.capabilities import capability
from att_server.rpc.handlers import SERVICES, contract_handlers
from tests.rpc.conftest import METHODS, Given, Serve, access, given, refusal


async def answer(_request: Any, _call: Call) -> Answer:
    return b""


async def stream(_request: Any, _call: Call) -> AsyncIterator[Answer]:
    yield b""


def make(services: Any, contract: Sequence[ServiceDescriptor] = SERVICES) -> None:
    contract_handlers(
        services,
        boundary=Boundary(new_error_id=lambda: "error-1"),
        access=access(),
        contract=contract,
    )


@pytest.mark.parametrize("rpc", sorted(METHODS))
async def test_an_rpc_without_an_implementation_names_the_missing_capability(
    serve: Serve, rpc: str
) -> None:
    wire = await serve(local=required_role(METHODS[rpc]))
    refused = await refusal(wire.call(rpc))
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED
    assert refused.reason == Reason.NOT_IMPLEMENTED
    assert refused.metadata == {"capability": capability(METHODS[rpc])}


@pytest.mark.parametrize("rpc", sorted(METHODS))
async def test_an_rpc_with_an_implementation_answers(serve: Serve, rpc: str) -> None:
    implementation = stream if METHODS[rpc].server_streaming else answer
    wire = await serve(local=required_role(METHODS[rpc]), **{rpc: implementation})
    assert await wire.call(rpc) is not None


async def test_an_unknown_rpc_is_unimplemented(serve: Serve) -> None:
    wire = await serve()
    for path in ("/att.v1.ProjectService/__class__", "/att.v2.ProjectService/GetProject"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.raw(path)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("rpc", "name"),
    [
        ("CreateProject", "projects.create"),
        ("SetProjectMode", "projects.set_mode"),
        ("StartRuntime", "runtimes.start"),
        ("ListRuntimes", "runtimes.list"),
        ("ProbeHealth", "runtimes.probe_health"),
        ("FollowLogs", "logs.follow"),
        ("GetLogInfo", "logs.get_info"),
        ("StartCycle", "bootstrap.start_cycle"),
        ("WatchEvents", "events.watch"),
        ("GetServerInfo", "server.get_info"),
    ],
)
def test_capabilities_read_like_calls_of_the_sdk(rpc: str, name: str) -> None:
    assert capability(METHODS[rpc]) == name


def test_capabilities_are_unique() -> None:
    assert len({capability(method) for method in METHODS.values()}) == len(METHODS)


def test_an_rpc_that_declares_no_role_stops_the_start() -> None:
    with pytest.raises(TypeError, match=r"att\.test\.Odd\.Do declares no required_role"):
        make([], contract=[*SERVICES, service_without_role()])


def test_an_implementation_of_an_unknown_rpc_stops_the_start() -> None:
    with pytest.raises(TypeError, match="Imagined"):
        make([Given(descriptor=SERVICES[0], implementations={"Imagined": answer})])


def test_an_implementation_of_an_unknown_service_stops_the_start() -> None:
    with pytest.raises(TypeError, match=r"att\.test\.Odd"):
        make([Given(descriptor=service_without_role(), implementations={})])


def test_a_stream_where_an_answer_is_due_stops_the_start() -> None:
    with pytest.raises(TypeError, match="GetProject"):
        make(given(GetProject=stream))
    with pytest.raises(TypeError, match="FollowLogs"):
        make(given(FollowLogs=answer))


def service_without_role() -> ServiceDescriptor:
    """A service whose author forgot the option."""
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="att.test")
    file.message_type.add(name="Nothing")
    service = file.service.add(name="Odd")
    service.method.add(name="Do", input_type=".att.test.Nothing", output_type=".att.test.Nothing")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("att.test.Odd")

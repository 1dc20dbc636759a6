"""A wire of its own for a test's services, on a real socket."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from att_server.rpc.boundary import Boundary
from att_server.rpc.call import Service, Streaming, Unary
from att_server.rpc.handlers import SERVICES, contract_handlers

METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}
"""All rpcs of the contract, by name: no name is used twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A service with the implementations that a test gives."""

    descriptor: ServiceDescriptor
    implementations: Mapping[str, Unary | Streaming]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return self.implementations


def given(**implementations: Unary | Streaming) -> list[Service]:
    """Services that implement these rpcs, named as in the contract."""
    services: list[Service] = []
    for descriptor in SERVICES:
        own = {n: i for n, i in implementations.items() if n in descriptor.methods_by_name}
        if own:
            services.append(Given(descriptor=descriptor, implementations=own))
    return services


class Wire:
    """Calls rpcs by name."""

    def __init__(self, channel: grpc.aio.Channel, boundary: Boundary) -> None:
        self.channel = channel
        self.boundary = boundary

    def unary(self, rpc: str, request: Any = None, **options: Any) -> Awaitable[Any]:
        """Calls an rpc that answers one message; `request` may be raw bytes."""
        method = METHODS[rpc]
        call = self.channel.unary_unary(
            _path(method),
            request_serializer=_serialize,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return call(_request(method, request), **options)

    def stream(self, rpc: str, request: Any = None, **options: Any) -> Any:
        """Calls an rpc that answers a stream."""
        method = METHODS[rpc]
        call = self.channel.unary_stream(
            _path(method),
            request_serializer=_serialize,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        return call(_request(method, request), **options)

    async def raw(self, path: str) -> Any:
        """Calls whatever is at `path` with no bytes at all."""
        return await self.channel.unary_unary(
            path, request_serializer=bytes, response_deserializer=bytes
        )(b"")

    async def call(self, rpc: str, request: Any = None, **options: Any) -> Any:
        """Calls any rpc; of a stream, returns the first message."""
        if METHODS[rpc].server_streaming:
            stream = self.stream(rpc, request, **options)
            async for message in stream:
                stream.cancel()
                return message
            return None
        return await self.unary(rpc, request, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a failed call said."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]


async def refusal(call: Awaitable[Any]) -> Refusal:
    """The refusal that the call ends with, checked to be one of ours."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_refusal(caught.value)


def read_refusal(error: grpc.aio.AioRpcError) -> Refusal:
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    infos = [d for d in status.details if d.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert info.domain == "att.v1"
    assert trailers["att-reason"] == info.reason
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    fields: list[str] = []
    for detail in status.details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            fields += [violation.field for violation in bad.field_violations]
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(fields),
    )


@asynccontextmanager
async def connect(target: str, boundary: Boundary) -> AsyncIterator[Wire]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield Wire(channel, boundary)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A private directory with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="att-") as path:
        yield Path(path)


Serve = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def serve(directory: Path) -> AsyncIterator[Serve]:
    """Serves the implementations given by rpc name, all others missing."""
    async with AsyncExitStack() as stack:

        async def start(**implementations: Unary | Streaming) -> Wire:
            boundary = Boundary(new_error_id=lambda: "error-1")
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(
                contract_handlers(given(**implementations), boundary=boundary, principal="local:7")
            )
            target = f"unix:{directory}/wire.sock"
            server.add_insecure_port(target)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            return await stack.enter_async_context(connect(target, boundary))

        yield start


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _request(method: MethodDescriptor, request: Any) -> Any:
    return GetMessageClass(method.input_type)() if request is None else request


def _serialize(request: Any) -> bytes:
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())

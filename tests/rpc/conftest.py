"""A wire of its own for a test's services, on a real socket."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from att_server.core.audit import AuditLog
from att_server.core.bell import Bell
from att_server.core.identity import Caller, Role
from att_server.core.tokens import TokenManager
from att_server.rpc.access import Access
from att_server.rpc.auth import Authentication, Tokens
from att_server.rpc.boundary import ABORT_WITHIN, WRITE_WITHIN, Boundary
from att_server.rpc.call import Service, Streaming, Unary
from att_server.rpc.handlers import SERVICES, contract_handlers
from att_server.rpc.limits import CallLimits, Limits
from att_server.testing import FakeClock, MemoryStateStore
from att_server.testing.tokens import MemoryTokens

METHODS: Mapping[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}
"""All rpcs of the contract, by name: no name is used twice."""


NO_TOKENS = TokenManager(tokens=MemoryTokens(), events=MemoryStateStore(), clock=FakeClock())


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

    def __init__(
        self, channel: grpc.aio.Channel, boundary: Boundary, audit: AuditLog | None = None
    ) -> None:
        self.channel = channel
        self.boundary = boundary
        self.port = 0
        """Where the same is served in clear text, by `serve`."""
        self.audit = audit or AuditLog(store=MemoryStateStore(), clock=FakeClock(), stored=Bell())

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
async def connect(
    target: str, boundary: Boundary, audit: AuditLog | None = None
) -> AsyncIterator[Wire]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield Wire(channel, boundary, audit)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A private directory with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="att-") as path:
        yield Path(path)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with this token."""
    return (("authorization", f"Bearer {token}"),)


def access(
    local: Role = Role.OPERATOR,
    tokens: Tokens = NO_TOKENS,
    audit: AuditLog | None = None,
    limits: Limits | None = None,
    *,
    anonymous: bool = False,
) -> Access:
    """Takes callers without a token for `local:7`."""
    clock = FakeClock()
    return Access(
        authentication=Authentication(
            local=Caller(principal="local:7", role=local),
            tokens=tokens,
            anonymous=Caller(principal="stranger", role=Role.VIEWER) if anonymous else None,
        ),
        limits=CallLimits(clock, limits or Limits()),
        audit=audit or AuditLog(store=MemoryStateStore(), clock=clock, stored=Bell()),
    )


Serve = Callable[..., Awaitable[Wire]]


@pytest.fixture
async def serve(directory: Path) -> AsyncIterator[Serve]:
    """Serves the implementations given by rpc name, all others missing.

    local: the role of callers without a token. tokens: knows those with one. store:
    where audit records go.
    """
    async with AsyncExitStack() as stack:

        async def start(
            *,
            local: Role = Role.OPERATOR,
            tokens: Tokens = NO_TOKENS,
            store: MemoryStateStore | None = None,
            limits: Limits | None = None,
            write_within: timedelta = WRITE_WITHIN,
            abort_within: timedelta = ABORT_WITHIN,
            anonymous: bool = False,
            **implementations: Unary | Streaming,
        ) -> Wire:
            boundary = Boundary(
                new_error_id=lambda: "error-1", write_within=write_within, abort_within=abort_within
            )
            audit = AuditLog(store=store or MemoryStateStore(), clock=FakeClock(), stored=Bell())
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(
                contract_handlers(
                    given(**implementations),
                    boundary=boundary,
                    access=access(local, tokens, audit, limits, anonymous=anonymous),
                )
            )
            target = f"unix:{directory}/wire.sock"
            server.add_insecure_port(target)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            wire = await stack.enter_async_context(connect(target, boundary, audit))
            wire.port = port
            return wire

        yield start


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _request(method: MethodDescriptor, request: Any) -> Any:
    return GetMessageClass(method.input_type)() if request is None else request


def _serialize(request: Any) -> bytes:
    return request if isinstance(request, bytes) else bytes(request.SerializeToString())

"""gRPC handlers for every rpc of the contract, made from its descriptors.

From the descriptors and not from the generated servicers, so that no rpc can
lack its checks: an rpc without an implementation answers NOT_IMPLEMENTED, one
without a declared role stops the start.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass

from att.v1 import (
    access_pb2,
    bootstrap_service_pb2,
    code_service_pb2,
    event_service_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_server.core.errors import not_implemented
from att_server.rpc.boundary import Boundary, Context, Handler, parser, serialize
from att_server.rpc.call import Answer, Call, Service, Streaming, Unary
from att_server.rpc.capabilities import capability

SERVICES: Sequence[ServiceDescriptor] = tuple(
    service
    for module in (
        project_service_pb2,
        code_service_pb2,
        runtime_service_pb2,
        log_service_pb2,
        bootstrap_service_pb2,
        event_service_pb2,
        server_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Every service of the contract."""


def contract_handlers(
    implementations: Iterable[Service],
    *,
    boundary: Boundary,
    principal: str,
    contract: Sequence[ServiceDescriptor] = SERVICES,
) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services of the contract.

    principal: who calls, for every call. Raises TypeError when an rpc declares
    no role, or an implementation does not fit the contract.
    """
    implemented = {service.descriptor.full_name: service for service in implementations}
    unknown = implemented.keys() - {service.full_name for service in contract}
    if unknown:
        raise TypeError(f"not in the contract: {sorted(unknown)}")
    return [
        generic_handler(
            service,
            _service_handlers(
                service,
                {} if (found := implemented.get(service.full_name)) is None else found.methods(),
                principal,
            ),
            boundary=boundary,
        )
        for service in contract
    ]


def generic_handler(
    service: ServiceDescriptor,
    handlers: Mapping[str, Handler],
    *,
    boundary: Boundary,
    name: str = "",
) -> grpc.GenericRpcHandler:
    """What grpc.aio serves the rpcs of `handlers` with: each behind the boundary.

    name: serves it under this full name instead of its own.
    """
    name = name or service.full_name
    return grpc.method_handlers_generic_handler(
        name,
        {
            method.name: _rpc_handler(
                method, f"{name}/{method.name}", handlers[method.name], boundary
            )
            for method in service.methods
            if method.name in handlers
        },
    )


def implemented_capabilities(implementations: Iterable[Service]) -> list[str]:
    """The capabilities of all rpcs that have an implementation, sorted."""
    return sorted(
        capability(service.descriptor.methods_by_name[name])
        for service in implementations
        for name in service.methods()
    )


def _rpc_handler(
    method: MethodDescriptor, name: str, handler: Handler, boundary: Boundary
) -> grpc.RpcMethodHandler[Any, Any]:
    streaming = method.server_streaming
    if method.client_streaming:
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if streaming
            else grpc.stream_unary_rpc_method_handler
        )
    else:
        make = (
            grpc.unary_stream_rpc_method_handler
            if streaming
            else grpc.unary_unary_rpc_method_handler
        )
    idempotency = method.GetOptions().idempotency_level
    acts = idempotency != MethodOptions.NO_SIDE_EFFECTS
    made = make(
        boundary.streaming(name, handler)
        if streaming
        else boundary.unary(name, handler, acts=acts),
        request_deserializer=parser(GetMessageClass(method.input_type)),
        response_serializer=serialize,
    )
    return cast("grpc.RpcMethodHandler[Any, Any]", made)


def _service_handlers(
    service: ServiceDescriptor, methods: Mapping[str, Unary | Streaming], principal: str
) -> Mapping[str, Handler]:
    unknown = methods.keys() - service.methods_by_name.keys()
    if unknown:
        raise TypeError(f"not in {service.full_name}: {sorted(unknown)}")
    handlers: dict[str, Handler] = {}
    for method in service.methods:
        _require_role(method)
        implementation = methods.get(method.name)
        if implementation is None:
            handlers[method.name] = _unimplemented(method)
        elif inspect.isasyncgenfunction(implementation) != method.server_streaming:
            raise TypeError(f"{method.full_name} has an implementation of the other form")
        elif method.server_streaming:
            handlers[method.name] = _stream(cast("Streaming", implementation), principal)
        else:
            handlers[method.name] = _answer(cast("Unary", implementation), principal)
    return handlers


def _require_role(method: MethodDescriptor) -> None:
    role = method.GetOptions().Extensions[access_pb2.required_role]
    if role == access_pb2.ROLE_UNSPECIFIED:
        raise TypeError(f"{method.full_name} declares no required_role")


def _unimplemented(method: MethodDescriptor) -> Handler:
    name = capability(method)

    async def refuse(_request: Any, _context: Context) -> Any:
        raise not_implemented(name)

    return refuse


def _answer(implementation: Unary, principal: str) -> Handler:
    async def handle(request: Any, context: Context) -> Answer:
        return await implementation(request, _call(context, principal))

    return handle


def _stream(implementation: Streaming, principal: str) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        await write_all(implementation(request, _call(context, principal)), context)

    return handle


async def write_all(messages: AsyncIterator[Any], context: Context) -> None:
    """Writes every message to the call, and closes the generator however that ends."""
    async with aclosing(cast("Any", messages)) as closing:
        async for message in closing:
            await context.write(message)


def _call(context: Context, principal: str) -> Call:
    remaining = cast("float | None", context.time_remaining())
    return Call(
        principal=principal,
        time_remaining=None if remaining is None else timedelta(seconds=max(0.0, remaining)),
    )

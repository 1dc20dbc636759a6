"""gRPC handlers for every rpc of the contract, made from its descriptors.

From the descriptors and not from the generated servicers, so that no rpc can
lack its checks: who calls is known and has the rpc's role before anything else
is looked at, an rpc without an implementation answers NOT_IMPLEMENTED, one
without a declared role stops the start.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message_factory import GetMessageClass

from att.v1 import (
    bootstrap_service_pb2,
    code_service_pb2,
    event_service_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_server.core.errors import not_implemented
from att_server.rpc.access import Access, Rule
from att_server.rpc.boundary import Boundary, Context, Handler, parser, serialize
from att_server.rpc.call import Answer, Service, Streaming, Unary
from att_server.rpc.capabilities import capability
from att_server.rpc.request_sizes import max_request_bytes

_LONG_BYTES = 64 << 10

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
    access: Access,
    contract: Sequence[ServiceDescriptor] = SERVICES,
) -> list[grpc.GenericRpcHandler]:
    """The handlers of all services of the contract.

    Raises TypeError when an rpc declares no role, or an implementation does not
    fit the contract.
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
                access,
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
        request_deserializer=parser(
            GetMessageClass(method.input_type), max_bytes=max_request_bytes(method)
        ),
        response_serializer=serialize,
    )
    return cast("grpc.RpcMethodHandler[Any, Any]", made)


def _service_handlers(
    service: ServiceDescriptor,
    methods: Mapping[str, Unary | Streaming],
    access: Access,
) -> Mapping[str, Handler]:
    unknown = methods.keys() - service.methods_by_name.keys()
    if unknown:
        raise TypeError(f"not in {service.full_name}: {sorted(unknown)}")
    handlers: dict[str, Handler] = {}
    for method in service.methods:
        rule = Rule.of(method)
        implementation = methods.get(method.name)
        if implementation is None:
            handlers[method.name] = _unimplemented(method, rule, access)
        elif inspect.isasyncgenfunction(implementation) != method.server_streaming:
            raise TypeError(f"{method.full_name} has an implementation of the other form")
        elif method.server_streaming:
            handlers[method.name] = _stream(cast("Streaming", implementation), rule, access)
        else:
            handlers[method.name] = _answer(cast("Unary", implementation), rule, access)
    return handlers


def _unimplemented(method: MethodDescriptor, rule: Rule, access: Access) -> Handler:
    name = capability(method)

    async def refuse(_request: Any, context: Context) -> Any:
        await access.check(rule, context)
        raise not_implemented(name)

    return refuse


def _answer(implementation: Unary, rule: Rule, access: Access) -> Handler:
    async def handle(request: Any, context: Context) -> Answer:
        return await access.answer(rule, request, context, implementation)

    return handle


def _stream(implementation: Streaming, rule: Rule, access: Access) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        async with access.stream(rule, request, context) as call:
            await write_all(implementation(request, call), context)

    return handle


async def write_all(messages: AsyncIterator[Any], context: Context) -> None:
    """Writes every message to the call, and closes the generator however that ends.

    A long one is on its way while the next is made.
    """
    writing: asyncio.Future[None] | None = None
    try:
        async with aclosing(cast("Any", messages)) as closing:
            async for message in closing:
                if writing is not None:
                    await writing
                writing = None
                if isinstance(message, bytes) and len(message) > _LONG_BYTES:
                    writing = asyncio.ensure_future(context.write(message))
                else:
                    await context.write(message)
    except asyncio.CancelledError:
        if writing is not None:
            writing.cancel()
        raise
    finally:
        if writing is not None:
            await writing

"""A scripted server: real gRPC on a unix socket, answers as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from att.v1 import (
    bootstrap_service_pb2,
    code_service_pb2,
    error_reason_pb2,
    event_service_pb2,
    log_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)

LOG_ID = "01LOG0000000000000000000AA"
RUN = "01RUN0000000000000000000AA"
NEXT_RUN = "01RUN0000000000000000000BB"

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Message]]
Stream = Callable[[Any, Context], AsyncIterator[Message]]

_SERVICES = {
    "ProjectService": project_service_pb2,
    "RuntimeService": runtime_service_pb2,
    "LogService": log_service_pb2,
    "BootstrapService": bootstrap_service_pb2,
    "CodeService": code_service_pb2,
    "EventService": event_service_pb2,
    "ServerService": server_service_pb2,
}


class StubServer:
    """Serves what was scripted, as a context; what was not answers UNIMPLEMENTED.

    scripts: by rpc name, one handler a call; the last one stays.
    requests: by rpc name, what came, in order.
    """

    def __init__(self, socket: Path) -> None:
        self.target = f"unix:{socket}"
        self.scripts: dict[str, list[Any]] = {
            "GetServerInfo": [answer(server_service_pb2.GetServerInfoResponse(version="1.2.3"))]
        }
        self.requests: dict[str, list[Any]] = {}
        self.metadata: dict[str, list[dict[str, Any]]] = {}
        self.deadlines: dict[str, list[float | None]] = {}
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens, anew after `stop`."""
        self._server = grpc.aio.server()
        for service, module in _SERVICES.items():
            descriptor = module.DESCRIPTOR.services_by_name[service]
            handlers = {
                method.name: self._handler(
                    method.name,
                    getattr(module, method.input_type.name),
                    method.server_streaming,
                )
                for method in descriptor.methods
            }
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(descriptor.full_name, handlers),)
            )
        assert self._server.add_insecure_port(self.target)
        await self._server.start()

    async def stop(self) -> None:
        """Drops every call and connection at once."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def script(self, rpc: str, *handlers: Any) -> None:
        """Sets what the next calls of `rpc` get; the last handler stays."""
        self.scripts[rpc] = list(handlers)

    def _handler(
        self, rpc: str, request_type: Any, streams: bool
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if streams:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(rpc),
                request_deserializer=request_type.FromString,
                response_serializer=_to_bytes,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(rpc),
            request_deserializer=request_type.FromString,
            response_serializer=_to_bytes,
        )

    def _unary(self, rpc: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            return await (await self._next(rpc, request, context))(request, context)

        return handle

    def _stream(self, rpc: str) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            script = await self._next(rpc, request, context)
            async for message in script(request, context):
                yield message

        return handle

    async def _next(self, rpc: str, request: Any, context: Context) -> Any:
        self.requests.setdefault(rpc, []).append(request)
        self.metadata.setdefault(rpc, []).append(dict(context.invocation_metadata() or ()))
        self.deadlines.setdefault(rpc, []).append(context.time_remaining())
        handlers = self.scripts.get(rpc)
        if not handlers:
            await fail(context, grpc.StatusCode.UNIMPLEMENTED, "", "not scripted")
        assert handlers
        return handlers.pop(0) if len(handlers) > 1 else handlers[0]


def _to_bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def answer(message: Message | bytes) -> Any:
    """A handler that answers a unary call."""

    async def handle(request: Any, context: Context) -> Message | bytes:
        return message

    return handle


def failure(code: grpc.StatusCode, reason: str = "", message: str = "no", **metadata: str) -> Any:
    """A handler that fails a unary call."""

    async def handle(request: Any, context: Context) -> Any:
        await fail(context, code, reason, message, metadata)

    return handle


async def fail(
    context: Context,
    code: grpc.StatusCode,
    reason: str = "",
    message: str = "no",
    metadata: dict[str, str] | None = None,
    details: tuple[Message, ...] = (),
    rich: bool = True,
) -> None:
    """Ends the call with a status as the server sends it."""
    trailers: list[tuple[str, str | bytes]] = []
    if reason:
        assert error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
        trailers.append(("att-reason", reason))
        info = error_details_pb2.ErrorInfo(reason=reason, domain="att.v1", metadata=metadata)
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in (info, *details):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        if rich:
            trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(code, message, tuple(trailers))


def stream(*acts: Any, then: Any = None) -> Any:
    """A handler of a stream: sends messages, awaits callables, then does `then`.

    then: a coroutine function of (context), such as one that fails; None ends
        with OK.
    """

    async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
        for act in acts:
            if callable(act):
                await act()
            else:
                yield act
        if then is not None:
            await then(context)

    return handle


def unavailable(reason: str = "SHUTTING_DOWN") -> Any:
    """For `then`: the end of a stream that a client has to resume."""

    async def end(context: Context) -> None:
        await fail(context, grpc.StatusCode.UNAVAILABLE, reason, "shutting down")

    return end


def chunk(
    first: int,
    *lines: bytes,
    run_id: str = RUN,
    stream: int = log_pb2.LOG_STREAM_STDOUT,
    time: float = 1_700_000_000.25,
    **fields: Any,
) -> log_pb2.LogRecord:
    """A chunk of `lines`, given without their newlines."""
    record = log_pb2.LogRecord()
    record.chunk.first_sequence = first
    record.chunk.line_count = len(lines)
    record.chunk.time.FromMicroseconds(round(time * 1_000_000))
    record.chunk.stream = stream  # type: ignore[assignment]  # an int is what the enum is
    record.chunk.run_id = run_id
    record.chunk.lines = b"".join(line + b"\n" for line in lines)
    record.chunk.MergeFrom(log_pb2.LogChunk(**fields))
    return record


def started(sequence: int, run_id: str = RUN) -> log_pb2.LogRecord:
    """A marker of a run's start."""
    record = log_pb2.LogRecord()
    record.run.sequence = sequence
    record.run.run_id = run_id
    record.run.started.pid = 7
    return record


def ended(sequence: int, run_id: str = RUN) -> log_pb2.LogRecord:
    """A marker of a run's end."""
    record = log_pb2.LogRecord()
    record.run.sequence = sequence
    record.run.run_id = run_id
    record.run.ended.exit_code = 0
    return record


def gap(first: int, count: int) -> log_pb2.LogRecord:
    """A gap."""
    record = log_pb2.LogRecord()
    record.gap.first_sequence = first
    record.gap.count = count
    record.gap.reason = log_pb2.LOG_GAP_REASON_RETENTION
    return record


def batch(
    cursor: int,
    *records: log_pb2.LogRecord,
    end: int | None = None,
    log_id: str = LOG_ID,
    bound: str = "",
) -> log_service_pb2.FollowLogsResponse:
    """A message of a follow; end: None is the cursor."""
    return log_service_pb2.FollowLogsResponse(
        records=records,
        cursor=cursor,
        end_cursor=cursor if end is None else end,
        log_id=log_id,
        bound_run_id=bound,
    )

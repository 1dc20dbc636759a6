"""RuntimeService on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import runtime_pb2
from att.v1 import runtime_service_pb2 as pb
from att_server.core.errors import AttError, Reason
from att_server.core.logs import LogManager
from att_server.core.model import Runtime
from att_server.core.runtimes import RuntimeManager
from att_server.rpc import convert, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.pages import fitting_page

DEFAULT_START_TIMEOUT = timedelta(seconds=30)


class RuntimeService:
    """Starts, stops and shows apps."""

    def __init__(self, runtimes: RuntimeManager, logs: LogManager) -> None:
        """logs: tells where a project's log ends."""
        self._runtimes = runtimes
        self._logs = logs

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["RuntimeService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {
            "StartRuntime": self._start,
            "StopRuntime": self._stop,
            "RestartRuntime": self._restart,
            "GetRuntime": self._get,
            "ListRuntimes": self._list,
            "SignalRuntime": self._signal,
        }

    async def _start(self, request: pb.StartRuntimeRequest, call: Call) -> Answer:
        validate.start_runtime(request)
        runtime = await self._runtimes.start(
            request.project_id,
            convert.to_runtime_settings(request.runtime),
            wait_ready=request.wait == pb.START_WAIT_READY,
            timeout=_timeout(request, call),
            request_id=request.request_id,
            principal=call.principal,
        )
        return pb.StartRuntimeResponse(runtime=await self._message(runtime))

    async def _stop(self, request: pb.StopRuntimeRequest, call: Call) -> Answer:
        validate.stop_runtime(request)
        runtime = await self._runtimes.stop(
            request.project_id, grace=_grace(request), principal=call.principal
        )
        return pb.StopRuntimeResponse(runtime=await self._message(runtime))

    async def _restart(self, request: pb.RestartRuntimeRequest, call: Call) -> Answer:
        validate.restart_runtime(request)
        runtime = await self._runtimes.restart(
            request.project_id,
            convert.to_runtime_settings(request.runtime),
            wait_ready=request.wait == pb.START_WAIT_READY,
            timeout=_timeout(request, call),
            grace=_grace(request),
            request_id=request.request_id,
            principal=call.principal,
        )
        return pb.RestartRuntimeResponse(runtime=await self._message(runtime))

    async def _get(self, request: pb.GetRuntimeRequest, _call: Call) -> Answer:
        validate.get_runtime(request)
        runtime = self._runtimes.get(request.project_id)
        return pb.GetRuntimeResponse(runtime=await self._message(runtime))

    async def _list(self, request: pb.ListRuntimesRequest, _call: Call) -> Answer:
        validate.list_runtimes(request)

        async def page(size: int) -> pb.ListRuntimesResponse:
            runtimes, next_page_token, revision = self._runtimes.list(size, request.page_token)
            return pb.ListRuntimesResponse(
                runtimes=await self._messages(runtimes),
                next_page_token=next_page_token,
                revision=revision,
            )

        return await fitting_page(request.page_size, page)

    async def _signal(self, request: pb.SignalRuntimeRequest, call: Call) -> Answer:
        validate.signal_runtime(request)
        runtime = await self._runtimes.signal(
            request.project_id,
            request.signal,
            request_id=request.request_id,
            principal=call.principal,
        )
        return pb.SignalRuntimeResponse(runtime=await self._message(runtime))

    async def _message(self, runtime: Runtime) -> runtime_pb2.Runtime:
        log_end = await self._logs.end_cursor(runtime.project_id)
        return convert.runtime(runtime, log_end_cursor=log_end)

    async def _messages(self, runtimes: Sequence[Runtime]) -> list[runtime_pb2.Runtime]:
        messages: list[runtime_pb2.Runtime] = []
        for runtime in runtimes:
            try:
                messages.append(await self._message(runtime))
            except AttError as error:
                # Deleted since the page was made.
                if error.reason is not Reason.PROJECT_NOT_FOUND:
                    raise
        return messages


def _timeout(request: pb.StartRuntimeRequest | pb.RestartRuntimeRequest, call: Call) -> timedelta:
    """How long the call waits for the app to be ready: no longer than its caller does."""
    given = request.HasField("timeout")
    return call.bound(convert.to_timedelta(request.timeout) if given else DEFAULT_START_TIMEOUT)


def _grace(request: pb.StopRuntimeRequest | pb.RestartRuntimeRequest) -> timedelta | None:
    return convert.to_timedelta(request.grace) if request.HasField("grace") else None

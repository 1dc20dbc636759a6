"""RuntimeService on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import runtime_pb2
from att.v1 import runtime_service_pb2 as pb
from att_server.core.errors import AttError, Reason
from att_server.core.identity import Role
from att_server.core.logs import LogManager
from att_server.core.model import Runtime, RuntimeChanges
from att_server.core.runtimes import RuntimeManager
from att_server.core.settings import READINESS_THRESHOLD
from att_server.rpc import convert, convert_settings, convert_time, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.pages import MAX_MESSAGE_BYTES, fitting_page

DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)
DEFAULT_START_TIMEOUT = timedelta(seconds=30)

_RUNTIME_OVERHEAD = 8
"""More than a state's tag and length take in a message."""


class RuntimeService:
    """Starts, stops and shows apps."""

    def __init__(
        self, runtimes: RuntimeManager, logs: LogManager, probe_hosts: frozenset[str]
    ) -> None:
        """logs: tells where a project's log ends. probe_hosts: what probes may ask,
        beside this host."""
        self._runtimes = runtimes
        self._logs = logs
        self._probe_hosts = probe_hosts

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
            "WatchRuntimes": self._watch,
            "ProbeHealth": self._probe,
            "SignalRuntime": self._signal,
        }

    async def _start(self, request: pb.StartRuntimeRequest, call: Call) -> Answer:
        validate.start_runtime(request, self._probe_hosts)
        _check_user(request, call)
        runtime = await self._runtimes.start(
            request.project_id,
            convert_settings.to_runtime_settings(request.runtime),
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
        validate.restart_runtime(request, self._probe_hosts)
        _check_user(request, call)
        runtime = await self._runtimes.restart(
            request.project_id,
            convert_settings.to_runtime_settings(request.runtime),
            wait_ready=request.wait == pb.START_WAIT_READY,
            timeout=_timeout(request, call),
            grace=_grace(request),
            request_id=request.request_id,
            principal=call.principal,
        )
        return pb.RestartRuntimeResponse(runtime=await self._message(runtime))

    async def _get(self, request: pb.GetRuntimeRequest, _call: Call) -> Answer:
        validate.get_runtime(request)
        (runtime,) = await self._runtimes.measured([self._runtimes.get(request.project_id)])
        return pb.GetRuntimeResponse(runtime=await self._message(runtime))

    async def _list(self, request: pb.ListRuntimesRequest, call: Call) -> Answer:
        validate.list_runtimes(request)

        async def page(size: int) -> pb.ListRuntimesResponse:
            runtimes, next_page_token, revision = self._runtimes.list(
                size, request.page_token, within=call.caller.projects
            )
            return pb.ListRuntimesResponse(
                runtimes=await self._messages(await self._runtimes.measured(runtimes)),
                next_page_token=next_page_token,
                revision=revision,
            )

        return await fitting_page(request.page_size, page)

    async def _watch(self, request: pb.WatchRuntimesRequest, call: Call) -> AsyncIterator[Answer]:
        validate.watch_runtimes(request)
        watched = self._runtimes.watch(
            request.project_ids,
            request.after_revision,
            convert_time.to_timedelta(request.progress_interval)
            if request.HasField("progress_interval")
            else DEFAULT_PROGRESS_INTERVAL,
            within=call.caller.projects,
        )
        async with aclosing(watched) as changes:
            async for change in changes:
                measured = await self._runtimes.measured(change.runtimes)
                for message in _messages(change, await self._messages(measured)):
                    yield message

    async def _probe(self, request: pb.ProbeHealthRequest, _call: Call) -> Answer:
        validate.probe_health(request, self._probe_hosts)
        probe = None
        if request.HasField("probe"):
            probe = convert_settings.to_probe(request.probe, default_threshold=READINESS_THRESHOLD)
        result = await self._runtimes.check(request.project_id, probe)
        return pb.ProbeHealthResponse(health=convert.health_check(result))

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


def _messages(
    change: RuntimeChanges, runtimes: Sequence[runtime_pb2.Runtime]
) -> Iterator[pb.WatchRuntimesResponse]:
    """As few messages as hold the states, at least one; each tells where to go on after it.

    The states come in the order of their revisions.
    """
    message = pb.WatchRuntimesResponse(deleted_project_ids=change.deleted, complete=change.complete)
    size = message.ByteSize()
    for runtime in runtimes:
        weight = runtime.ByteSize() + _RUNTIME_OVERHEAD
        if message.runtimes and size + weight > MAX_MESSAGE_BYTES:
            message.revision = message.runtimes[-1].revision
            yield message
            message, size = pb.WatchRuntimesResponse(), 0
        message.runtimes.append(runtime)
        size += weight
    message.revision = change.revision
    yield message


def _check_user(request: pb.StartRuntimeRequest | pb.RestartRuntimeRequest, call: Call) -> None:
    """Raises PERMISSION_DENIED for another user that is asked for by somebody but an admin."""
    if request.runtime.HasField("run_as"):
        call.caller.require(Role.ADMIN)


def _timeout(request: pb.StartRuntimeRequest | pb.RestartRuntimeRequest, call: Call) -> timedelta:
    """How long the call waits for the app to be ready: no longer than its caller does."""
    if not request.HasField("timeout"):
        return call.bound(DEFAULT_START_TIMEOUT)
    return call.bound(convert_time.to_timedelta(request.timeout))


def _grace(request: pb.StopRuntimeRequest | pb.RestartRuntimeRequest) -> timedelta | None:
    return convert_time.to_timedelta(request.grace) if request.HasField("grace") else None

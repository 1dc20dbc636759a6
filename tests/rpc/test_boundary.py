"""What leaves the server when a call goes wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

import att_client
from att.v1 import (
    event_pb2,
    event_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_server.core.errors import AttError, FieldViolation, Reason, fields_invalid
from att_server.core.identity import Caller, Role
from att_server.rpc.call import Answer, Call
from tests.rpc.conftest import Serve, refusal

BOUND = 10.0


async def test_an_answer_reaches_the_caller_with_the_caller_named(serve: Serve) -> None:
    async def info(_request: Any, call: Call) -> Answer:
        return server_service_pb2.GetServerInfoResponse(principal=call.principal)

    wire = await serve(GetServerInfo=info)
    assert (await wire.unary("GetServerInfo")).principal == "local:7"


async def test_encoded_messages_are_sent_as_they_are(serve: Serve) -> None:
    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        yield event_service_pb2.WatchEventsResponse(cursor=1).SerializeToString()
        yield event_service_pb2.WatchEventsResponse(cursor=2)

    wire = await serve(WatchEvents=watch)
    cursors = [message.cursor async for message in wire.stream("WatchEvents")]
    assert cursors == [1, 2]


async def test_a_refusal_carries_reason_metadata_and_every_violation(serve: Serve) -> None:
    async def info(_request: Any, _call: Call) -> Answer:
        raise fields_invalid(
            [
                FieldViolation(field="path", description="must be absolute"),
                FieldViolation(field="project_id", description="must be short"),
            ]
        )

    wire = await serve(GetServerInfo=info)
    refused = await refusal(wire.unary("GetServerInfo"))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == Reason.FIELD_INVALID
    assert refused.metadata == {"field": "path"}
    assert refused.fields == ("path", "project_id")


@pytest.mark.parametrize("rpc", ["GetServerInfo", "WatchEvents"])
async def test_nothing_of_an_unexpected_exception_leaves_the_server(
    serve: Serve, rpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_request: Any, _call: Call) -> Answer:
        raise ValueError("password=hunter2")

    async def stream(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        yield event_service_pb2.WatchEventsResponse()
        raise ValueError("password=hunter2")

    wire = await serve(GetServerInfo=answer, WatchEvents=stream)
    call = wire.unary(rpc) if rpc == "GetServerInfo" else _last(wire.stream(rpc))
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert "hunter2" not in repr(caught.value) + str(list(caught.value.trailing_metadata()))
    refused = await refusal(wire.unary("GetServerInfo"))
    assert refused.code is grpc.StatusCode.INTERNAL
    assert refused.reason == Reason.INTERNAL
    assert refused.metadata == {"error_id": "error-1"}
    assert "hunter2" in caplog.text
    assert "error-1" in caplog.text


async def test_a_client_does_not_repeat_what_a_silent_supervisor_kept_waiting(
    serve: Serve, directory: Path
) -> None:
    calls = 0

    async def stop(_request: Any, _call: Call) -> Answer:
        nonlocal calls
        calls += 1
        raise AttError(Reason.SUPERVISOR_UNREACHABLE, "It does not answer.", project_id="web")

    async def info(_request: Any, _call: Call) -> Answer:
        return server_service_pb2.GetServerInfoResponse()

    await serve(StopRuntime=stop, GetServerInfo=info)
    async with att_client.connect(f"unix:{directory}/wire.sock") as att:
        with pytest.raises(att_client.SupervisorUnreachableError):
            await att.runtimes.stop("web")
    assert calls == 1


async def test_a_timeout_inside_an_implementation_is_a_defect_and_no_shutdown(serve: Serve) -> None:
    async def info(_request: Any, _call: Call) -> Answer:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        raise AssertionError

    wire = await serve(GetServerInfo=info)
    assert (await refusal(wire.unary("GetServerInfo"))).reason == Reason.INTERNAL


@pytest.mark.parametrize("rpc", ["GetProject", "WatchEvents", "StartCycle"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x0a\x05ab", id="cut short"),
        pytest.param(b"\xff" * 12, id="no tag"),
        pytest.param(b"\x0a\x02\xff\xfe", id="no UTF-8"),
        pytest.param(b"\x0b" * 5000, id="nested too deep"),
    ],
)
async def test_bytes_that_are_no_message_are_refused_as_malformed(
    serve: Serve, rpc: str, data: bytes
) -> None:
    wire = await serve()
    refused = await refusal(wire.call(rpc, data))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == Reason.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("caf\udce9", "caf\\udce9", id="lone surrogate"),
        pytest.param("a\x1b[2Jb\0", "a\\x1b[2Jb\\x00", id="control characters"),
        pytest.param("\u202egnp.exe", "\\u202egnp.exe", id="reversed text"),
        pytest.param("line 1\nline 2\r", "line 1\nline 2\\r", id="only newlines stay"),
        pytest.param("Größe 大小", "Größe 大小", id="letters stay"),
    ],
)
async def test_text_that_could_harm_is_escaped(serve: Serve, text: str, shown: str) -> None:
    async def info(_request: Any, _call: Call) -> Answer:
        raise AttError(Reason.PROJECT_PATH_INVALID, text, path=text)

    wire = await serve(GetServerInfo=info)
    refused = await asyncio.wait_for(refusal(wire.unary("GetServerInfo")), BOUND)
    assert refused.message == shown
    assert refused.metadata == {"path": shown}


async def test_an_error_that_is_far_too_large_keeps_its_code_and_reason(serve: Serve) -> None:
    async def info(_request: Any, _call: Call) -> Answer:
        error = fields_invalid(
            [FieldViolation(field=f"f{n}" * 500, description="ü" * 5000) for n in range(500)]
        )
        error.metadata = {f"key{n}": "大" * 5000 for n in range(500)}
        raise error

    wire = await serve(GetServerInfo=info)
    refused = await refusal(wire.unary("GetServerInfo"))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == Reason.FIELD_INVALID
    assert refused.fields


async def test_a_request_over_the_size_limit_is_refused_and_the_server_goes_on(
    serve: Serve,
) -> None:
    async def create(_request: Any, _call: Call) -> Answer:
        return project_service_pb2.CreateProjectResponse()

    wire = await serve(CreateProject=create)
    huge = project_service_pb2.CreateProjectRequest(path="x" * (5 << 20))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.unary("CreateProject", huge)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await wire.unary("CreateProject")


async def test_the_callers_deadline_is_told_and_ends_the_implementation(serve: Serve) -> None:
    ended = asyncio.Event()
    remaining: list[timedelta | None] = []

    async def info(_request: Any, call: Call) -> Answer:
        remaining.append(call.time_remaining)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    wire = await serve(GetServerInfo=info)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wire.unary("GetServerInfo", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(ended.wait(), BOUND)
    assert remaining[0] is not None
    assert timedelta() < remaining[0] < timedelta(seconds=1)


async def test_a_call_without_a_deadline_has_none(serve: Serve) -> None:
    remaining: list[timedelta | None] = []

    async def info(_request: Any, call: Call) -> Answer:
        remaining.append(call.time_remaining)
        return server_service_pb2.GetServerInfoResponse()

    wire = await serve(GetServerInfo=info)
    await wire.unary("GetServerInfo")
    assert remaining == [None]


@pytest.mark.parametrize(
    ("remaining", "wait", "bound"),
    [
        (None, 30.0, 30.0),
        (60.0, 30.0, 30.0),
        (10.0, 30.0, 9.8),
        (1.0, 30.0, 0.9),
        (0.0, 30.0, 0.0),
    ],
)
def test_a_wait_ends_before_the_callers_deadline(
    remaining: float | None, wait: float, bound: float
) -> None:
    call = Call(
        caller=Caller(principal="local:7", role=Role.OPERATOR),
        time_remaining=None if remaining is None else timedelta(seconds=remaining),
    )
    assert call.bound(timedelta(seconds=wait)) == timedelta(seconds=bound)


async def test_a_cancelled_stream_closes_its_generator_and_logs_nothing(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    closed = asyncio.Event()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        try:
            yield event_service_pb2.WatchEventsResponse()
            await asyncio.Event().wait()
        finally:
            closed.set()

    wire = await serve(WatchEvents=watch)
    stream = wire.stream("WatchEvents")
    await anext(aiter(stream))
    stream.cancel()
    await asyncio.wait_for(closed.wait(), BOUND)
    # gRPC may still report, through asyncio, on the loop of a test before this one.
    assert not [record for record in caplog.records if record.name.startswith("att_server")]


async def test_what_was_begun_to_change_comes_to_its_end_when_the_caller_leaves(
    serve: Serve,
) -> None:
    entered, finish, stored = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def create(_request: Any, _call: Call) -> Answer:
        entered.set()
        await finish.wait()
        stored.set()
        return project_service_pb2.CreateProjectResponse()

    wire = await serve(CreateProject=create)
    call = wire.unary("CreateProject")
    waiting = asyncio.ensure_future(call)
    await asyncio.wait_for(entered.wait(), BOUND)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    drained = asyncio.create_task(wire.boundary.drain(timedelta(seconds=60)))
    await asyncio.sleep(0)
    assert not drained.done()
    finish.set()
    await asyncio.wait_for(drained, BOUND)
    assert stored.is_set()


async def test_a_drain_ends_streams_at_once_and_lets_calls_finish(serve: Serve) -> None:
    entered, finish = asyncio.Event(), asyncio.Event()

    async def stop(_request: Any, _call: Call) -> Answer:
        entered.set()
        await finish.wait()
        return runtime_service_pb2.StopRuntimeResponse()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        yield event_service_pb2.WatchEventsResponse()
        await asyncio.Event().wait()

    wire = await serve(StopRuntime=stop, WatchEvents=watch)
    stream = aiter(wire.stream("WatchEvents"))
    await anext(stream)
    slow = asyncio.ensure_future(wire.unary("StopRuntime"))
    await entered.wait()
    drained = asyncio.create_task(wire.boundary.drain(timedelta(seconds=60)))
    ended = await asyncio.wait_for(refusal(_last(stream)), BOUND)
    assert ended.code is grpc.StatusCode.UNAVAILABLE
    assert ended.reason == Reason.SHUTTING_DOWN
    assert not drained.done()
    assert (await refusal(wire.unary("StopRuntime"))).reason == Reason.SHUTTING_DOWN
    finish.set()
    await asyncio.wait_for(slow, BOUND)
    await asyncio.wait_for(drained, BOUND)


async def test_a_drain_ends_what_outlives_its_grace(serve: Serve) -> None:
    entered = asyncio.Event()

    async def stop(_request: Any, _call: Call) -> Answer:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    wire = await serve(StopRuntime=stop)
    endless = asyncio.ensure_future(wire.unary("StopRuntime"))
    await entered.wait()
    await asyncio.wait_for(wire.boundary.drain(timedelta(milliseconds=1)), BOUND)
    assert (await refusal(endless)).reason == Reason.SHUTTING_DOWN


async def test_a_stream_that_nobody_reads_does_not_hold_up_a_drain(serve: Serve) -> None:
    stuck = asyncio.Event()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        message = event_service_pb2.WatchEventsResponse(
            events=[event_pb2.Event(message="x" * 256 * 1024)]
        ).SerializeToString()
        while True:
            asyncio.get_running_loop().call_later(0.2, stuck.set)
            yield message

    wire = await serve(WatchEvents=watch)
    stream = aiter(wire.stream("WatchEvents"))
    await anext(stream)
    await stuck.wait()
    await asyncio.wait_for(wire.boundary.drain(timedelta(seconds=60)), BOUND)


@pytest.mark.parametrize("attempt", range(5))
async def test_a_drain_lets_the_first_message_come_out_before_the_end(
    serve: Serve, attempt: int
) -> None:
    writing = asyncio.Event()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        asyncio.get_running_loop().call_soon(writing.set)
        yield event_service_pb2.WatchEventsResponse()
        await asyncio.Event().wait()

    wire = await serve(WatchEvents=watch)
    stream = aiter(wire.stream("WatchEvents"))
    await writing.wait()
    drained = asyncio.create_task(wire.boundary.drain(timedelta(seconds=60)))
    assert (await asyncio.wait_for(refusal(_last(stream)), BOUND)).reason == Reason.SHUTTING_DOWN
    await asyncio.wait_for(drained, BOUND)


async def test_a_stream_that_nobody_reads_is_ended_and_says_so(serve: Serve) -> None:
    closed = asyncio.Event()

    async def watch(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        message = event_service_pb2.WatchEventsResponse(
            events=[event_pb2.Event(message="x" * 256 * 1024)]
        ).SerializeToString()
        try:
            while True:
                yield message
        finally:
            closed.set()

    async def quiet(_request: Any, _call: Call) -> AsyncIterator[Answer]:
        yield runtime_service_pb2.WatchRuntimesResponse()
        await closed.wait()
        yield runtime_service_pb2.WatchRuntimesResponse()

    wire = await serve(
        WatchEvents=watch, WatchRuntimes=quiet, write_within=timedelta(milliseconds=300)
    )
    read = aiter(wire.stream("WatchRuntimes"))
    await anext(read)
    unread = aiter(wire.stream("WatchEvents"))
    await anext(unread)
    await asyncio.wait_for(closed.wait(), BOUND)
    # Who had nothing to take meanwhile is not concerned.
    await anext(read)
    ended = await asyncio.wait_for(refusal(_last(unread)), BOUND)
    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, Reason.STREAM_STALLED)


async def _last(stream: Any) -> Any:
    message = None
    async for item in stream:
        message = item
    return message

"""Whatever a request holds, the answer is a documented one and the server goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from att_server.core.errors import Reason
from att_server.rpc.boundary import Boundary
from att_server.testing.server import fake_adapters, serve_in_process
from tests.fuzz.requests import arbitrary, damaged
from tests.rpc.conftest import METHODS, Wire, connect, read_refusal

REQUESTS_PER_RPC = 60


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with (
        serve_in_process(fake_adapters()) as target,
        connect(target, Boundary(new_error_id=str)) as wire,
    ):
        yield wire


@pytest.mark.parametrize("rpc", sorted(METHODS))
async def test_no_request_makes_the_server_fail(wire: Wire, rpc: str) -> None:
    seeded = random.Random(rpc)
    create = GetMessageClass(METHODS["CreateProject"].input_type)
    await wire.call("CreateProject", create(project_id="web", path="/"))
    for _ in range(REQUESTS_PER_RPC):
        request = arbitrary(METHODS[rpc].input_type, seeded)
        data = request.SerializeToString()
        if seeded.random() < 0.2:
            data = damaged(data, seeded)
        code, reason = await outcome(wire, rpc, data)
        assert code is not grpc.StatusCode.UNKNOWN, request
        assert reason != Reason.INTERNAL, request
    await wire.call("GetServerInfo")


async def outcome(wire: Wire, rpc: str, data: bytes) -> tuple[grpc.StatusCode, str]:
    """How the call ends, with our reason where it is not its own deadline that ends it."""
    try:
        await asyncio.wait_for(wire.call(rpc, data, timeout=5.0), 10.0)
    except grpc.aio.AioRpcError as error:
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return error.code(), "" if late else read_refusal(error).reason
    return grpc.StatusCode.OK, ""

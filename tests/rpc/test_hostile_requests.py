"""Whatever a request holds, the answer is a documented one and the server goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from att_server.core.errors import Reason
from att_server.rpc.boundary import Boundary
from att_server.testing.server import fake_adapters, serve_in_process
from tests.rpc.conftest import METHODS, Wire, connect, read_refusal

REQUESTS_PER_RPC = 60
TEXTS = [
    *("", "web", "a1", "../x", "-rf", "a" * 200, "\0", "\u202e", "\U0001f600", "ATT_X", "%s%n"),
    *("/", "/tmp", "/nonexistent", "http://localhost/", "http://169.254.169.254/", "' OR 1=1 --"),
]
NUMBERS = [0, 1, -1, 2, 9, 15, 50, 1000, 2**31 - 1, -(2**31)]
WIDE = [*NUMBERS, 2**63 - 1, -(2**63), 10**18]


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


def arbitrary(descriptor: Descriptor, seeded: random.Random, depth: int = 0) -> Message:
    """A message with fields of any kind, likely and not."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if seeded.random() < 0.4 or depth > 3:
            continue
        if is_map(field):
            for _ in range(seeded.randrange(3)):
                getattr(message, field.name)[seeded.choice(TEXTS)] = seeded.choice(TEXTS)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(seeded.randrange(3)):
                if field.message_type is not None:
                    values.add().CopyFrom(arbitrary(field.message_type, seeded, depth + 1))
                else:
                    values.append(scalar(field, seeded))
        elif field.message_type is not None:
            inner = arbitrary(field.message_type, seeded, depth + 1)
            getattr(message, field.name).CopyFrom(inner)
        else:
            setattr(message, field.name, scalar(field, seeded))
    return message


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def scalar(field: FieldDescriptor, seeded: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return seeded.randbytes(8)
        case FieldDescriptor.CPPTYPE_STRING:
            return "web" if field.name == "project_id" else seeded.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return seeded.random() < 0.5
        case FieldDescriptor.CPPTYPE_INT32:
            return seeded.choice(NUMBERS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return seeded.choice([0, 1, 2, 3, 99])
        case FieldDescriptor.CPPTYPE_INT64:
            return seeded.choice(WIDE)
        case _:
            return seeded.choice([0.0, -1.0, float("inf"), float("nan")])


def damaged(data: bytes, seeded: random.Random) -> bytes:
    """The bytes with some of them changed, or cut off."""
    changed = bytearray(data)
    for _ in range(seeded.randrange(1, 4)):
        if changed:
            changed[seeded.randrange(len(changed))] = seeded.randrange(256)
    return bytes(changed[: seeded.randrange(len(changed) + 1)])

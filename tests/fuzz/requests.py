"""Requests of every kind, made from the descriptors: hostile, damaged, and likely to be right."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.rpc.conftest import METHODS

TEXTS = [
    *("", "web", "a1", "../x", "-rf", "a" * 200, "\0", "\u202e", "\U0001f600", "ATT_X", "%s%n"),
    *("/", "/tmp", "/nonexistent", "http://localhost/", "http://169.254.169.254/", "' OR 1=1 --"),
]
NUMBERS = [0, 1, -1, 2, 9, 15, 50, 1000, 2**31 - 1, -(2**31)]
WIDE = [*NUMBERS, 2**63 - 1, -(2**63), 10**18]


def arbitrary(
    descriptor: Descriptor,
    seeded: random.Random,
    depth: int = 0,
    *,
    texts: list[str] | None = None,
    project_ids: tuple[str, ...] = ("web",),
) -> Message:
    """A message with fields of any kind, likely and not. texts: over those of this module."""
    pool = TEXTS + (texts or [])
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if seeded.random() < 0.4 or depth > 3:
            continue

        def inner(found: Descriptor) -> Message:
            return arbitrary(found, seeded, depth + 1, texts=texts, project_ids=project_ids)

        if is_map(field):
            for _ in range(seeded.randrange(3)):
                getattr(message, field.name)[seeded.choice(pool)] = seeded.choice(pool)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(seeded.randrange(3)):
                if field.message_type is not None:
                    values.add().CopyFrom(inner(field.message_type))
                else:
                    values.append(scalar(field, seeded, pool, project_ids))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(inner(field.message_type))
        else:
            setattr(message, field.name, scalar(field, seeded, pool, project_ids))
    return message


def damaged(data: bytes, seeded: random.Random) -> bytes:
    """The bytes with some of them changed, or cut off."""
    changed = bytearray(data)
    for _ in range(seeded.randrange(1, 4)):
        if changed:
            changed[seeded.randrange(len(changed))] = seeded.randrange(256)
    return bytes(changed[: seeded.randrange(len(changed) + 1)])


def likely(rpc: str, seeded: random.Random, project_id: str, directory: str) -> Message:
    """A request that is right wherever the project's state lets it be."""
    made = GetMessageClass(METHODS[rpc].input_type)()
    request: Any = made
    names = request.DESCRIPTOR.fields_by_name
    if "project_id" in names:
        request.project_id = project_id
    if "page_size" in names:
        request.page_size = seeded.choice([0, 1, 5, 50, 1000, 2**31 - 1])
    if "request_id" in names:
        request.request_id = f"r{seeded.randrange(10**9)}"
    match rpc:
        case "CreateProject":
            request.path = directory
        case "UpdateProject":
            request.path = directory
        case "ReadLogs":
            request.limit = seeded.choice([0, 1, 100, 1000])
        case "ReadFile":
            request.path = "app.py"
        case "SearchFiles":
            request.pattern = seeded.choice(["def", "import", "[a-z]+", "(a+)+$"])
        case "ListEvents":
            request.tail = seeded.random() < 0.5
        case "SetProjectMode":
            request.mode = 1
        case "StopRuntime":
            request.grace.FromMilliseconds(seeded.choice([0, 100]))
        case "SignalRuntime":
            request.signal = 18  # SIGCONT
        case "StartRuntime" | "RestartRuntime":
            request.timeout.FromSeconds(2)
        case "WatchRuntimes":
            request.project_ids.append(project_id)
        case "EvaluateRollback":
            request.target_release_id = ""
        case _:
            pass
    return made


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def scalar(
    field: FieldDescriptor, seeded: random.Random, texts: list[str], project_ids: tuple[str, ...]
) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return seeded.randbytes(8)
        case FieldDescriptor.CPPTYPE_STRING:
            if field.name == "project_id":
                return seeded.choice(project_ids)
            return seeded.choice(texts)
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

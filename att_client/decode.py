"""Reads answers from the wire, with the C decoder of the contract's own package.

The generated classes of the SDK take 300 µs to parse an answer of 150 bytes themselves,
the decoder and the way from its message to theirs 20 µs. A test compares both ways for
every message of the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any, TypeVar, cast

import betterproto2
from google.protobuf import descriptor_pool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from att_client._proto.google import protobuf as wkt
from att_client._proto.message_pool import default_message_pool

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SERVICES = ("bootstrap", "code", "event", "log", "project", "runtime", "server")

M = TypeVar("M", bound=betterproto2.Message)
Convert = Callable[[Any], Any]


def decoder(made: type[M]) -> Callable[[bytes], M]:
    """What makes messages of a class of the SDK from their bytes.

    It raises DecodeError or OverflowError for what is no such message. Fields of a later
    contract are left out.
    """
    return cast("Callable[[bytes], M]", _decoder(made))


@cache
def _decoder(made: type[betterproto2.Message]) -> Convert:
    for service in _SERVICES:
        import_module(f"att.v1.{service}_service_pb2")
    name = default_message_pool.type_to_url[made].rpartition("/")[2]
    parse = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name)).FromString
    convert = _of_message(made)
    return lambda data: convert(parse(data))


@cache
def _of_message(made: type[betterproto2.Message]) -> Convert:
    """From a decoded message to one of the SDK."""
    fields: dict[int, tuple[str, Convert | None]] = {}

    def convert(message: Any) -> betterproto2.Message:
        given = {}
        for field, value in message.ListFields():
            name, converted = fields[field.number]
            given[name] = value if converted is None else converted(value)
        return made(**given)

    # Afterwards, as a message may hold others of its kind.
    about = made._betterproto  # type: ignore[arg-type]  # declared for no class at all
    for name, meta in about.meta_by_field_name.items():
        fields[meta.number] = name, _of_field(name, meta, about.cls_by_field)
    return convert


def _of_field(
    name: str, meta: betterproto2.FieldMetadata, classes: Mapping[str, Any]
) -> Convert | None:
    """From a field's decoded value to the SDK's; None where they are the same."""
    if meta.map_meta is not None:
        value = _of_value(meta.map_meta[1], classes[f"{name}.value"])
        return dict if value is None else lambda pairs: {k: value(pairs[k]) for k in pairs}
    single = _of_value(meta, classes[name])
    if not meta.repeated:
        return single
    # A slice is a list, and quicker than a loop over the container itself.
    return _all if single is None else lambda values: [single(value) for value in values[:]]


def _of_value(meta: betterproto2.FieldMetadata, kind: Any) -> Convert | None:
    if meta.proto_type == betterproto2.TYPE_ENUM:
        return _Members(kind).__getitem__
    if meta.proto_type != betterproto2.TYPE_MESSAGE:
        return None
    return _of_message(kind) if meta.unwrap is None else _WRAPPED[meta.unwrap()]


class _Members(dict[int, Any]):
    """The members of an enumeration, found in a tenth of the time that a call of it takes."""

    def __init__(self, kind: type[betterproto2.Enum]) -> None:
        super().__init__((member.value, member) for member in kind)
        self._kind = kind

    def __missing__(self, number: int) -> Any:
        # Of a later contract.
        return self._kind(number)


def _to_datetime(message: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)


def _to_timedelta(message: Duration) -> timedelta:
    return timedelta(seconds=message.seconds, microseconds=message.nanos / 1000)


_WRAPPED: Mapping[type, Convert] = {wkt.Timestamp: _to_datetime, wkt.Duration: _to_timedelta}
"""What the SDK has in place of these messages."""


def _all(values: Any) -> Any:
    return values[:]

"""What a request says of itself, by its descriptor: the projects it names, its arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from att_server.core.tokens import masked

PROJECT_FIELDS = frozenset({"project_id", "project_ids"})
CYCLE_FIELD = "cycle_id"

MAX_ARGUMENTS_BYTES = 4096
_MAX_TEXT = 256
_MAX_ITEMS = 32
_MAX_DEPTH = 8


def project_paths(descriptor: Descriptor) -> tuple[tuple[str, ...], ...]:
    """The paths of all fields in which a request names projects."""
    return tuple(_paths(descriptor, PROJECT_FIELDS, ()))


def cycle_paths(descriptor: Descriptor) -> tuple[tuple[str, ...], ...]:
    """The paths of all fields in which a request names a cycle."""
    return tuple(_paths(descriptor, frozenset({CYCLE_FIELD}), ()))


def values(message: Any, path: tuple[str, ...]) -> Iterator[str]:
    """What the request says at `path`; nothing where it is empty."""
    *parents, name = path
    for parent in parents:
        if not message.HasField(parent):
            return
        message = getattr(message, parent)
    found = getattr(message, name)
    yield from (text for text in ([found] if isinstance(found, str) else found) if text)


def arguments(request: Message) -> str:
    """The request as JSON of at most 4 KiB, without what its contract marks as secret.

    Of a secret field the size is told, of a secret map the keys. Long texts are cut.
    """
    text = json.dumps(_form(request, 0), ensure_ascii=True)
    if len(text) > MAX_ARGUMENTS_BYTES:
        names = [field.name for field, _ in request.ListFields()]
        text = json.dumps({"fields": names, "bytes": request.ByteSize()})
    return text


def _paths(
    descriptor: Descriptor, names: frozenset[str], parents: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    for field in descriptor.fields:
        if field.name in names:
            yield (*parents, field.name)
        elif field.message_type is not None and not field.is_repeated and len(parents) < _MAX_DEPTH:
            yield from _paths(field.message_type, names, (*parents, field.name))


def _form(message: Message, depth: int) -> dict[str, object]:
    if depth == _MAX_DEPTH:
        return {}
    return {field.name: _field(field, value, depth) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any, depth: int) -> object:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    secret = field.GetOptions().debug_redact
    if is_map:
        keys = sorted(value)[:_MAX_ITEMS]
        if secret:
            return [_text(key) for key in keys]
        return {_text(key): _text(value[key]) for key in keys}
    if secret:
        return f"<{len(value)} bytes>"
    if field.is_repeated:
        shown = [_value(field, item, depth) for item in value[:_MAX_ITEMS]]
        return shown if len(value) <= _MAX_ITEMS else [*shown, f"<{len(value)} in all>"]
    return _value(field, value, depth)


def _value(field: FieldDescriptor, value: Any, depth: int) -> object:
    if field.message_type is not None:
        return _form(value, depth + 1)
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return str(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _text(text: str) -> str:
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
    return masked(text)

"""How dataclasses of the core lie in the state store, as JSON.

Every release reads what the one before and the one after it wrote. So fields
are only ever added, each with a default that a reader takes where one is
missing, and what a reader does not know it leaves out. Spans are in seconds,
times in UTC, bytes in base 64.
"""

from __future__ import annotations

import base64
import json
import types
from collections.abc import Callable, Container, Mapping
from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

Encoder = Callable[[Any], Any]
Decoder = Callable[[Any, list[str]], Any]
Codec = tuple[Encoder, Decoder]

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What a decoder raises for a value that it does not know."""


class Form(Generic[T]):
    """The JSON of a dataclass, and of all that lies within it.

    sparse: dataclasses whose fields are left out at defaults that say nothing
    (None, empty, false, zero). Not for settings: their defaults may change while
    what was in force must not.
    aside: fields by dataclass that lie elsewhere; `decode` is given them.
    codecs: for types that are no dataclass, or lie otherwise.
    """

    def __init__(
        self,
        kind: type[T],
        *,
        sparse: frozenset[type] = frozenset(),
        aside: Mapping[type, frozenset[str]] = types.MappingProxyType({}),
        codecs: Mapping[object, Codec] = types.MappingProxyType({}),
    ) -> None:
        self._kind = kind
        self._sparse = sparse
        self._aside = aside
        self._codecs: dict[object, Codec] = dict(codecs)
        self._shapes: dict[type, _Shape] = {}
        self.root = self._shape(kind)

    def encode(self, value: T) -> dict[str, Any]:
        """The JSON of `value`."""
        return self.root.encode(value)

    def decode(self, data: Any, unknown: list[str], **given: object) -> T:
        """The value of a JSON, with what is `given`.

        unknown: takes the names of what has a value that this release does not
        know; it is then at its default, or left out of its list. Raises one of
        UNREADABLE where there is none.
        """
        value: T = self.root.decode(data, unknown, **given)
        return value

    def knows(self, data: Mapping[str, Any]) -> bool:
        """Whether this release knows every field of a JSON."""
        return self.root.knows(data)

    def merged(self, old: Mapping[str, Any], value: T) -> dict[str, Any]:
        """The JSON of `value`, with the fields of `old` that this release does not know.

        So a later release finds what it wrote when this one has gone on meanwhile.
        """
        merged: dict[str, Any] = self.root.merged(old, self.encode(value))
        return merged

    def _shape(self, kind: type) -> _Shape:
        if (known := self._shapes.get(kind)) is not None:
            return known
        hints = get_type_hints(kind)
        aside = self._aside.get(kind, frozenset())
        shape = _Shape(kind, frozenset(hints))
        self._shapes[kind] = shape
        for field in fields(kind):
            if field.name in aside:
                continue
            default = field.default
            if default is MISSING and field.default_factory is not MISSING:
                default = field.default_factory()
            # MISSING is equal to no value.
            left_out = default if kind in self._sparse and not default else MISSING
            encode, decode = self._codec(hints[field.name])
            shape.encoders.append((field.name, encode, left_out))
            shape.decoders[field.name] = decode
            nested = _nested(hints[field.name])
            if nested in self._shapes:
                shape.nested[field.name] = self._shapes[nested]
        return shape

    def _codec(self, hint: Any) -> Codec:
        if hint not in self._codecs:
            self._codecs[hint] = self._made_codec(hint)
        return self._codecs[hint]

    def _made_codec(self, hint: Any) -> Codec:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType) and type(None) in arguments:
            [inner] = [each for each in arguments if each is not type(None)]
            return _optional(*self._codec(inner))
        if origin is tuple and arguments[1:] == (...,):
            return _tuple(*self._codec(arguments[0]))
        if hint == Mapping[str, str]:
            return dict, _texts
        if isinstance(hint, type):
            if issubclass(hint, Enum):
                # Faster than to ask the class.
                members = {member.value: member for member in hint}
                return _value_of, lambda data, unknown: members[data]
            if hint in _PLAIN:
                return _same, _checked(hint)
            if hint in _SCALARS:
                return _SCALARS[hint]
            shape = self._shape(hint)
            return shape.encode, shape.decode
        raise TypeError(f"{hint} has no form")


class _Shape:
    """The compiled form of one dataclass. names: of all its fields, also those aside."""

    def __init__(self, kind: type, names: frozenset[str]) -> None:
        self.kind = kind
        self.names = names
        self.encoders: list[tuple[str, Encoder, object]] = []
        self.decoders: dict[str, Decoder] = {}
        self.nested: dict[str, _Shape] = {}

    def encode(self, value: object, but: Container[str] = ()) -> dict[str, Any]:
        data = {}
        for name, encode, left_out in self.encoders:
            if name in but:
                continue
            part = getattr(value, name)
            if part != left_out:
                data[name] = encode(part)
        return data

    def decode(self, data: Any, unknown: list[str], **given: object) -> Any:
        values = given
        decoders = self.decoders
        for name, part in data.items():
            decode = decoders.get(name)
            if decode is not None:
                try:
                    values[name] = decode(part, unknown)
                except UNREADABLE:
                    unknown.append(name)
        return self.kind(**values)

    def knows(self, data: object) -> bool:
        if isinstance(data, list):
            return all(self.knows(each) for each in data)
        return not isinstance(data, dict) or all(
            name in self.names and (name not in self.nested or self.nested[name].knows(part))
            for name, part in data.items()
        )

    def merged(self, old: Any, new: Any) -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            unknown = {name: part for name, part in old.items() if name not in self.names}
            parts = {
                name: shape.merged(old.get(name), new[name])
                for name, shape in self.nested.items()
                if name in new
            }
            return {**unknown, **new, **parts}
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            return [self.merged(before, after) for before, after in zip(old, new, strict=True)]
        return new


class ChangingText(Generic[T]):
    """The JSON of a value that changes little by little, as text.

    Dataclasses within it that are the same objects as last time are not encoded again.
    """

    def __init__(self, form: Form[T]) -> None:
        self._form = form
        self._last: dict[int, tuple[object, str]] = {}

    def encode(self, value: T) -> str:
        """The JSON of `value`."""
        kept: dict[int, tuple[object, str]] = {}
        text = self._object(self._form.root, value, kept)
        # Also holds the objects, so that no other has one of these ids.
        self._last = kept
        return text

    def _object(self, shape: _Shape, value: object, kept: dict[int, tuple[object, str]]) -> str:
        known = self._last.get(id(value))
        text = known[1] if known is not None and known[0] is value else None
        if text is None:
            parts = [
                f'"{name}": {self._part(shape.nested[name], part, kept)}'
                for name, _, left_out in shape.encoders
                if name in shape.nested and (part := getattr(value, name)) != left_out
            ]
            rest = json.dumps(shape.encode(value, but=shape.nested))[1:-1]
            text = "{" + ", ".join([*parts, rest] if rest else parts) + "}"
        kept[id(value)] = (value, text)
        return text

    def _part(self, shape: _Shape, part: object, kept: dict[int, tuple[object, str]]) -> str:
        if part is None:
            return "null"
        if isinstance(part, tuple):
            return "[" + ", ".join(self._object(shape, each, kept) for each in part) + "]"
        return self._object(shape, part, kept)


def _nested(hint: Any) -> Any:
    """The dataclass that a field holds, or holds a list of."""
    for argument in get_args(hint):
        if argument not in (type(None), ...):
            return argument
    return hint


def _optional(encode: Encoder, decode: Decoder) -> Codec:
    return (
        lambda value: None if value is None else encode(value),
        lambda data, unknown: None if data is None else decode(data, unknown),
    )


def _tuple(encode: Encoder, decode: Decoder) -> Codec:
    def decode_all(data: Any, unknown: list[str]) -> tuple[Any, ...]:
        values = []
        for part in data:
            try:
                values.append(decode(part, unknown))
            except UNREADABLE:
                unknown.append("of a list")
        return tuple(values)

    return lambda values: [encode(value) for value in values], decode_all


def _checked(kind: type) -> Decoder:
    accepted = (int, float) if kind is float else kind

    def decode(data: Any, unknown: list[str]) -> Any:
        if not isinstance(data, accepted):
            raise TypeError(f"{data!r} is no {kind.__name__}")
        return data

    return decode


def _texts(data: Any, unknown: list[str]) -> dict[str, str]:
    if not all(type(text) is str for text in data.values()):
        raise TypeError("a value is no text")
    return dict(data)


def _same(value: Any) -> Any:
    return value


def _value_of(value: Enum) -> Any:
    return value.value


def _time_of(data: Any, unknown: list[str]) -> datetime:
    time = datetime.fromisoformat(data)
    if time.tzinfo is None:
        raise ValueError(f"{data} has no offset")
    return time


_PLAIN = (str, bool, int, float)
_SCALARS: Mapping[type, Codec] = {
    datetime: (lambda value: value.astimezone(UTC).isoformat(), _time_of),
    timedelta: (timedelta.total_seconds, lambda data, unknown: timedelta(seconds=data)),
    bytes: (
        lambda value: base64.b64encode(value).decode(),
        lambda data, unknown: base64.b64decode(data, validate=True),
    ),
}

"""The forms of values in TOML files that people write, as types of pydantic models.

Also what a file breaks, in words: a rule goes on from the key's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from inspect import isclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Model = TypeVar("Model", bound=BaseModel)
Names = TypeVar("Names", bound=StrEnum)
TomlKey = tuple[str | int, ...]


class Violations(Exception):
    """The document breaks rules: the key of each, and the rule in words."""

    def __init__(self, violations: Sequence[tuple[TomlKey, str]]) -> None:
        super().__init__(violations)
        self.violations = violations


class Table(BaseModel):
    """A table that takes the keys it names, in the forms it names, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def given(self) -> dict[str, Any]:
        """The values by key, less those that are None."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in values if value is not None}


def valid(model: type[Model], document: Mapping[str, Any]) -> Model:
    """The document as a model. Raises Violations."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Violations(
            [(found["loc"], _rule(found, model)) for found in error.errors(include_url=False)]
        ) from error


# Values ---------------------------------------------------------------------


def size(given: object) -> int:
    """A number of bytes, given as one or with a unit. Raises ValueError."""
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    text = given if isinstance(given, str) else ""
    # Not MB, which means a million to some and 1024 KiB to others.
    match = re.fullmatch(r"(\d{1,18})(?:([KMGTkmgt])(?:iB)?|B)?", text)
    if match is None:
        raise ValueError('is not a size such as "512MiB" or "2GiB", nor a number of bytes')
    return int(match[1]) * _SIZES[(match[2] or "").upper()]


def one_of(names: type[Names], meant: Mapping[str, str] | None = None) -> Callable[[object], Names]:
    """Makes the reader of a name. meant: what is proposed for a name, where it is no likely slip.

    The reader raises ValueError.
    """

    def read(given: object) -> Names:
        known = [name.value for name in names]
        if given in known:
            return names(given)
        text = str(given)
        close = [(meant or {})[text]] if text in (meant or {}) else get_close_matches(text, known)
        proposal = f"; is {close[0]!r} meant?" if close else ""
        raise ValueError(f"is not one of {', '.join(map(repr, known))}{proposal}")

    return read


def _duration(text: object) -> timedelta:
    match = re.fullmatch(
        r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", text if isinstance(text, str) else ""
    )
    if match is None:
        raise ValueError('is not a duration such as "10s", "500ms", "2m", "1h" or "1d"')
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError as error:
        raise ValueError("is too long a duration") from error


Duration = Annotated[timedelta, BeforeValidator(_duration)]
# TOML has arrays, which strict models do not take for tuples.
Words = Annotated[tuple[str, ...], Field(strict=False)]


# What is wrong --------------------------------------------------------------


def _rule(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    """What pydantic found, as the end of a sentence that begins with the key."""
    match found["type"]:
        case "extra_forbidden":
            *table, name = found["loc"]
            close = get_close_matches(str(name), _names(model, table), n=1)
            return f"is unknown; is {close[0]!r} meant?" if close else "is unknown"
        case "missing":
            return "is missing"
        case "value_error":
            return str(found["ctx"]["error"])
        case "model_type" | "dict_type":
            return "is not a table"
        case "tuple_type":
            return "is not an array"
        case _:
            return str(found["msg"]).removeprefix("Input ")


def _names(model: type[BaseModel], table: Sequence[str | int]) -> Sequence[str]:
    """The keys that the table at this path of a model's document takes."""
    kind: object = model
    for part in table:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif isclass(kind) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = None if field is None else _table(field.annotation)
    return tuple(kind.model_fields) if isclass(kind) and issubclass(kind, BaseModel) else ()


def _table(annotation: object) -> object:
    """The model or the dict in `X | None`."""
    return next(
        (kind for kind in (annotation, *get_args(annotation)) if _is_table(kind)), annotation
    )


def _is_table(kind: object) -> bool:
    return get_origin(kind) is dict or (isclass(kind) and issubclass(kind, BaseModel))

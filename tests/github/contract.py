"""Requests and answers held against GitHub's own description, of which `openapi.json` is a part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tests.github.subset import SUBSET

_TYPE = "application/json"
_ROOT = "urn:github"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One of the description. parameters: of its path, by name."""

    method: str
    template: str
    parameters: Mapping[str, str]


@cache
def description() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(SUBSET.read_text())
    return read


def example(name: str) -> Any:
    """A fresh copy of one of GitHub's own examples."""
    return json.loads(json.dumps(description()["components"]["examples"][name]["value"]))


def operation(method: str, path: str) -> Operation | None:
    """The operation of a path, None if the description has none."""
    for template, pattern in _patterns():
        found = pattern.fullmatch(path)
        if found is not None and method.lower() in description()["paths"][template]:
            given = {name: unquote(value) for name, value in found.groupdict().items()}
            return Operation(method=method.lower(), template=template, parameters=given)
    return None


def wrong_in_request(
    asked: Operation, query: Mapping[str, str], headers: Mapping[str, str], body: Any
) -> list[str]:
    """What the description does not allow, also where GitHub would take no notice of it."""
    told = _of(asked)
    known = {each["name"]: each for each in map(_resolved, told.get("parameters", []))}
    wrong = [f"unknown in the query: {name}" for name in query.keys() - known.keys()]
    given = {**asked.parameters, **query}
    for name, parameter in known.items():
        if name in given:
            schema = parameter["schema"]
            text = given[name]
            value = int(text) if schema.get("type") == "integer" and text.isdigit() else text
            wrong += [
                f"{name}: {error.message}" for error in OAS30Validator(schema).iter_errors(value)
            ]
        elif parameter.get("required"):
            wrong.append(f"missing: {name}")
    content = told.get("requestBody", {}).get("content", {})
    if body is None:
        return wrong + (
            ["missing: the body"] if told.get("requestBody", {}).get("required") else []
        )
    if not content:
        return [*wrong, "a body where none is taken"]
    wrong += [
        f"unknown in the body: {name}" for name in body.keys() - _names(content[_TYPE]["schema"])
    ]
    if headers.get("content-type") != _TYPE:
        wrong.append("the body is not said to be JSON")
    place = f"{_place(asked)}/requestBody/content/{_escaped(_TYPE)}/schema"
    return wrong + _errors(place, body)


def wrong_in_answer(asked: Operation, status: int, body: Any) -> list[str]:
    """What the description does not promise."""
    answer = _of(asked)["responses"].get(str(status))
    if answer is None:
        return [f"the status {status} is not described"]
    place = f"{_place(asked)}/responses/{status}"
    if "$ref" in answer:
        place = answer["$ref"].removeprefix("#")
    if _TYPE not in _resolved(answer).get("content", {}):
        return [] if body is None else ["a body where none is described"]
    return _errors(f"{place}/content/{_escaped(_TYPE)}/schema", body)


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [
        (template, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)))
        for template in description()["paths"]
    ]


def _of(asked: Operation) -> dict[str, Any]:
    found: dict[str, Any] = description()["paths"][asked.template][asked.method]
    return found


def _place(asked: Operation) -> str:
    return f"/paths/{_escaped(asked.template)}/{asked.method}"


def _escaped(part: str) -> str:
    # As a pointer, and that in an address.
    return part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


def _resolved(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = description()
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found  # type: ignore[no-any-return]  # of JSON


def _names(schema: dict[str, Any]) -> set[str]:
    resolved = _resolved(schema)
    return set(resolved.get("properties", {})).union(
        *(_names(each) for kind in ("oneOf", "anyOf") for each in resolved.get(kind, []))
    )


@cache
def _registry() -> Registry[Any]:
    resource = Resource.from_contents(description(), default_specification=DRAFT4)
    registry: Registry[Any] = Registry().with_resource(_ROOT, resource)
    return registry


@cache
def _validator(place: str) -> Any:
    return OAS30Validator({"$ref": f"{_ROOT}#{place}"}, registry=_registry())


def _errors(place: str, body: Any) -> list[str]:
    return [
        f"{'.'.join(map(str, error.absolute_path)) or 'the body'}: {error.message[:200]}"
        for error in _validator(place).iter_errors(body)
    ]

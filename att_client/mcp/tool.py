"""What a tool is: its name, its flat schemas, its effect, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

import mcp_types as types
from pydantic import BaseModel, ConfigDict

from att_client.mcp.call import Call
from att_client.mcp.names import shown
from att_client.mcp.options import Options


class Arguments(BaseModel):
    """The arguments of a tool. What is not one of them is refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True
    )


class OfProject(Arguments):
    """Arguments that name a project."""

    project: str


class Output(BaseModel):
    """What a tool returns. A field that is None is left out."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class Effect(Enum):
    """What a call does to the world, as the four hints that clients decide by."""

    READS = types.ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    STARTS = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    """Begins something that was not there; a repetition changes nothing."""
    ENDS = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )
    """Ends something that runs; a repetition changes nothing."""
    REPLACES = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
    )
    """Ends something that runs, anew at each call."""
    RELEASES = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
    )
    """Replaces what runs, and writes to remotes and forges."""
    ASKS = types.ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True
    )
    """Asks a person, whose answer may set something off."""


A = TypeVar("A", bound=Arguments)

# A client that finds tools by searching for them has these at once.
_ALWAYS_LOADED = {"att.project.status", "att.runtime.logs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[A]):
    """A tool of the bridge.

    name: canonical, `att.<toolset>.<verb>`.
    run: does it; raises AttError and `Refused`.
    """

    name: str
    description: str
    arguments: type[A]
    output: type[Output]
    effect: Effect
    run: Callable[[Call, A], Coroutine[Any, Any, Output | types.InputRequiredResult]]

    @property
    def toolset(self) -> str:
        """The second word of its name."""
        return self.name.split(".")[1]

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.effect is Effect.READS

    def listed(self, options: Options) -> types.Tool:
        """The tool as `tools/list` shows it."""
        always = {"anthropic/alwaysLoad": True} if self.name in _ALWAYS_LOADED else {}
        return types.Tool(
            name=shown(self.name, options.names),
            description=self.description,
            input_schema=input_schema(self.arguments, options),
            output_schema=flat_schema(self.output),
            annotations=self.effect.value,
            _meta={"att/canonicalName": self.name, **always},
        )


def input_schema(arguments: type[Arguments], options: Options) -> dict[str, Any]:
    """The schema of the arguments; `project` is not required where there is only one."""
    schema = flat_schema(arguments)
    if options.only_project and "project" in schema.get("required", ()):
        left = [name for name in schema["required"] if name != "project"]
        schema = {key: value for key, value in schema.items() if key != "required"}
        if left:
            schema["required"] = left
    return schema


def flat_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model in few words: no titles, no null for what may be left out.

    A model inside another stands where it is used.
    """
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    schema.pop("description", None)  # of the class
    flat = _flat(schema, definitions)
    assert isinstance(flat, dict)
    return flat


def _flat(node: object, definitions: dict[str, Any]) -> object:
    if isinstance(node, list):
        return [_flat(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = dict(definitions[node["$ref"].rpartition("/")[2]])
        target.pop("description", None)
        return _flat(target | {k: v for k, v in node.items() if k != "$ref"}, definitions)
    if "anyOf" in node:
        kinds = [kind for kind in node["anyOf"] if kind != {"type": "null"}]
        if len(kinds) == 1:
            rest = {k: v for k, v in node.items() if k != "anyOf"}
            return _flat(kinds[0] | rest, definitions)
    return {
        key: {name: _flat(part, definitions) for name, part in value.items()}
        if key == "properties"
        else _flat(value, definitions)
        for key, value in node.items()
        if key != "title" and not (key == "default" and value in (None, "", []))
    }

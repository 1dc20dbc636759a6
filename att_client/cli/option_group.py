"""Options that several commands share, written down once as a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_type_hints

Command = Callable[..., None]


def takes(group: type[Any]) -> Callable[[Command], Command]:
    """A decorator that gives a command the options of `group`, for its parameter `options`.

    group: a dataclass; each field is an option: its type `Annotated` with what
        typer says of it, its default the option's.
    """

    def decorate(function: Command) -> Command:
        # typer reads the options of a command from its signature, so that is where
        # they are put, in place of the parameter.
        hints = get_type_hints(function, include_extras=True)
        option_hints = get_type_hints(group, include_extras=True)
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=option_hints[field.name],
            )
            for field in fields(group)
        ]
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name != "options"
        ]

        @functools.wraps(function)
        def command(**arguments: Any) -> None:
            given = {option.name: arguments.pop(option.name) for option in options}
            function(options=group(**given), **arguments)

        command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]  # what inspect.signature looks at first
        return command

    return decorate

"""The two forms of a tool's name.

Canonical names have dots, `att.runtime.logs`; some clients and model providers take
only `att_runtime_logs`. One form is listed, both are understood in calls.
"""

from __future__ import annotations

from enum import StrEnum


class OptionInvalid(ValueError):
    """An option of the bridge is wrong; the text says which, and what to give instead."""


class NameForm(StrEnum):
    """Which form is listed."""

    DOTTED = "dotted"
    UNDERSCORE = "underscore"

    @classmethod
    def parse(cls, text: str) -> NameForm:
        """The form of that name. Raises OptionInvalid."""
        try:
            return cls(text)
        except ValueError as error:
            raise OptionInvalid(
                f"{text!r} is no form of names. Give dotted or underscore."
            ) from error


def underscored(name: str) -> str:
    """The form without dots. No canonical name holds an underscore, so it can be undone."""
    return name.replace(".", "_")


def shown(name: str, form: NameForm) -> str:
    """The canonical `name` as it is listed."""
    return name if form is NameForm.DOTTED else underscored(name)

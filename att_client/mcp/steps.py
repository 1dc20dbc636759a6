"""What to do after a failure: the second half of every error's text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from att_client.mcp.names import NameForm, shown


@dataclass(frozen=True, slots=True)
class Step:
    """The next step: a call, advice, or both.

    tool: its canonical name; empty: advice only.
    arguments: by name; `{project_id}` and its like stand for what the error's metadata
        says, and an argument that it does not say is left out.
    advice: a sentence, with the same placeholders.
    """

    tool: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    advice: str = ""

    def text(
        self, *, form: NameForm, offered: Collection[str], facts: Mapping[str, str] | None = None
    ) -> str:
        """The step as a sentence that begins with `Next:`.

        offered: canonical names of the tools that the bridge has; another one is named
            as something for a person.
        """
        known = _Facts(facts or {})
        parts = []
        if self.tool in offered:
            given = [
                f"{name}={value.format_map(known)}"
                for name, value in self.arguments.items()
                if _is_known(value, known)
            ]
            parts.append(f"call {shown(self.tool, form)}{_with(given)}.")
        elif self.tool and not self.advice:
            parts.append(f"tell the person: it takes {self.tool}, which is not offered here.")
        if self.advice:
            parts.append(self.advice.format_map(known))
        return f"Next: {' '.join(parts)}"


class Refused(Exception):
    """The bridge itself does not do what a call asks for."""

    def __init__(self, what: str, step: Step) -> None:
        """what: what happened, a sentence."""
        super().__init__(what)
        self.what = what
        self.step = step


class _Facts(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"<{name}>"


def _with(given: Collection[str]) -> str:
    return f" with {', '.join(given)}" if given else ""


def _is_known(value: str, facts: Mapping[str, str]) -> bool:
    return not value.startswith("{") or value.strip("{}") in facts

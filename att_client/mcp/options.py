"""What a bridge offers, and to whom."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from att_client.mcp.names import NameForm, OptionInvalid

__all__ = ["TOOLSETS", "NameForm", "OptionInvalid", "Options"]

TOOLSETS = ("project", "runtime", "code", "test", "bootstrap", "release", "events")
"""The second word of each tool's canonical name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a bridge is narrowed. Raises OptionInvalid.

    It narrows what is offered, for focus and fewer tokens. What a caller may do is for
    the server to say, by the role of its token.
    """

    toolsets: Collection[str] = TOOLSETS
    """Only tools of these, and all resources."""

    read_only: bool = False
    """Only tools that change nothing."""

    projects: Collection[str] = ()
    """Only these projects, empty for all. With one, tools need no `project`."""

    names: NameForm = NameForm.DOTTED
    """The form in which tools are listed; both are understood."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.toolsets) - set(TOOLSETS))
        if unknown or not self.toolsets:
            what = f"There is no toolset {unknown[0]!r}" if unknown else "No toolset is named"
            raise OptionInvalid(f"{what}. Give some of: {', '.join(TOOLSETS)}.")

    @property
    def only_project(self) -> str:
        """The project that tools take if none is named; empty: they have to be told."""
        return next(iter(self.projects)) if len(self.projects) == 1 else ""

    def serves(self, project_id: str) -> bool:
        """Whether the bridge may speak of the project."""
        return not self.projects or project_id in self.projects

"""Which tools a bridge has, found by either form of their names."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from att_client.mcp.names import shown, underscored
from att_client.mcp.options import Options
from att_client.mcp.tool import Tool
from att_client.mcp.tools import bootstrap, code, events, logs, project, release, runtime, test

TOOLS: tuple[Tool[Any], ...] = (
    *(*project.TOOLS, *runtime.TOOLS, *logs.TOOLS),
    *(*code.TOOLS, *test.TOOLS),
    *(*bootstrap.TOOLS, *release.TOOLS, *events.TOOLS),
)
"""All tools, in the order in which they are listed."""


class Catalog:
    """The tools that the options leave."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tools: Mapping[str, Tool[Any]] = {
            tool.name: tool
            for tool in TOOLS
            if tool.toolset in options.toolsets and (tool.reads or not options.read_only)
        }
        self._by_underscored = {underscored(name): tool for name, tool in self.tools.items()}

    def find(self, name: str) -> Tool[Any] | None:
        """The tool of that name, in either form."""
        return self.tools.get(name) or self._by_underscored.get(name)

    def nearest(self, name: str) -> str:
        """The canonical name that `name` may have meant; empty for none."""
        close = get_close_matches(underscored(name)[:100], self._by_underscored, n=1)
        return self._by_underscored[close[0]].name if close else ""

    def listed(self, name: str) -> str:
        """A canonical name in the form that is listed."""
        return shown(name, self.options.names)

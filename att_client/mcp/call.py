"""One call of a tool: who calls, on which connection, and what it may speak of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import att_client
from att_client.mcp.asking import Asking
from att_client.mcp.options import Options
from att_client.mcp.steps import Refused, Step

LONGEST_WAIT = 45
"""Seconds that a call may wait: clients give a call up after 60."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a tool works with.

    att: the connection, as the caller.
    offered: canonical names of the bridge's tools.
    progress: tells a client that asked for it what is being waited for.
    asking: how the person at the client is asked.
    """

    att: att_client.Client
    options: Options
    offered: Collection[str]
    progress: Callable[[str], Awaitable[None]]
    asking: Asking

    def told(self, step: Step) -> str:
        """The step in words, in the form of names that the caller knows."""
        return step.text(form=self.options.names, offered=self.offered)

    def check_project(self, project_id: str) -> None:
        """Raises Refused for a project that this bridge does not serve."""
        if not self.options.serves(project_id):
            raise Refused(
                f"This bridge serves {', '.join(self.options.projects)}, not {project_id!r}.",
                Step("att.project.list"),
            )

    async def cycle(self, cycle_id: str) -> att_client.Cycle:
        """The cycle, if it is one of a project that this bridge serves."""
        cycle = await self.att.bootstrap.get(cycle_id)
        self.check_project(cycle.project_id)
        return cycle

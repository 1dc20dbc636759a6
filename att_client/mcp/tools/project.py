"""`att.project.*`: which projects there are, and how one stands."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

import att_client
from att_client.mcp.call import Call
from att_client.mcp.text import cut, one_line, word
from att_client.mcp.tool import Arguments, Effect, OfProject, Output, Tool

_MOST = 200
"""Projects in one answer."""


class ProjectLine(Output):
    """A project in a list."""

    project: str
    state: str
    mode: str
    release_id: str | None = None


class ProjectList(Output):
    """The projects."""

    projects: list[ProjectLine]
    has_more: bool = False


class ProjectStatus(Output):
    """A project: settings, app and newest cycle."""

    project: str
    path: str
    command: list[str]
    mode: str
    mode_reason: str | None = None
    settings_error: str | None = None
    release_id: str | None = None
    state: str
    reason: str | None = None
    healthy: bool | None = None
    log_end_cursor: int
    newest_cycle: Annotated[str | None, Field(description="id and how it stands")] = None


class NoArguments(Arguments):
    """Arguments of a tool that takes none."""


async def project_list(call: Call) -> ProjectList:
    """All projects that the bridge serves, with the states of their apps."""
    states = {r.project_id: word(r.state) async for r in call.att.runtimes.list(page_size=1000)}
    found: list[ProjectLine] = []
    async for project in call.att.projects.list(page_size=1000):
        if not call.options.serves(project.project_id):
            continue
        if len(found) == _MOST:
            return ProjectList(projects=found, has_more=True)
        found.append(
            ProjectLine(
                project=project.project_id,
                state=states.get(project.project_id, "stopped"),
                mode=word(project.mode),
                release_id=project.release_id or None,
            )
        )
    return ProjectList(projects=found)


async def _list(call: Call, given: NoArguments) -> ProjectList:
    return await project_list(call)


async def _status(call: Call, given: OfProject) -> ProjectStatus:
    project, runtime, newest = await asyncio.gather(
        call.att.projects.get(given.project),
        call.att.runtimes.get(given.project),
        _newest_cycle(call.att, given.project),
    )
    settings = project.effective_runtime or project.runtime
    return ProjectStatus(
        project=project.project_id,
        path=project.path,
        command=[cut(one_line(part), 500) for part in settings.command] if settings else [],
        mode=word(project.mode),
        mode_reason=one_line(project.mode_reason) or None,
        settings_error=cut(one_line(project.settings_error), 1000) or None,
        release_id=project.release_id or None,
        state=word(runtime.state),
        reason=runtime.reason or None,
        healthy=runtime.healthy,
        log_end_cursor=runtime.log_end_cursor,
        newest_cycle=newest,
    )


async def _newest_cycle(att: att_client.Client, project: str) -> str | None:
    async for cycle in att.bootstrap.list(project, page_size=1):
        how = word(cycle.outcome if cycle.outcome else cycle.state)
        because = f": {cycle.outcome_reason}" if cycle.outcome_reason else ""
        return f"{cycle.cycle_id} {how}{because}"
    return None


TOOLS = (
    Tool(
        name="att.project.list",
        description="The projects: one app each, with the state it is in.",
        arguments=NoArguments,
        output=ProjectList,
        effect=Effect.READS,
        run=_list,
    ),
    Tool(
        name="att.project.status",
        description="How a project stands: app, settings, release, newest cycle. Begin here.",
        arguments=OfProject,
        output=ProjectStatus,
        effect=Effect.READS,
        run=_status,
    ),
)

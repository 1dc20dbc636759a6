"""`att.events.list`: the audit log."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

import att_client
from att_client.mcp.call import Call
from att_client.mcp.steps import Refused, Step
from att_client.mcp.text import cut, one_line, stamp
from att_client.mcp.tool import Arguments, Effect, Output, Tool


class Events(Arguments):
    """Arguments of a page."""

    project: str | None = None
    cycle: str | None = None
    types: Annotated[
        list[str] | None,
        Field(max_length=100, description="such as runtime.started; `cycle.` is all of those"),
    ] = None
    cursor: Annotated[int | None, Field(ge=0, description="default: the last `limit`")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class EventPage(Output):
    """A page of the audit log."""

    events: Annotated[list[str], Field(description="number, time, type, project, ...")]
    cursor: int
    has_more: bool


async def _list(call: Call, given: Events) -> EventPage:
    project = given.project or call.options.only_project
    if given.cycle:
        project = (await call.cycle(given.cycle)).project_id
    if call.options.projects and not project:
        raise Refused(
            "This bridge does not serve all projects.",
            Step(advice=f"call again with project, one of {', '.join(call.options.projects)}."),
        )
    page = await call.att.events.list(
        project_id=project,
        cycle_id=given.cycle or "",
        event_types=given.types or (),
        cursor=given.cursor or 0,
        page_size=given.limit,
        tail=given.cursor is None,
    )
    return EventPage(
        events=[_line(event) for event in page.events],
        cursor=page.cursor,
        has_more=page.has_more,
    )


def _line(event: att_client.Event) -> str:
    parts = [
        f"{event.sequence} {stamp(event.time)} {event.event_type}",
        event.project_id,
        event.cycle_id,
        event.reason,
        f"by {event.principal}" if event.principal else "",
        event.message,
    ]
    return cut(one_line(" ".join(part for part in parts if part)), 1_000)


TOOLS = (
    Tool(
        name="att.events.list",
        description="Audit log: what was asked for, by whom, and what came of it.",
        arguments=Events,
        output=EventPage,
        effect=Effect.READS,
        run=_list,
    ),
)

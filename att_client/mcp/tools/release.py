"""`att.release.*`: what was released, and going back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from att_client.mcp.call import Call
from att_client.mcp.cycle_view import CycleStarted, cycle_started
from att_client.mcp.text import one_line, stamp, word
from att_client.mcp.tool import Effect, OfProject, Output, Tool


class ReleaseList(OfProject):
    """Arguments of a list."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20


class Rollback(OfProject):
    """Arguments of a rollback."""

    release_id: Annotated[str, Field(description="default: the last good one before")] = ""
    reason: Annotated[str, Field(max_length=1000)] = ""


class ReleaseLine(Output):
    """A release in a list."""

    release_id: str
    state: str
    current: bool | None = None
    reason: str | None = None
    deployed: str | None = None
    cycle: str | None = None


class Releases(Output):
    """The releases, the newest first."""

    releases: list[ReleaseLine]
    has_more: bool = False


async def releases(call: Call, project: str, limit: int) -> Releases:
    """The newest releases of the project."""
    found: list[ReleaseLine] = []
    async for release in call.att.bootstrap.releases(project, page_size=limit + 1):
        if len(found) == limit:
            return Releases(releases=found, has_more=True)
        found.append(
            ReleaseLine(
                release_id=release.release_id,
                state=word(release.state),
                current=release.current or None,
                reason=one_line(release.reason) or None,
                deployed=stamp(release.deploy_time),
                cycle=release.cycle_id or None,
            )
        )
    return Releases(releases=found)


async def _list(call: Call, given: ReleaseList) -> Releases:
    return await releases(call, given.project, given.limit)


async def _rollback(call: Call, given: Rollback) -> CycleStarted:
    handle = await call.att.bootstrap.rollback(
        given.project, target_release_id=given.release_id, reason=given.reason
    )
    return cycle_started(call, handle.started)


TOOLS = (
    Tool(
        name="att.release.list",
        description="Releases of a project, newest first: state good or bad, and why.",
        arguments=ReleaseList,
        output=Releases,
        effect=Effect.READS,
        run=_list,
    ),
    Tool(
        name="att.release.rollback",
        description="Return to an earlier release, as a cycle, if the policy allows it.",
        arguments=Rollback,
        output=CycleStarted,
        effect=Effect.RELEASES,
        run=_rollback,
    ),
)

"""`att.runtime.*` but for the log: what the app does, and starting and ending it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

import att_client
from att_client.mcp.call import LONGEST_WAIT, Call
from att_client.mcp.steps import Refused, Step
from att_client.mcp.text import cut, one_line, stamp, word
from att_client.mcp.tool import Effect, OfProject, Output, Tool

_MARGIN = 5
"""Seconds by which the bridge waits longer than it lets the server wait."""


class RuntimeStatus(Output):
    """An app as it is now."""

    project: str
    state: str
    desired_state: str
    reason: str | None = None
    healthy: bool | None = None
    health: str | None = None
    run_id: str | None = None
    pid: int | None = None
    release_id: str | None = None
    started: str | None = None
    restarts: int | None = None
    next_restart: str | None = None
    last_exit: str | None = None
    memory_mib: int | None = None
    cpu_percent: float | None = None
    log_end_cursor: int


class Health(Output):
    """The outcome of one check."""

    project: str
    healthy: bool
    probe: str
    reason: str
    http_status: int | None = None
    exit_code: int | None = None
    seconds: float | None = None


class Start(OfProject):
    """Arguments of a start."""

    wait: Annotated[
        Literal["ready", "started"],
        Field(description="ready: until its readiness probe holds; started: until it runs"),
    ] = "ready"
    timeout_seconds: Annotated[int, Field(ge=1, le=LONGEST_WAIT - _MARGIN)] = 30


class Stop(OfProject):
    """Arguments of a stop."""

    grace_seconds: Annotated[
        int | None,
        Field(ge=0, le=3600, description="from SIGTERM to SIGKILL; default: the project's"),
    ] = None


class Restart(Start):
    """Arguments of a restart."""

    grace_seconds: Annotated[int | None, Field(ge=0, le=3600)] = None


def runtime_status(runtime: att_client.Runtime) -> RuntimeStatus:
    """The app as tools and resources show it."""
    usage = runtime.usage
    return RuntimeStatus(
        project=runtime.project_id,
        state=word(runtime.state),
        desired_state=word(runtime.desired_state),
        reason=runtime.reason or None,
        healthy=runtime.healthy,
        health=one_line(runtime.health_reason) or None,
        run_id=runtime.run_id or None,
        pid=runtime.pid or None,
        release_id=runtime.release_id or None,
        started=stamp(runtime.start_time),
        restarts=runtime.restarts or None,
        next_restart=stamp(runtime.next_restart_time),
        last_exit=_exit_text(runtime.exit) if runtime.exit is not None else None,
        memory_mib=None if usage is None else usage.resident_memory_bytes >> 20,
        cpu_percent=None if usage is None else round(usage.cpu_percent, 1),
        log_end_cursor=runtime.log_end_cursor,
    )


def _exit_text(ended: att_client.RuntimeExit) -> str:
    if ended.start_error is not None:
        text = f"not started: {cut(one_line(ended.start_error), 500)}"
    elif ended.signal is not None:
        text = f"signal {ended.signal}"
    elif ended.supervisor_lost:
        text = "unknown: its supervisor was lost"
    else:
        text = f"exit code {ended.exit_code or 0}"
    return f"{text} ({ended.reason})" if ended.reason else text


async def _status(call: Call, given: OfProject) -> RuntimeStatus:
    return runtime_status(await call.att.runtimes.get(given.project))


async def _start(call: Call, given: Start) -> RuntimeStatus:
    await call.progress(f"starting {given.project}")
    return await _bounded(
        call.att.runtimes.start(
            given.project, wait=given.wait, timeout=timedelta(seconds=given.timeout_seconds)
        ),
        given.project,
        "start",
    )


async def _stop(call: Call, given: Stop) -> RuntimeStatus:
    await call.progress(f"stopping {given.project}")
    grace = None if given.grace_seconds is None else timedelta(seconds=given.grace_seconds)
    return await _bounded(call.att.runtimes.stop(given.project, grace=grace), given.project, "stop")


async def _restart(call: Call, given: Restart) -> RuntimeStatus:
    await call.progress(f"restarting {given.project}")
    grace = None if given.grace_seconds is None else timedelta(seconds=given.grace_seconds)
    return await _bounded(
        call.att.runtimes.restart(
            given.project,
            wait=given.wait,
            timeout=timedelta(seconds=given.timeout_seconds),
            grace=grace,
        ),
        given.project,
        "restart",
    )


async def _bounded(
    operation: Awaitable[att_client.Runtime], project: str, what: str
) -> RuntimeStatus:
    """The app after the operation; raises Refused if that takes longer than a client waits."""
    try:
        async with asyncio.timeout(LONGEST_WAIT):
            return runtime_status(await operation)
    except TimeoutError as error:
        raise Refused(
            f"The {what} of {project} is not over after {LONGEST_WAIT} s, and goes on.",
            Step("att.runtime.status", {"project": project}),
        ) from error


async def _health(call: Call, given: OfProject) -> Health:
    check = await call.att.runtimes.probe(given.project, timeout=timedelta(seconds=LONGEST_WAIT))
    return Health(
        project=given.project,
        healthy=check.healthy,
        probe=check.health_probe,
        reason=check.health_reason,
        http_status=check.http_status,
        exit_code=check.exit_code,
        seconds=None if check.duration is None else round(check.duration.total_seconds(), 3),
    )


TOOLS = (
    Tool(
        name="att.runtime.status",
        description="State of a project's app: whether it runs, is healthy, how it last ended.",
        arguments=OfProject,
        output=RuntimeStatus,
        effect=Effect.READS,
        run=_status,
    ),
    Tool(
        name="att.runtime.start",
        description="Start the app. If it runs already it is returned as it is.",
        arguments=Start,
        output=RuntimeStatus,
        effect=Effect.STARTS,
        run=_start,
    ),
    Tool(
        name="att.runtime.stop",
        description="Stop the app with all its processes. It stays stopped.",
        arguments=Stop,
        output=RuntimeStatus,
        effect=Effect.ENDS,
        run=_stop,
    ),
    Tool(
        name="att.runtime.restart",
        description="Stop and start the app: two runs, one log.",
        arguments=Restart,
        output=RuntimeStatus,
        effect=Effect.REPLACES,
        run=_restart,
    ),
    Tool(
        name="att.runtime.health",
        description="Check the app once, now, by its readiness probe.",
        arguments=OfProject,
        output=Health,
        effect=Effect.READS,
        run=_health,
    ),
)

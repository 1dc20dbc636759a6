"""`att start`, `stop`, `restart` and `status`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

import att_client
from att_client.cli import status_table
from att_client.cli.exits import EXIT_CODES_HELP
from att_client.cli.output import Output, duration_text, local_time, to_plain
from att_client.cli.session import (
    Json,
    ProjectId,
    Target,
    complete_project,
    parse_duration,
    reported,
    run,
)


class WaitFor(StrEnum):
    """What a start waits for."""

    STARTED = "started"
    READY = "ready"


Wait = Annotated[WaitFor, typer.Option(help="Return when the app has started, or is ready.")]
Timeout = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Bound the wait, such as 30s (the default); the app runs on after it.",
        show_default=False,
    ),
]
Grace = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="The time between SIGTERM and SIGKILL, such as 10s; 0 kills at once. "
        "Default: the project's.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (start, stop, restart, status):
        app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Apps")(command)


def start(
    project_id: ProjectId,
    wait: Wait = WaitFor.STARTED,
    timeout: Timeout = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Start the project's app. It keeps running when `att` and the server end."""
    output = Output(as_json=as_json)
    with reported(output):
        bound = None if timeout is None else parse_duration(timeout)

    async def call(att: att_client.Client) -> None:
        with output.waiting(f"starting {project_id} …"):
            runtime = await att.runtimes.start(project_id, wait=wait.value, timeout=bound)
        _report(output, runtime)

    run(call, target=target, output=output)


def stop(
    project_id: ProjectId, grace: Grace = None, target: Target = None, as_json: Json = False
) -> None:
    """Stop the project's app and return when all its processes are gone."""
    output = Output(as_json=as_json)
    with reported(output):
        bound = None if grace is None else parse_duration(grace)

    async def call(att: att_client.Client) -> None:
        with output.waiting(f"stopping {project_id} …"):
            runtime = await att.runtimes.stop(project_id, grace=bound)
        _report(output, runtime)

    run(call, target=target, output=output)


def restart(
    project_id: ProjectId,
    wait: Wait = WaitFor.STARTED,
    timeout: Timeout = None,
    grace: Grace = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Stop and start the project's app: two runs, one log."""
    output = Output(as_json=as_json)
    with reported(output):
        bound = None if timeout is None else parse_duration(timeout)
        stop_bound = None if grace is None else parse_duration(grace)

    async def call(att: att_client.Client) -> None:
        with output.waiting(f"restarting {project_id} …"):
            runtime = await att.runtimes.restart(
                project_id, wait=wait.value, timeout=bound, grace=stop_bound
            )
        _report(output, runtime)

    run(call, target=target, output=output)


def status(
    project_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROJECT]",
            help="The project's id. Default: all projects.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Go on showing every change, as a live table.")
    ] = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Show the state of an app, or of all."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        if watch:
            await status_table.watch(att, [project_id] if project_id else [], output)
            return
        if project_id is not None:
            _show(output, await att.runtimes.get(project_id))
            return
        if as_json:
            async for runtime in att.runtimes.list():
                output.item(runtime)
            return
        runtimes = [runtime async for runtime in att.runtimes.list()]
        if not runtimes:
            output.note(
                "There are no projects. Create one with `att project create ID --path DIR`."
            )
            return
        output.table(
            ("PROJECT", "STATE", "PID", "UP", "RUN", "LAST END"),
            [
                (
                    r.project_id,
                    state_text(r),
                    str(r.pid or ""),
                    _uptime(r),
                    r.run_id,
                    exit_text(r.exit),
                )
                for r in runtimes
            ],
        )

    run(call, target=target, output=output)


def state_text(runtime: att_client.Runtime) -> str:
    """The state as one lower-case word."""
    return str(to_plain(runtime.state))


def exit_text(end: att_client.RuntimeExit | att_client.RunEnded | None) -> str:
    """How a run ended, for people; empty while it has not."""
    if end is None:
        return ""
    if end.start_error is not None:
        return f"could not start: {end.start_error}"
    reason = f" ({end.reason})" if end.reason else ""
    if end.signal is not None:
        return f"killed by signal {end.signal}{reason}"
    if end.supervisor_lost:
        return "its supervisor was lost"
    return f"exit code {end.exit_code}{reason}"


def _report(output: Output, runtime: att_client.Runtime) -> None:
    if output.as_json:
        output.item(runtime)
        return
    ended = has_ended(runtime)
    details = [exit_text(runtime.exit)] if ended and runtime.exit else []
    details += [f"pid {runtime.pid}"] if runtime.pid and not ended else []
    details += [f"run {runtime.run_id}"] if runtime.run_id else []
    details += [_next_start(runtime)] if runtime.next_restart_time else []
    suffix = f" ({', '.join(details)})" if details else ""
    output.say(f"{runtime.project_id} is {state_text(runtime)}{suffix}")


def _show(output: Output, runtime: att_client.Runtime) -> None:
    if output.as_json:
        output.item(runtime)
        return
    health = ""
    if runtime.healthy is not None:
        verdict = "healthy" if runtime.healthy else "not healthy"
        health = f"{verdict} ({runtime.health_reason})"
    output.facts(
        {
            "project": runtime.project_id,
            "state": state_text(runtime),
            "reason": runtime.reason,
            "meant to be": str(to_plain(runtime.desired_state)),
            "pid": str(runtime.pid or ""),
            "run": runtime.run_id,
            "command": shlex.join(runtime.command),
            "started": local_time(runtime.start_time),
            "up": _uptime(runtime),
            "health": health,
            "last end": exit_text(runtime.exit),
            "ended": local_time(runtime.exit.exit_time if runtime.exit else None),
            "restarts": str(runtime.restarts or ""),
            "next start": local_time(runtime.next_restart_time),
            "uses": _usage(runtime.usage),
            "release": runtime.release_id,
            "log end": str(runtime.log_end_cursor),
        }
    )


def _next_start(runtime: att_client.Runtime) -> str:
    return f"restart {runtime.restarts + 1} at {local_time(runtime.next_restart_time)}"


def _usage(usage: att_client.RuntimeUsage | None) -> str:
    if usage is None:
        return ""
    memory = status_table.memory_text(usage.resident_memory_bytes)
    processes = f"{usage.process_count} process{'es' if usage.process_count != 1 else ''}"
    return f"{usage.cpu_percent:.0f} % CPU, {memory}, {processes}, {usage.open_file_count} files"


def has_ended(runtime: att_client.Runtime) -> bool:
    """Whether nothing of the app runs any more."""
    return state_text(runtime) in ("stopped", "exited", "failed")


def _uptime(runtime: att_client.Runtime) -> str:
    if has_ended(runtime) or runtime.exit is not None or runtime.start_time is None:
        return ""
    return duration_text(datetime.now(UTC) - runtime.start_time)

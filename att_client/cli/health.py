"""`att health`: one check of an app, now."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, ExitCode, usage_error
from att_client.cli.output import Output, duration_text
from att_client.cli.session import Json, ProjectId, Target, parse_duration, reported, run


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Apps")(health)


def health(
    project_id: ProjectId,
    http: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Ask for this page instead.", show_default=False),
    ] = None,
    tcp: Annotated[
        str | None,
        typer.Option(metavar="[HOST:]PORT", help="Connect to this port.", show_default=False),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Run this in the project's directory.", show_default=False
        ),
    ] = None,
    grpc: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Ask grpc.health.v1 at host:port or unix:PATH.",
            show_default=False,
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Look for a line of the current run.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Bound the check, such as 5s. Default: 2s.", show_default=False
        ),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Check an app once, now; exits with 1 if it is not healthy.

    Without an option: by its readiness probe, else whether its process runs.
    """
    output = Output(as_json=as_json)
    with reported(output):
        kinds = {"http": http, "tcp": tcp, "command": command, "grpc": grpc, "log": log}
        probe = _probe({name: value for name, value in kinds.items() if value is not None})
        if timeout is not None:
            if probe is None:
                raise usage_error("--timeout is for a check that is given; say which.")
            probe.timeout = parse_duration(timeout)

    async def call(att: att_client.Client) -> None:
        check = await att.runtimes.probe(project_id, probe)
        if as_json:
            output.item(check)
        else:
            output.say(_text(project_id, check), style="green" if check.healthy else "red")
        if not check.healthy:
            raise typer.Exit(ExitCode.FAILED)

    run(call, target=target, output=output)


def _probe(kinds: Mapping[str, str]) -> att_client.Probe | None:
    if len(kinds) > 1:
        raise usage_error(f"{' and '.join(f'--{name}' for name in kinds)}: give one of them.")
    for name, value in kinds.items():
        match name:
            case "http":
                return att_client.Probe(http=att_client.HttpProbe(url=value))
            case "tcp":
                host, _, port = value.rpartition(":")
                if not port.isdecimal():
                    raise usage_error(f"{value!r} is no port. Write 8000 or 127.0.0.1:8000.")
                return att_client.Probe(
                    tcp=att_client.TcpProbe(host=host.strip("[]"), port=int(port))
                )
            case "command":
                words = shlex.split(value)
                return att_client.Probe(command=att_client.CommandProbe(command=words))
            case "grpc":
                return att_client.Probe(grpc=att_client.GrpcProbe(target=value))
            case _:
                return att_client.Probe(log=att_client.LogProbe(pattern=value))
    return None


def _text(project_id: str, check: att_client.HealthCheck) -> str:
    verdict = "healthy" if check.healthy else "not healthy"
    details = [check.health_reason]
    details += [f"status {check.http_status}"] if check.http_status is not None else []
    details += [f"exit code {check.exit_code}"] if check.exit_code is not None else []
    details += [duration_text(check.duration)] if check.duration else []
    return f"{project_id} is {verdict} ({', '.join(details)})"

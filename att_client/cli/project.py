"""`att project`: create, list, show, update, delete."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, usage_error
from att_client.cli.output import Output, duration_text, local_time
from att_client.cli.session import Json, ProjectId, Target, parse_duration, reported, run

commands = typer.Typer(
    help="Create, list, show, update and delete projects.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
)

NewProjectId = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT",
        help="The new project's id: lower-case letters, digits and dashes, 2 to 63.",
        show_default=False,
    ),
]
Command = Annotated[
    str | None,
    typer.Option(
        metavar='"WORD …"',
        help="How to start the app: words with shell quoting, run without a shell. "
        "Wins over att.toml.",
        show_default=False,
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Add to the app's environment; can be repeated.",
        show_default=False,
    ),
]
ReadyHttp = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The app is ready when a GET of this URL is answered with 200 to 399.",
        show_default=False,
    ),
]
StopGrace = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="The time between SIGTERM and SIGKILL at a stop, such as 10s.",
        show_default=False,
    ),
]


@commands.command("create", epilog=EXIT_CODES_HELP)
def create(
    project_id: NewProjectId,
    path: Annotated[Path, typer.Option(help="The app's directory.")] = Path(),
    command: Command = None,
    env: Env = None,
    ready_http: ReadyHttp = None,
    stop_grace: StopGrace = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Register an app. The same project again is no error, another one is."""
    output = Output(as_json=as_json)
    directory = os.path.abspath(path)
    with reported(output):
        settings = settings_over(
            att_client.RuntimeSettings(), command, env or [], ready_http, stop_grace
        )

    async def call(att: att_client.Client) -> None:
        project = await att.projects.create(project_id, path=directory, runtime=settings)
        _show(output, project)
        if not as_json:
            output.note(f"Start it with `att start {project_id}`.")

    run(call, target=target, output=output)


@commands.command("list", epilog=EXIT_CODES_HELP)
def list_projects(target: Target = None, as_json: Json = False) -> None:
    """List all projects."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        if as_json:
            async for project in att.projects.list():
                output.item(project)
            return
        projects = [project async for project in att.projects.list()]
        if not projects:
            output.note(
                "There are no projects. Create one with `att project create ID --path DIR`."
            )
            return
        output.table(
            ("PROJECT", "PATH", "COMMAND", "CREATED"),
            [(p.project_id, p.path, command_text(p), local_time(p.create_time)) for p in projects],
        )

    run(call, target=target, output=output)


@commands.command("show", epilog=EXIT_CODES_HELP)
def show(project_id: ProjectId, target: Target = None, as_json: Json = False) -> None:
    """Show a project and the settings a start would use now."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        _show(output, await att.projects.get(project_id))

    run(call, target=target, output=output)


@commands.command("update", epilog=EXIT_CODES_HELP)
def update(
    project_id: ProjectId,
    path: Annotated[
        Path | None, typer.Option(help="The app's new directory.", show_default=False)
    ] = None,
    command: Command = None,
    env: Env = None,
    ready_http: ReadyHttp = None,
    stop_grace: StopGrace = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Change what is given and keep the rest; a running app takes it at its next start."""
    output = Output(as_json=as_json)
    directory = None if path is None else os.path.abspath(path)
    with reported(output):
        if path is None and not env and {command, ready_http, stop_grace} == {None}:
            raise usage_error("Nothing to change. Give --path, --command, --env or another option.")

    async def call(att: att_client.Client) -> None:
        now = await att.projects.get(project_id)
        settings = settings_over(
            now.runtime or att_client.RuntimeSettings(), command, env or [], ready_http, stop_grace
        )
        _show(
            output,
            await att.projects.update(
                project_id,
                path=directory,
                runtime=settings,
            ),
        )

    run(call, target=target, output=output)


@commands.command("delete", epilog=EXIT_CODES_HELP)
def delete(
    project_id: ProjectId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Delete a project with its log; the app's own directory is not touched."""
    output = Output(as_json=as_json)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(f"Delete project {project_id} and its whole log?", abort=True, err=True)

    async def call(att: att_client.Client) -> None:
        await att.projects.delete(project_id)
        if as_json:
            output.item({"project_id": project_id, "deleted": True})
        else:
            output.say(f"{project_id} is deleted.")

    run(call, target=target, output=output)


def settings_over(
    settings: att_client.RuntimeSettings,
    command: str | None,
    env: Sequence[str],
    ready_http: str | None,
    stop_grace: str | None,
) -> att_client.RuntimeSettings:
    """`settings` with what the options give over them; raises CommandError."""
    words = settings.command
    if command is not None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise usage_error(f"--command {command!r} has an open quote: {error}.") from error
        if not words:
            raise usage_error("--command is empty. Give the words of a command line.")
    variables = dict(settings.env)
    for item in env:
        name, equals, value = item.partition("=")
        if not name or not equals:
            raise usage_error(f"--env {item!r} is not NAME=VALUE.")
        variables[name] = value
    readiness = settings.readiness
    if ready_http is not None:
        readiness = att_client.Probe(http=att_client.HttpProbe(url=ready_http))
    grace = settings.stop_grace if stop_grace is None else parse_duration(stop_grace)
    return replace(settings, command=words, env=variables, readiness=readiness, stop_grace=grace)


def command_text(project: att_client.Project) -> str:
    """The command that a start would use, as a shell would take it."""
    settings = project.effective_runtime or project.runtime
    return shlex.join(settings.command) if settings else ""


def _show(output: Output, project: att_client.Project) -> None:
    if output.as_json:
        output.item(project)
        return
    settings = project.effective_runtime or project.runtime or att_client.RuntimeSettings()
    probe = settings.readiness
    grace = settings.stop_grace
    output.facts(
        {
            "project": project.project_id,
            "path": project.path,
            "command": shlex.join(settings.command),
            "env": " ".join(f"{k}={shlex.quote(v)}" for k, v in sorted(settings.env.items())),
            "ready when": f"GET {probe.http.url}" if probe and probe.http else "",
            "stop grace": "" if grace is None else duration_text(grace),
            "created": local_time(project.create_time),
            "att.toml": project.settings_error,
        }
    )

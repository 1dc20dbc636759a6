"""`att project`: create, list, show, update, mode, delete."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, usage_error
from att_client.cli.output import Output, local_time
from att_client.cli.session import Json, ProjectId, Target, reported, run
from att_client.cli.settings_options import SettingsOptions, takes_settings
from att_client.cli.settings_text import settings_facts

commands = typer.Typer(
    help="Create, list, show, update and delete projects, and set what they let happen.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
)


class Mode(StrEnum):
    """What a project lets happen."""

    NORMAL = "normal"
    SAFE = "safe"
    FROZEN = "frozen"


_MODES = {
    Mode.NORMAL: att_client.ProjectMode.NORMAL,
    Mode.SAFE: att_client.ProjectMode.SAFE,
    Mode.FROZEN: att_client.ProjectMode.FROZEN,
}

NewProjectId = Annotated[
    str,
    typer.Argument(
        metavar="PROJECT",
        help="The new project's id: lower-case letters, digits and dashes, 2 to 63.",
        show_default=False,
    ),
]


@commands.command("create", epilog=EXIT_CODES_HELP)
@takes_settings
def create(
    options: SettingsOptions,
    project_id: NewProjectId,
    path: Annotated[
        Path | None,
        typer.Option(
            help="The app's directory. Default: the current one; with --template, one below it "
            "named after the project.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Fill the directory first, which has to be empty or absent. "
            "`nat`: a project of the NeMo Agent Toolkit.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Register an app. The same project again is no error, another one is."""
    output = Output(as_json=as_json)
    directory = os.path.abspath(path or (project_id if template else ""))
    with reported(output):
        settings = options.over(att_client.RuntimeSettings())

    async def call(att: att_client.Client) -> None:
        project = await att.projects.create(
            project_id, path=directory, runtime=settings, template=template or ""
        )
        _show(output, project)
        if template and not as_json:
            output.note(f"Read {directory}/README.md: it may need a first step.")
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
@takes_settings
def update(
    options: SettingsOptions,
    project_id: ProjectId,
    path: Annotated[
        Path | None, typer.Option(help="The app's new directory.", show_default=False)
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Take back a setting that was given before, so that att.toml or the default "
            "holds: command, env.NAME, env_file, run_as, restart, stop_grace, readiness, "
            "liveness, limits; can be repeated.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Change what is given and keep the rest; a running app takes it at its next start."""
    output = Output(as_json=as_json)
    directory = None if path is None else os.path.abspath(path)
    with reported(output):
        if path is None and not unset and not options.given:
            raise usage_error("Nothing to change. Give --path, --command, --env or another option.")
        # What is wrong whatever the project is, is found before the server is asked.
        probe = att_client.Probe()
        anything = att_client.RuntimeSettings(readiness=probe, liveness=probe)
        options.over(without(anything, unset or []))

    async def call(att: att_client.Client) -> None:
        now = await att.projects.get(project_id)
        kept = without(now.runtime or att_client.RuntimeSettings(), unset or [])
        settings = options.over(kept)
        _show(
            output,
            await att.projects.update(
                project_id,
                path=directory,
                runtime=settings,
            ),
        )

    run(call, target=target, output=output)


@commands.command("mode", epilog=EXIT_CODES_HELP)
def mode(
    project_id: ProjectId,
    wanted: Annotated[
        Mode,
        typer.Argument(
            metavar="normal|safe|frozen",
            help="normal: all is allowed; this leaves safe mode. safe: nothing happens by itself. "
            "frozen: no cycle and no rollback.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        str, typer.Option(help="Why, for whoever looks at the project or its events.")
    ] = "",
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Set what a project lets happen; needs a token with the role admin."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        _show(output, await att.projects.set_mode(project_id, _MODES[wanted], reason=reason))

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


def without(
    settings: att_client.RuntimeSettings, names: Sequence[str]
) -> att_client.RuntimeSettings:
    """`settings` with those that are named unset. Raises CommandError."""
    unset = att_client.RuntimeSettings()
    for name in names:
        field, _, variable = name.partition(".")
        if field == "env" and variable:
            env = {key: value for key, value in settings.env.items() if key != variable}
            settings = replace(settings, env=env)
        elif name in _UNSETTABLE:
            settings = replace(settings, **{name: getattr(unset, name)})
        else:
            raise usage_error(
                f"--unset {name!r} is no setting. Name one of {', '.join(_UNSETTABLE)} or env.NAME."
            )
    return settings


_UNSETTABLE = (
    "command",
    "env",
    "env_file",
    "run_as",
    "restart",
    "stop_grace",
    "readiness",
    "liveness",
    "limits",
)


def command_text(project: att_client.Project) -> str:
    """The command that a start would use, as a shell would take it."""
    settings = project.effective_runtime or project.runtime
    return shlex.join(settings.command) if settings else ""


def _mode_facts(project: att_client.Project) -> dict[str, str]:
    """What there is to say of a project that is not in its normal mode."""
    if project.mode is att_client.ProjectMode.NORMAL:
        return {}
    why = f": {project.mode_reason}" if project.mode_reason else ""
    return {"mode": f"{project.mode.name.lower()}{why}"}


def _show(output: Output, project: att_client.Project) -> None:
    if output.as_json:
        output.item(project)
        return
    settings = project.effective_runtime or project.runtime or att_client.RuntimeSettings()
    output.facts(
        {
            "project": project.project_id,
            "path": project.path,
            **_mode_facts(project),
            **settings_facts(settings),
            "created": local_time(project.create_time),
            "att.toml": project.settings_error,
        }
    )

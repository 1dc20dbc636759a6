"""`att release`: list, show."""

from __future__ import annotations

from typing import Annotated

import typer

import att_client
from att_client.cli.cycle_text import short, word
from att_client.cli.exits import EXIT_CODES_HELP, usage_error
from att_client.cli.newest import Limit, newest, page_size
from att_client.cli.output import Output, local_time, printable
from att_client.cli.session import Json, ProjectId, Target, run

commands = typer.Typer(
    help="List and show the releases of a project.", epilog=EXIT_CODES_HELP, no_args_is_help=True
)

_SHORTEST = 4  # characters that name a release


@commands.command("list", epilog=EXIT_CODES_HELP)
def list_releases(
    project_id: ProjectId,
    limit: Limit = 20,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """List the releases of a project, the newest first."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        pager = att.bootstrap.releases(project_id, page_size=page_size(limit))
        found = await newest(pager, limit, output)
        if as_json:
            return
        if not found:
            output.note(
                f"{project_id} has no releases. `att cycle run {project_id} --edit PATH=FILE` "
                "makes the first one."
            )
            return
        output.table(
            ("RELEASE", "STATE", "CURRENT", "REASON", "DEPLOYED", "BUILT", "FILES"),
            [
                (
                    short(r.release_id),
                    word(r.state),
                    "current" if r.current else "",
                    printable(r.reason),
                    local_time(r.deploy_time),
                    local_time(r.create_time),
                    "" if r.remove_time is None else "removed",
                )
                for r in found
            ],
        )

    run(call, target=target, output=output)


@commands.command("show", epilog=EXIT_CODES_HELP)
def show(
    project_id: ProjectId,
    release: Annotated[
        str,
        typer.Argument(
            metavar="RELEASE",
            help="The release's id, or its beginning if no other one begins so.",
            show_default=False,
        ),
    ],
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Show a release: how it stands, and where it came from."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        release_id = await full_id(att, project_id, release)
        found = await att.bootstrap.release(project_id, release_id)
        if as_json:
            output.item(found)
            return
        has_data = found.data_version or found.min_data_version
        output.facts(
            {
                "release": found.release_id,
                "project": found.project_id,
                "state": word(found.state),
                "reason": printable(found.reason),
                "current": "yes" if found.current else "no",
                "tries left": str(found.tries_left or ""),
                "tree": found.tree_sha,
                "cycle": found.cycle_id,
                "built": local_time(found.create_time),
                "deployed": local_time(found.deploy_time),
                "data version": str(found.data_version) if has_data else "",
                "reads from": str(found.min_data_version) if has_data else "",
                "files removed": local_time(found.remove_time),
            }
        )

    run(call, target=target, output=output)


async def full_id(att: att_client.Client, project_id: str, name: str) -> str:
    """The id of the one release that begins so; `name` itself if there is none.

    Raises CommandError if there are several.
    """
    if len(name) < _SHORTEST:
        return name
    found = {
        release.release_id
        async for release in att.bootstrap.releases(project_id, page_size=1000)
        if release.release_id.startswith(name)
    }
    if name in found or not found:
        return name
    if len(found) > 1:
        names = ", ".join(sorted(found)[:5])
        raise usage_error(f"{len(found)} releases begin with {name!r}: {names}. Name one in full.")
    return found.pop()

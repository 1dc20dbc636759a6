"""`att events`: the audit log."""

from __future__ import annotations

from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP
from att_client.cli.output import Output, local_time, printable
from att_client.cli.session import Json, Target, complete_project, run


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Apps")(events)


def events(
    project: Annotated[
        str,
        typer.Argument(
            metavar="[PROJECT]",
            help="The project's id. Default: all projects.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = "",
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="The audit records instead: each call that needs more than a viewer, before it "
            "was made and how it ended, and each that was denied. All of them, as JSON lines: "
            "--audit --cursor 0 --json.",
        ),
    ] = False,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with every event that comes.")
    ] = False,
    tail: Annotated[
        int, typer.Option(min=0, max=1000, help="Begin with the last so many events.")
    ] = 50,
    cursor: Annotated[
        int | None,
        typer.Option(min=0, help="Begin with the event of this number.", show_default=False),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Show what was asked for, by whom, and what came of it."""
    output = Output(as_json=as_json)

    def show(event: att_client.Event) -> None:
        if as_json:
            output.item(event)
        else:
            output.say(_text(event))

    async def call(att: att_client.Client) -> None:
        following = cursor
        if following is None:
            page = await att.events.list(
                project_id=project, audit=audit, page_size=max(tail, 1), tail=True
            )
            for event in page.events[len(page.events) - min(tail, len(page.events)) :]:
                show(event)
            following = page.cursor
        elif not follow:
            has_more = True
            while has_more:
                page = await att.events.list(
                    project_id=project, audit=audit, cursor=following, page_size=1000
                )
                for event in page.events:
                    show(event)
                following, has_more = page.cursor, page.has_more
        if follow:
            async for event in att.events.watch(project_id=project, audit=audit, cursor=following):
                show(event)

    run(call, target=target, output=output)


_CALLS = ("audit.intent", "audit.outcome", "audit.denied")
_OF_CALLS = ("method", "peer", "arguments")


def _text(event: att_client.Event) -> str:
    parts = [
        local_time(event.time),
        f"{event.event_type:<24}",
        event.project_id,
        f"run {event.run_id}" if event.run_id else "",
        event.reason,
        f"by {event.principal}" if event.principal else "",
        event.message,
        *(event.attributes.get(name, "") for name in _OF_CALLS if event.event_type in _CALLS),
    ]
    return printable("  ".join(part for part in parts if part))

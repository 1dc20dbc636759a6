"""`att demo`: an app, its log, its releases, and a server that is killed in between."""

from __future__ import annotations

import asyncio
import time

import typer

import att_client
from att_client.cli import demo_cycles, demo_log
from att_client.cli.demo_parts import (
    ServerProcess,
    clean_up_on_sigterm,
    first_error,
    temporary_directory,
)
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output
from att_client.cli.serve import server_command
from att_client.cli.session import Json, reported, warnings_noted
from att_client.cli.story import Story


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="First steps")(demo)


def demo(as_json: Json = False) -> None:
    """See it work: run an app, release it, kill the server under it, lose nothing.

    Takes about half a minute. Everything happens in a temporary directory and is
    removed at the end.
    """
    output = Output(as_json=as_json)
    # The outages are part of the story: what the client says of them would only disturb.
    with reported(output), warnings_noted(Output(as_json=True)):
        try:
            asyncio.run(_demo(Story(output)))
        except asyncio.CancelledError as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


async def _demo(story: Story) -> None:
    command = server_command()
    clean_up_on_sigterm()
    began = time.monotonic()
    with temporary_directory() as directory:
        state_dir = directory / "state"
        state_dir.mkdir(mode=0o700)
        async with ServerProcess(command, state_dir) as server:
            try:
                story.prose("An agent app prints all day. Its control plane crashes at the worst")
                story.prose("moment. Watch what that costs: every line counts, and is counted.\n")
                with story.step("Start a server on an empty state directory"):
                    await server.start()
                    story.detail(
                        f"pid {server.pid}, listening on {server.target}", server_pid=server.pid
                    )
                lines = await demo_log.play(story, server, directory)
                story.prose("\nNow its code changes, four times, and not every change is good.\n")
                cycles = await demo_cycles.play(story, server, directory)
            except* (TimeoutError, OSError) as errors:
                raise CommandError(
                    "DEMO_FAILED", f"A step did not come to its end: {errors!r}. Run `att doctor`."
                ) from errors
            except* (att_client.AttError, CommandError) as errors:
                raise first_error(errors) from errors
    seconds = time.monotonic() - began
    if story.output.as_json:
        story.output.item({"result": {"ok": True, "seconds": round(seconds, 3)}})
        return
    story.prose(f"\nAll of it in {seconds:.1f} s. Next: `att serve`, `att project create --help`.")
    for line in (lines, cycles):
        story.output.say(line, style="bold green")

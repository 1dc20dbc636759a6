"""`att demo`: an app, its log, and a server that is killed in between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import typer

import att_client
from att_client.cli.demo_parts import (
    ServerProcess,
    Tally,
    ask_app,
    clean_up_on_sigterm,
    count_lines,
    example_command,
    first_error,
    free_port,
    no_app_left,
    temporary_directory,
)
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output
from att_client.cli.serve import server_command
from att_client.cli.session import Json, reported, warnings_noted
from att_client.cli.story import Story

RATE = 2_000
STEP_TIMEOUT = 20.0
UNWATCHED = 1.0  # seconds for which the app prints without a server
PROJECT = "demo"


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="First steps")(demo)


def demo(as_json: Json = False) -> None:
    """See it work: run an app, kill the server under it, lose nothing. Takes some seconds.

    Everything happens in a temporary directory and is removed at the end.
    """
    output = Output(as_json=as_json)
    # The outage is part of the story: what the client says of it would only disturb.
    with reported(output), warnings_noted(Output(as_json=True)):
        try:
            asyncio.run(_demo(Story(output)))
        except asyncio.CancelledError as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


async def _demo(story: Story) -> None:
    command = server_command()
    clean_up_on_sigterm()
    story.prose("An agent app prints all day. Its control plane crashes at the worst moment.")
    story.prose("Watch what that costs: every line counts, and is counted.\n")
    began = time.monotonic()
    with temporary_directory() as directory:
        state_dir = directory / "state"
        state_dir.mkdir(mode=0o700)
        async with ServerProcess(command, state_dir) as server:
            try:
                await _play(story, server, directory, began)
            except* (TimeoutError, OSError) as errors:
                raise CommandError(
                    "DEMO_FAILED", f"A step did not come to its end: {errors!r}. Run `att doctor`."
                ) from errors
            except* (att_client.AttError, CommandError) as errors:
                raise first_error(errors) from errors


async def _play(story: Story, server: ServerProcess, directory: Path, began: float) -> None:
    target = f"unix:{directory}/state/att.sock"
    printed_file = directory / "printed.json"
    port = free_port()
    tally = Tally()

    with story.step("Start a server on an empty state directory"):
        await server.start()
        story.detail(f"pid {server.pid}, listening on {target}", server_pid=server.pid)

    async with att_client.connect(target) as att, no_app_left(target, server, PROJECT):
        with story.step("Register the example app, start it and wait until it is ready"):
            await att.projects.create(
                PROJECT,
                path=str(directory),
                runtime=att_client.RuntimeSettings(
                    command=example_command(port, RATE, printed_file),
                    readiness=att_client.Probe(
                        http=att_client.HttpProbe(url=f"http://127.0.0.1:{port}/health"),
                        interval=timedelta(milliseconds=50),
                    ),
                ),
            )
            runtime = await att.runtimes.start(PROJECT, wait="ready")
            version = await ask_app(port, "/version")
            story.detail(
                f"version {version['version']}, pid {runtime.pid}, run {runtime.run_id}",
                app_pid=runtime.pid,
                run_id=runtime.run_id,
            )

        async with asyncio.TaskGroup() as group:
            follower = group.create_task(_follow(att, tally))
            await _watch_and_kill(story, server, att, tally, port, runtime.pid)
            with story.step("Stop the app; the follower ends by itself, after the last line"):
                await att.runtimes.stop(PROJECT)
                async with asyncio.timeout(STEP_TIMEOUT):
                    await follower
                story.detail(f"{tally.lines} lines received", received=tally.lines)
    _compare(story, json.loads(printed_file.read_text()), tally, time.monotonic() - began)


async def _watch_and_kill(
    story: Story,
    server: ServerProcess,
    att: att_client.Client,
    tally: Tally,
    port: int,
    app_pid: int,
) -> None:
    with story.step("Follow its log live, with the Python SDK"):
        await _reach(tally, RATE)
        story.detail(f"{tally.lines} lines so far, on stdout and stderr", received=tally.lines)
    with story.step("Ask the app a question and see what it prints about it"):
        before = tally.next_sequence
        answer = await ask_app(port, "/ask", {"question": "what is 6 * 7"})
        story.detail(f"what is 6 * 7? It answers {answer['answer']}.", answer=answer["answer"])
        await _reach(tally, tally.lines + 1)
        async for line in att.logs.follow(PROJECT, cursor=before):
            if isinstance(line, att_client.LogLine) and "answer: 42" in line:
                story.detail(f"line {line.sequence}: {line}", line=str(line))
                break
    with story.step("Kill the server with SIGKILL, while the app prints on"):
        at_kill = await ask_app(port, "/printed")
        old_pid = server.pid
        await server.kill()
        received = tally.lines
        await asyncio.sleep(UNWATCHED)
        unwatched = count_lines(await ask_app(port, "/printed")) - count_lines(at_kill)
        story.detail(f"server {old_pid} is gone; the app, pid {app_pid}, does not notice")
        story.detail(
            f"it printed {unwatched} lines in the meantime, the follower got "
            f"{tally.lines - received} of them so far",
            printed_without_server=unwatched,
        )
    with story.step("Start the server again; the follower goes on where it was"):
        before = tally.lines
        await server.start()
        await _reach(tally, before + unwatched + RATE // 4)
        runtime = await att.runtimes.get(PROJECT)
        if runtime.pid != app_pid:
            raise CommandError("DEMO_FAILED", f"The app's pid was {app_pid}, now {runtime.pid}.")
        story.detail(
            f"server {server.pid} adopted the app: pid {runtime.pid} and run as before",
            server_pid=server.pid,
            app_pid=runtime.pid,
        )
        story.detail(f"{tally.lines} lines received, caught up", received=tally.lines)


async def _follow(att: att_client.Client, tally: Tally) -> None:
    async for batch in att.logs.follow(PROJECT, until_exit=True).batches():
        tally.take(batch.records)


async def _reach(tally: Tally, lines: int) -> None:
    async with asyncio.timeout(STEP_TIMEOUT):
        await tally.reach(lines)


def _compare(story: Story, printed: dict[str, object], tally: Tally, seconds: float) -> None:
    """Tells what was written and what was received; raises CommandError where they differ."""
    received = tally.received()
    written_lines = count_lines(printed)
    lost = max(0, written_lines - (tally.lines - tally.doubled))
    equal = printed == received
    words = "equal" if equal else "DIFFERENT"
    line = (
        f"lines written {written_lines}, received {tally.lines}, lost {lost}, "
        f"doubled {tally.doubled}, hashes {words}"
    )
    good = equal and not (lost or tally.doubled or tally.missing)
    if story.output.as_json:
        story.output.item(
            {
                "result": {
                    "ok": good,
                    "written": printed,
                    "received": received,
                    "lost": lost,
                    "doubled": tally.doubled,
                    "hashes_equal": equal,
                    "seconds": round(seconds, 3),
                }
            }
        )
    else:
        story.prose("\nWhat the app counted itself, and what the follower received:")
        story.output.table(
            ("STREAM", "LINES WRITTEN", "RECEIVED", "SHA-256 WRITTEN", "RECEIVED"),
            [_row(stream, printed, received) for stream in ("stdout", "stderr")],
        )
        story.prose("")
    if not good:
        raise CommandError("LINES_DIFFER", line)
    if not story.output.as_json:
        story.prose(
            f"All of it in {seconds:.1f} s. Next: `att serve`, `att project create --help`."
        )
        story.output.say(line, style="bold green")


def _row(
    stream: str, printed: Mapping[str, object], received: Mapping[str, object]
) -> tuple[str, ...]:
    cells = []
    for key in ("lines", "sha256"):
        for side in (printed[stream], received[stream]):
            assert isinstance(side, dict)
            cells.append(str(side[key])[:16])
    return (stream, *cells)

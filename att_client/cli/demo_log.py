"""The first part of `att demo`: an app, its log, and a server that is killed in between."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import att_client
from att_client.cli.demo_parts import (
    STEP_TIMEOUT,
    ServerProcess,
    Tally,
    ask_app,
    count_lines,
    example_command,
    free_port,
    no_app_left,
)
from att_client.cli.exits import CommandError
from att_client.cli.story import Story

PROJECT = "demo"
RATE = 2_000
UNWATCHED = 1.0  # seconds for which the app prints without a server


async def play(story: Story, server: ServerProcess, directory: Path) -> str:
    """Tells the story and returns what it comes to, on one line.

    directory: for the app's own files. Raises CommandError where a line was lost, doubled
    or changed.
    """
    began = time.monotonic()
    printed_file = directory / "printed.json"
    port = free_port()
    tally = Tally()
    async with att_client.connect(server.target) as att, no_app_left(server, PROJECT):
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
    return _compare(story, json.loads(printed_file.read_text()), tally, time.monotonic() - began)


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


def _compare(story: Story, printed: dict[str, object], tally: Tally, seconds: float) -> str:
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
                "log": {
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
    return line


def _row(
    stream: str, printed: Mapping[str, object], received: Mapping[str, object]
) -> tuple[str, ...]:
    cells = []
    for key in ("lines", "sha256"):
        for side in (printed[stream], received[stream]):
            assert isinstance(side, dict)
            cells.append(str(side[key])[:16])
    return (stream, *cells)

"""`make demo-nat`: a real NeMo Agent Toolkit server under ATT, from template to stop.

    python -m tests.nat.demo --cache DIR [--json]

Each step is shown with what was seen; what was not seen ends it with exit code 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.demo_parts import (
    ServerProcess,
    clean_up_on_sigterm,
    first_error,
    free_port,
    no_app_left,
    temporary_directory,
)
from att_client.cli.exits import CommandError, ExitCode
from att_client.cli.output import Output
from att_client.cli.serve import server_command
from att_client.cli.session import Json, reported, warnings_noted
from att_client.cli.story import Story
from tests.nat.agents import add_toolset, read_through_bridge, serve_workflow
from tests.nat.project import (
    COMMAND_TIMEOUT,
    Commands,
    NatApp,
    demand,
    only_user,
    processes_of_runs,
)

PROJECT = "demo-nat"
GRACE = 3  # seconds
SLOW = 300  # seconds that the request takes that the stop does not wait for
FAILURE = "there is no text to answer"

Line = dict[str, object]


def demo_nat(
    cache: Annotated[Path, typer.Option(help="Where NAT is kept between two runs.")],
    as_json: Json = False,
) -> None:
    """Run a NeMo Agent Toolkit project under ATT; the first time, NAT is installed."""
    output = Output(as_json=as_json)
    with reported(output), warnings_noted(Output(as_json=True)):
        try:
            with only_user(cache):
                asyncio.run(_demo(Story(output), cache.absolute()))
        except (asyncio.CancelledError, KeyboardInterrupt) as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


async def _demo(story: Story, cache: Path) -> None:
    command = server_command()
    clean_up_on_sigterm()
    began = time.monotonic()
    with temporary_directory() as directory:
        state_dir = directory / "state"
        state_dir.mkdir(mode=0o700)
        # NAT leaves a copy of its configuration behind for each run.
        os.environ["TMPDIR"] = os.fspath(directory)
        async with ServerProcess(command, state_dir) as server:
            try:
                await _play(story, server, directory, cache)
            except* (TimeoutError, OSError, HTTPException) as errors:
                raise CommandError(
                    "DEMO_FAILED", f"A step did not come to its end: {errors.exceptions!r}."
                ) from errors
            except* (att_client.AttError, CommandError) as errors:
                raise first_error(errors) from errors
    seconds = time.monotonic() - began
    if story.output.as_json:
        story.output.item({"result": {"ok": True, "seconds": round(seconds, 3)}})
    else:
        story.output.say(f"\nAll of it was seen, in {seconds:.1f} s.", style="bold green")


async def _play(story: Story, server: ServerProcess, directory: Path, cache: Path) -> None:
    target = f"unix:{directory}/state/att.sock"
    commands = Commands(target, directory)
    app = NatApp(directory / PROJECT, free_port())
    with story.step("Start a server on an empty state directory"):
        await server.start()
        story.detail(f"pid {server.pid}, listening on {target}", server_pid=server.pid)
    async with att_client.connect(target) as att, no_app_left(server, PROJECT):
        await _make(story, commands, app, cache)
        first = await _start(story, commands, app)
        await _show_log(story, commands, app)
        await read_through_bridge(story, commands, app, PROJECT, directory / "state")
        second = await _restart(story, commands, first)
        await _stop_in_flight(story, commands, app, att, [first, second])
        await _start_beside_stranger(story, commands, app, att)
        await serve_workflow(story, commands, server, app)


async def _make(story: Story, commands: Commands, app: NatApp, cache: Path) -> None:
    with story.step(f"att project create {PROJECT} --template nat"):
        project = await commands.runtime("project", "create", PROJECT, "--template", "nat")
        demand(project["path"] == str(app.directory), f"a project in {app.directory}")
        files = sorted(path.name for path in app.directory.iterdir())
        story.detail(f"{app.directory} holds {' '.join(files)}", files=files)
        again = await commands.runtime("project", "create", PROJECT, "--template", "nat")
        demand(again == project, "the same project when it is created again")
    with story.step("sh setup.sh: NAT, into an environment of its own (the first time: minutes)"):
        add_toolset(app)
        version = await app.install(cache)
        app.use_port()
        story.detail(f"NAT {version}, to serve on port {app.port}", version=version)


async def _start(story: Story, commands: Commands, app: NatApp) -> str:
    with story.step(f"att start {PROJECT} --wait ready"):
        runtime = await commands.runtime(
            "start", PROJECT, "--wait", "ready", "--timeout", f"{COMMAND_TIMEOUT / 2}s"
        )
        demand(runtime["state"] == "ready", f"the state ready, not {runtime['state']}")
        demand(runtime["health_reason"] == "http_ok", f"http_ok, not {runtime['health_reason']}")
        story.detail(f"ready, pid {runtime['pid']}, run {runtime['run_id']}", **runtime)
        status, body = await app.get("/health")
        demand((status, "healthy" in body) == (200, True), "200 healthy of /health")
        story.detail(f"GET /health: {status} {body}")
    with story.step("POST /v1/workflow"):
        status, answer = await app.ask("hello")
        demand((status, answer.get("value")) == (200, "You said: hello"), "the workflow's value")
        story.detail(f'{{"text": "hello"}} is answered with {answer}', answer=answer)
        status, answer = await app.ask("in a moment", delay=0.5)
        demand((status, answer.get("value")) == (200, "You said: in a moment"), "a slow answer")
        status, answer = await app.ask("")
        demand((status, answer.get("message")) == (422, FAILURE), "an error of the workflow")
        story.detail(f"an empty text with {status}: {answer['message']}", failure=answer)
    return str(runtime["run_id"])


async def _show_log(story: Story, commands: Commands, app: NatApp) -> None:
    with story.step(f"att logs {PROJECT} --severity"):
        lines: list[Line] = []
        async with asyncio.timeout(COMMAND_TIMEOUT):
            # The answer is there before the last line about it is in the log.
            while not any(str(line["line"]).endswith(f"ValueError: {FAILURE}") for line in lines):
                lines = [item for item in await _log(commands) if "line" in item]
        shown = [
            _severe(lines, "info", "stderr", r" - INFO     - nat\.\S+ - "),
            _severe(lines, "info", "stderr", r" - INFO:     Uvicorn running on "),
            _severe(
                lines, "info", "stdout", r' - INFO:     \S+ - "POST /v1/workflow HTTP/1.1" 200'
            ),
            _severe(lines, "warning", "stderr", r" - WARNING  - nat\.\S+ - "),
            _severe(lines, "warning", "stderr", r" - WARNING  - echo_workflow\.\S+ - "),
            _severe(lines, "warning", "stderr", r" - WARNING:  Current configuration"),
            _severe(lines, "error", "stderr", r" - ERROR    - nat\.\S+ - Error running workflow"),
            *_traceback(lines),
        ]
        for line in shown:
            label = str(line["severity"]).upper()
            story.detail(f"{label:<8} {line['stream']}: {str(line['line'])[:110]}")
        count = len([line for line in lines if line["severity"] == "error"])
        story.detail(f"{len(lines)} lines, {count} of them errors", lines=len(lines), errors=count)


def _severe(lines: Sequence[Line], severity: str, stream: str, pattern: str) -> Line:
    """The first line of the stream that matches; all that do have to have the severity."""
    found = [
        line for line in lines if line["stream"] == stream and re.search(pattern, str(line["line"]))
    ]
    demand(found, f"a line of {stream} that matches {pattern!r}")
    wrong = [line for line in found if line["severity"] != severity]
    demand(not wrong, f"the severity {severity} of {wrong[:1]}")
    return found[0]


def _traceback(lines: Sequence[Line]) -> list[Line]:
    """The first, second and last line of the traceback, all of which are errors."""
    errors = [line for line in lines if line["stream"] == "stderr"]
    texts = [str(line["line"]) for line in errors]
    begin = texts.index("Traceback (most recent call last):")
    end = texts.index(f"ValueError: {FAILURE}", begin)
    demand(end - begin > 5, "a traceback of more than a few lines")
    wrong = [line for line in errors[begin - 1 : end + 1] if line["severity"] != "error"]
    demand(not wrong, f"the severity of its header for every line of the traceback: {wrong[:1]}")
    return [errors[begin - 1], errors[begin], errors[begin + 1], errors[end]]


async def _restart(story: Story, commands: Commands, first: str) -> str:
    with story.step(f"att restart {PROJECT} --wait ready"):
        runtime = await commands.runtime("restart", PROJECT, "--wait", "ready")
        second = str(runtime["run_id"])
        demand(second != first, "a new run")
        log = await _log(commands)
        started = [_marker(item)["run_id"] for item in log if "started" in _marker(item)]
        ended = [_marker(item)["run_id"] for item in log if "ended" in _marker(item)]
        demand((started, ended) == ([first, second], [first]), "both runs in one log")
        sequences = [item["sequence"] for item in log]
        demand(sequences == list(range(len(log))), "sequences without gap or repetition")
        story.detail(f"runs {first} and {second}, one log", runs=[first, second])
        story.detail(f"records 0 to {len(log) - 1}, none missing, none twice", records=len(log))
    return second


async def _stop_in_flight(
    story: Story, commands: Commands, app: NatApp, att: att_client.Client, runs: Sequence[str]
) -> None:
    title = f"att stop {PROJECT} --grace {GRACE}s, while a request of {SLOW} s is in flight"
    with story.step(title):
        end = (await att.runtimes.get(PROJECT)).log_end_cursor
        async with _asked(app) as request:
            await _line(att, f"The answer takes {SLOW} s", end)
            demand(processes_of_runs(runs), "processes of the run before the stop")
            began = time.monotonic()
            runtime = await commands.runtime("stop", PROJECT, "--grace", f"{GRACE}s")
            took = time.monotonic() - began
            left = processes_of_runs(runs)
            demand(not left, f"the end of every process of the runs: {left} are left")
            outcome = await asyncio.wait_for(asyncio.shield(request), COMMAND_TIMEOUT)
        await _line(att, "Shutting down", end)
        exit_ = runtime["exit"]
        assert isinstance(exit_, dict)
        demand(runtime["state"] == "stopped", f"the state stopped: {runtime}")
        demand(exit_.get("signal") == 9, f"an end by SIGKILL, not {exit_}")
        demand(GRACE <= took < SLOW, f"a stop after the grace: {took:.2f} s")
        demand("value" not in outcome, f"no answer to the request: {outcome}")
        story.detail(f"SIGTERM: NAT shuts down and waits for its request; SIGKILL after {GRACE} s")
        story.detail(
            f"stopped after {took:.2f} s, no process of its runs is left; the request: {outcome}",
            seconds_to_stop=round(took, 3),
            request=outcome,
        )


@asynccontextmanager
async def _asked(app: NatApp) -> AsyncIterator[asyncio.Task[str]]:
    """A slow request that is on its way; its result says what became of it."""

    async def ask() -> str:
        try:
            return str(await app.ask("take your time", delay=SLOW))
        except (OSError, HTTPException) as error:
            return f"{type(error).__name__}: {error}"

    request = asyncio.create_task(ask())
    try:
        yield request
    finally:
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request


async def _start_beside_stranger(
    story: Story, commands: Commands, app: NatApp, att: att_client.Client
) -> None:
    title = f"att start {PROJECT}, while a stranger has its port and answers /health"
    with story.step(title):
        async with app.taken_port() as pid:
            status, body = await app.get("/health")
            demand((status, body) == (200, "a stranger"), "the stranger's answer")
            story.detail(f"pid {pid} answers GET /health with {status}", stranger=pid)
            end = (await att.runtimes.get(PROJECT)).log_end_cursor
            await commands.runtime("start", PROJECT)
            runtime = await _until(
                att, lambda runtime: runtime.health_reason == "port_owned_by_other_process"
            )
            demand(runtime.healthy is False, "an app that is not healthy")
            story.detail(
                f"healthy: {runtime.healthy}, reason: {runtime.health_reason}",
                healthy=runtime.healthy,
                health_reason=runtime.health_reason,
            )
            said = await _line(att, "address already in use", end)
            story.detail(f"NAT itself says: {said.strip()}")
            runtime = await _until(
                att, lambda runtime: runtime.state is att_client.RuntimeState.BACKOFF
            )
            demand(runtime.exit is not None and runtime.exit.exit_code == 1, "an end with code 1")
            demand(runtime.next_restart_time, "the time of the next start")
            story.detail(f"backoff: {runtime.restarts} restarts so far, by `restart` in att.toml")
            stopped = await commands.runtime("stop", PROJECT)
            demand(stopped["state"] == "stopped", f"the state stopped: {stopped}")
            log = await _log(commands)
            runs = [str(_marker(item)["run_id"]) for item in log if "started" in _marker(item)]
            left = processes_of_runs(runs)
            demand(len(runs) > 2 and not left, f"the end of all {len(runs)} runs: {left} are left")
            status, body = await app.get("/health")
            demand((status, body) == (200, "a stranger"), "a stranger that is left alone")
            story.detail(f"{len(runs)} runs in all, none of their processes is left", runs=runs)


async def _until(
    att: att_client.Client, reached: Callable[[att_client.Runtime], bool]
) -> att_client.Runtime:
    """The app when it is `reached`, and never was ready before."""
    async with asyncio.timeout(COMMAND_TIMEOUT):
        while True:
            runtime = await att.runtimes.get(PROJECT)
            demand(runtime.ready_time is None, f"an app that is not called ready: {runtime}")
            if reached(runtime):
                return runtime
            await asyncio.sleep(0.05)


async def _log(commands: Commands) -> list[Line]:
    return await commands.att("logs", PROJECT, "--severity")


def _marker(item: Line) -> dict[str, object]:
    marker = item.get("run", {})
    assert isinstance(marker, dict)
    return marker


async def _line(att: att_client.Client, text: str, cursor: int) -> str:
    """The first line from `cursor` on that holds `text`; waits for it."""
    async with asyncio.timeout(COMMAND_TIMEOUT):
        async for line in att.logs.follow(PROJECT, cursor=cursor):
            if isinstance(line, att_client.LogLine) and text in line:
                return str(line)
    raise CommandError("DEMO_FAILED", f"Not seen: {text!r} in the log.")


if __name__ == "__main__":
    typer.run(demo_nat)

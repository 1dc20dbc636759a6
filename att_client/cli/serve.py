"""`att serve` and `att shutdown`: the server's process."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, usage_error
from att_client.cli.output import Output, duration_text
from att_client.cli.runtime import has_ended
from att_client.cli.session import Json, Target, parse_duration, reported, run

INSTALL_SERVER = 'pip install "att-control[server]"'


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (serve, launch):
        app.command(
            rich_help_panel="Server",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(command)
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="Server")(shutdown)


def serve(context: typer.Context) -> None:
    """Run the server in the foreground; `att serve --help` lists its options."""
    with reported(Output(as_json=False)):
        command = server_command()
        sys.stdout.flush()
        os.execv(command[0], [*command, "serve", *context.args])


def launch(context: typer.Context) -> None:
    """Keep the server of the right release running; options are those of `att serve`."""
    with reported(Output(as_json=False)):
        command = server_command()
        sys.stdout.flush()
        os.execv(command[0], [*command, "launch", *context.args])


def shutdown(
    apps: Annotated[
        bool, typer.Option("--apps", help="First stop every app. Without it they run on.")
    ] = False,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="Bound the wait for the server's end.")
    ] = "30s",
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Stop the server and wait until it has ended."""
    output = Output(as_json=as_json)
    with reported(output):
        bound = parse_duration(timeout)

    async def call(att: att_client.Client) -> None:
        info = await att.server.info()
        stopped = await _stop_apps(att, output) if apps else []
        with output.waiting("waiting for the server's end …"):
            _end_process(att.target, info.pid, bound)
            _wait_for_lock(Path(info.state_dir) / "att.lock", bound)
        if as_json:
            output.item({"pid": info.pid, "state_dir": info.state_dir, "stopped_apps": stopped})
        else:
            output.say(f"The server (pid {info.pid}) has ended.")

    run(call, target=target, output=output)


def server_command() -> list[str]:
    """The words that start the server's module; raises CommandError where it is missing."""
    missing = missing_server_packages()
    if missing:
        raise CommandError(
            "SERVER_NOT_INSTALLED",
            f"The server is not installed here ({', '.join(missing)} missing). "
            f"Install it with: {INSTALL_SERVER}",
        )
    return [sys.executable, "-m", "att_server"]


def missing_server_packages() -> list[str]:
    """What the server needs and this installation has not."""
    missing = [] if importlib.util.find_spec("att_server") else ["att_server"]
    try:
        requirements = metadata.requires("att-control") or []
    except metadata.PackageNotFoundError:
        return missing
    for requirement in requirements:
        if "extra == 'server'" in requirement.replace('"', "'"):
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            try:
                metadata.version(name)
            except metadata.PackageNotFoundError:
                missing.append(name)
    return missing


async def _stop_apps(att: att_client.Client, output: Output) -> list[str]:
    """Stops all apps at once; raises the first failure after all have been tried."""
    alive = [runtime.project_id async for runtime in att.runtimes.list() if not has_ended(runtime)]
    failures: list[att_client.AttError] = []

    async def stop(project_id: str) -> None:
        try:
            await att.runtimes.stop(project_id)
        except att_client.AttError as error:
            failures.append(error)

    with output.waiting(f"stopping {len(alive)} apps …"):
        async with asyncio.TaskGroup() as group:
            for project_id in alive:
                group.create_task(stop(project_id))
    if failures:
        raise failures[0]
    return alive


def _end_process(target: str, pid: int, timeout: timedelta) -> None:
    """Ends the server with SIGTERM and waits for its end.

    The process that listens on the socket is the one that is signalled: the pid
    that the server names could mean another process here.
    """
    path = target.removeprefix("unix:")
    if path == target:
        raise usage_error(f"{target} is no local socket. Run `att shutdown` on the server's host.")
    if _listener_pid(path) != pid:
        raise CommandError(
            "SERVER_NOT_LOCAL",
            f"The server's process {pid} is not one of this host or container. "
            "Run `att shutdown` where the server runs.",
            metadata={"pid": str(pid)},
        )
    try:
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
            ended, _, _ = select.select([process], [], [], timeout.total_seconds())
        finally:
            os.close(process)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise CommandError(
            "SERVER_OF_ANOTHER_USER",
            f"The server's process {pid} belongs to another user. Run `att shutdown` as that user.",
            metadata={"pid": str(pid)},
        ) from error
    if not ended:
        raise _still_running(f"The server (pid {pid})", timeout)


def _listener_pid(path: str) -> int:
    """The process that listens on the socket, as the kernel knows it; 0: not visible here."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return 0
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)


def _wait_for_lock(path: Path, timeout: timedelta) -> None:
    """Returns when nobody holds the lock of the state directory."""
    deadline = time.monotonic() + timeout.total_seconds()
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise _still_running(f"The holder of {path}", timeout) from error
                time.sleep(0.02)
            else:
                return
    finally:
        os.close(lock)


def _still_running(who: str, timeout: timedelta) -> CommandError:
    return CommandError(
        "SERVER_STILL_RUNNING",
        f"{who} is still there after {duration_text(timeout)}. "
        "Look at its log, or wait longer with --timeout.",
    )

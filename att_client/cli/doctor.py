"""`att doctor`: what this host and installation have, and what to do about the rest."""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.checks import Check, Verdict, check
from att_client.cli.doctor_host import host_checks
from att_client.cli.doctor_state import find_holder, find_supervisors, state_checks
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output
from att_client.cli.serve import INSTALL_SERVER, missing_server_packages
from att_client.cli.session import Json, Target

# Through 3.51.2 two connections that write and checkpoint at once can damage the
# database; the fix was also made in these older lines.
_WAL_RESET_FIXED = (3, 51, 3)
_WAL_RESET_FIXED_TOO = {(3, 50): 7, (3, 44): 6}


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="First steps")(doctor)


def doctor(
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="The server's state directory. Default: that of the server which answers, else as "
            "for `att serve`."
        ),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Check what ATT needs on this host. Exits with 1 where a check fails."""
    output = Output(as_json=as_json)
    failed = 0
    rows = []
    for found in checks(state_dir, target):
        failed += found.verdict is Verdict.FAIL
        if as_json:
            output.item(found)
        rows.append((found.verdict.value, found.name, found.detail, found.advice))
    if not as_json:
        output.table(("", "CHECK", "FOUND", "WHAT TO DO"), rows)
    if failed:
        output.error(
            CommandError("CHECKS_FAILED", f"{failed} of {len(rows)} checks failed. See above.")
        )
        raise typer.Exit(ExitCode.FAILED)


def checks(state_dir: Path | None, target: str | None) -> Iterator[Check]:
    """Makes all checks, one after the other.

    state_dir: None for that of the server at `target`, or the one of a server that is
        given none.
    """
    yield _python()
    yield _packages()
    yield _server_packages()
    yield _sqlite()
    holder, running = None, 0
    try:
        server = None
        if state_dir is None:
            server, served = _server(target)
            directory = served or _default_state_dir()
        else:
            directory = state_dir.absolute()
        yield from state_checks(directory)
        holder = find_holder(directory)
        running = len(find_supervisors(directory).running)
        yield server or _server(target or f"unix:{directory}/att.sock")[0]
    except att_client.ConfigInvalidError as error:
        yield check("settings", False, error.message, "correct the argument or variable")
    yield from host_checks(None if holder is None else holder.pid, running)
    yield _tool("git", ["git", "--version"], "release cycles need git 2.34 or later; install it")
    yield _tool("node", ["node", "--version"], "only the Node examples need it")


def _default_state_dir() -> Path:
    environment = {name: value for name, value in os.environ.items() if name != "ATT_TARGET"}
    return Path(att_client.Config.from_env(environment).target.removeprefix("unix:")).parent


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.release()}"
    good = sys.version_info >= (3, 11) and sys.platform == "linux"
    return check("python", good, detail, "ATT runs on Linux with Python 3.11 or later")


def _packages() -> Check:
    found, missing = [], []
    for name in ("att-control", "grpcio", "protobuf", "betterproto2", "typer", "rich"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(found + [f"{name} missing" for name in missing])
    return check("packages", not missing, detail, "pip install att-control", Verdict.WARN)


def _server_packages() -> Check:
    missing = missing_server_packages()
    detail = f"{', '.join(missing)} missing" if missing else "installed"
    advice = f"to run a server here: {INSTALL_SERVER}"
    return check("server packages", not missing, detail, advice, Verdict.WARN)


def _sqlite() -> Check:
    version = sqlite3.sqlite_version_info
    fixed = version >= _WAL_RESET_FIXED or (
        version[2] >= _WAL_RESET_FIXED_TOO.get(version[:2], version[2] + 1)
    )
    detail = f"{sqlite3.sqlite_version}" + ("" if fixed else ", with the WAL-reset bug")
    return check(
        "sqlite",
        fixed,
        detail,
        "the server writes by one connection, which the bug spares: let nothing else write att.db, "
        "and update SQLite to 3.51.3",
        Verdict.WARN,
    )


def _server(target: str | None) -> tuple[Check, Path | None]:
    """Whether a server answers, and its state directory."""

    async def ask() -> att_client.GetServerInfoResponse:
        async with asyncio.timeout(5), att_client.connect(target) as att:
            return await att.server.info()

    advice = "start one with `att serve`"
    try:
        info = asyncio.run(ask())
    except (att_client.UnavailableError, TimeoutError) as error:
        return check("server", False, str(error) or "no answer", advice, Verdict.WARN), None
    except att_client.ConfigInvalidError:
        raise
    except att_client.UnauthenticatedError as error:
        return check("server", False, error.message, "set ATT_TOKEN_FILE"), None
    except att_client.AttError as error:
        return check("server", False, error.message, "look at the server's log"), None
    detail = f"version {info.version}, pid {info.pid}, {info.state_dir}"
    return check("server", True, detail, advice), Path(info.state_dir)


def _tool(name: str, command: list[str], advice: str) -> Check:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check(name=name, verdict=Verdict.WARN, detail="not found", advice=advice)
    return Check(name=name, verdict=Verdict.OK, detail=result.stdout.strip())

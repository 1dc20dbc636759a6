"""`att mcp`: the bridge for agents."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, usage_error
from att_client.cli.output import Output
from att_client.cli.running import run_command
from att_client.cli.session import Json, Target, reported

INSTALL_MCP = 'pip install "att-control[mcp]"'

commands = typer.Typer(
    help="Serve ATT to agents over the Model Context Protocol.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
)


@commands.command(epilog=EXIT_CODES_HELP)
def serve(
    toolsets: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Only these toolsets, such as runtime,code. Default: all."
        ),
    ] = "",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only tools that change nothing.")
    ] = False,
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="PROJECT", help="Only this project. Repeat for more."),
    ] = None,
    tool_names: Annotated[
        str,
        typer.Option(
            metavar="FORM",
            envvar="ATT_MCP_TOOL_NAMES",
            help="How tools are listed: dotted or underscore. Calls may use both.",
        ),
    ] = "dotted",
    http: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve over Streamable HTTP on this loopback address; callers need a token.",
        ),
    ] = "",
    target: Target = None,
) -> None:
    """Serve agents: one on stdin and stdout, or with --http any number."""
    with reported(Output(as_json=False)):
        _require_mcp()
        from att_client.mcp.http import Listener
        from att_client.mcp.names import NameForm
        from att_client.mcp.options import TOOLSETS, OptionInvalid, Options
        from att_client.mcp.serve import serve_http, serve_stdio

        gc.enable()
        gc.freeze()
        config = att_client.Config.from_env(target=target)
        try:
            options = Options(
                toolsets=_words(toolsets) or TOOLSETS,
                read_only=read_only,
                projects=tuple(project or ()),
                names=NameForm.parse(tool_names),
            )
            listener = Listener.parse(http) if http else None
        except OptionInvalid as error:
            raise usage_error(str(error)) from error
        if listener is None:
            if sys.stdin.isatty():
                Output(as_json=False).note(
                    "An agent's client starts this, and talks to it on stdin; `att mcp config` "
                    "prints what its settings need. Ctrl-D ends it."
                )
            asyncio.run(serve_stdio(config, options))
            return
        try:
            asyncio.run(serve_http(config, options, listener, _ready))
        except OSError as error:
            raise CommandError(
                "ADDRESS_NOT_AVAILABLE",
                f"{http} cannot be listened on: {error.strerror}. Give another port.",
            ) from error


@commands.command(epilog=EXIT_CODES_HELP)
def config(
    client: Annotated[
        str,
        typer.Argument(
            metavar="CLIENT",
            help="claude-code, claude-desktop, codex, cursor, vscode or nat.",
            show_default=False,
        ),
    ],
    http: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="For a bridge that serves there; the client gets its token from ATT_TOKEN.",
        ),
    ] = "",
    toolsets: Annotated[str, typer.Option(metavar="NAMES", help="Only these toolsets.")] = "",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only tools that change nothing.")
    ] = False,
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="PROJECT", help="Only this project. Repeat for more."),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Print what a client's settings need to say to have the bridge."""
    output = Output(as_json=as_json)
    with reported(output):
        from att_client.mcp.names import OptionInvalid
        from att_client.mcp.snippets import Wanted, snippet

        options = [
            *(("--toolsets", toolsets) if toolsets else ()),
            *(("--read-only",) if read_only else ()),
            *(word for name in project or () for word in ("--project", name)),
        ]
        wanted = Wanted(
            command=[*_own_command(), "mcp", "serve", *options],
            env=_variables(target),
            url=f"http://{http}/mcp" if http else "",
        )
        try:
            found = snippet(client, wanted)
        except OptionInvalid as error:
            raise usage_error(str(error)) from error
    if as_json:
        output.item({"client": client, "place": found.place, "text": found.text})
        return
    output.note(f"For {found.place}:")
    sys.stdout.write(found.text)
    sys.stdout.flush()
    if found.note:
        output.note(found.note)


_PATHS = (
    *("ATT_TOKEN_FILE", "ATT_STATE_DIR"),
    *("ATT_CA_FILE", "ATT_CERT_FILE", "ATT_KEY_FILE"),
)


def _own_command() -> list[str]:
    """This command by its whole path: a client's PATH may be another."""
    beside = Path(sys.executable).with_name("att")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "att_client.cli"]


def _variables(target: str | None) -> dict[str, str]:
    """What leads the bridge to the same server as the same caller; never a token itself."""
    paths = {name: os.environ.get(name, "") for name in _PATHS}
    named = {name: os.path.abspath(path) for name, path in paths.items() if path}
    target = target or os.environ.get("ATT_TARGET", "")
    return named | ({"ATT_TARGET": target} if target else {})


def run_serve(arguments: Sequence[str]) -> int:
    """Runs `att mcp serve` alone, without the other commands, and returns its exit code."""
    alone = typer.Typer(
        pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
    )
    alone.command(epilog=EXIT_CODES_HELP)(serve)
    # Nothing of what is loaded is garbage, and to look for some takes a tenth of the time.
    gc.disable()
    return run_command(alone, arguments, "att mcp serve")


def _ready(url: str) -> None:
    sys.stdout.write(f"att: mcp ready at {url}\n")
    sys.stdout.flush()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _require_mcp() -> None:
    if importlib.util.find_spec("mcp") is None:
        raise CommandError(
            "MCP_NOT_INSTALLED",
            f"The bridge is not installed here (mcp missing). Install it with: {INSTALL_MCP}",
        )
    sys.stdout.flush()

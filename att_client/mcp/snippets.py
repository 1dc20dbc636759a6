"""What a client's settings need to say to have the bridge: `att mcp config`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from att_client.mcp.names import NameForm, OptionInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How the client is to reach the bridge.

    command: what it starts, and talks to on pipes. env: variables for that.
    url: where a bridge serves over HTTP, instead; the token is named and never written.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A part of a client's settings.

    place: where it goes. note: what else there is to know.
    """

    place: str
    text: str
    note: str = ""


def snippet(client: str, wanted: Wanted) -> Snippet:
    """The settings for a client of that name. Raises OptionInvalid."""
    render = CLIENTS.get(client)
    if render is None:
        raise OptionInvalid(f"{client!r} is none of: {', '.join(CLIENTS)}.")
    return render(wanted)


def _claude_code(wanted: Wanted) -> Snippet:
    server = _json_server(wanted, "${ATT_TOKEN}", http_type="http")
    return Snippet(
        place=".mcp.json in the project's directory",
        text=_json({"mcpServers": {"att": server}}),
        note="Needs Claude Code 2.1.330 or newer; older ones only reach it over HTTP.",
    )


def _claude_desktop(wanted: Wanted) -> Snippet:
    if wanted.url:
        raise OptionInvalid(
            "Claude Desktop starts the bridge itself, and reaches none on loopback. Leave out "
            "--http."
        )
    return Snippet(
        place="claude_desktop_config.json (Settings, Developer, Edit Config)",
        text=_json({"mcpServers": {"att": _json_server(_underscored(wanted), "")}}),
        note="It takes no dots in the names of tools, hence --tool-names.",
    )


def _codex(wanted: Wanted) -> Snippet:
    if wanted.url:
        lines = [f"url = {_toml(wanted.url)}", 'bearer_token_env_var = "ATT_TOKEN"']
    else:
        command, *arguments = wanted.command
        lines = [f"command = {_toml(command)}", f"args = {_toml(arguments)}"]
        if wanted.env:
            pairs = ", ".join(f"{name} = {_toml(value)}" for name, value in wanted.env.items())
            lines.append(f"env = {{ {pairs} }}")
    # Without it the first turn may begin before the tools are known.
    lines += ["required = true", "tool_timeout_sec = 60"]
    return Snippet(
        place="~/.codex/config.toml", text="\n".join(["[mcp_servers.att]", *lines]) + "\n"
    )


def _cursor(wanted: Wanted) -> Snippet:
    server = _json_server(_underscored(wanted), "${env:ATT_TOKEN}")
    return Snippet(
        place=".cursor/mcp.json in the project's directory, or ~/.cursor/mcp.json",
        text=_json({"mcpServers": {"att": server}}),
        note=_underscore_note(wanted),
    )


def _vscode(wanted: Wanted) -> Snippet:
    settings: dict[str, object] = {
        "servers": {"att": _json_server(wanted, "${input:att-token}", "stdio", "http")}
    }
    if wanted.url:
        prompt = {"type": "promptString", "id": "att-token", "password": True}
        settings["inputs"] = [{**prompt, "description": "Token of ATT"}]
    return Snippet(place=".vscode/mcp.json in the project's directory", text=_json(settings))


def _nat(wanted: Wanted) -> Snippet:
    if wanted.url:
        server = [
            "transport: streamable-http",
            f"url: {json.dumps(wanted.url)}",
            "custom_headers:",
            '  Authorization: "Bearer ${ATT_TOKEN}"',
        ]
    else:
        command, *arguments = _underscored(wanted).command
        server = [
            "transport: stdio",
            f"command: {json.dumps(command)}",
            f"args: {json.dumps(arguments)}",
            f"env: {json.dumps(dict(wanted.env))}",
        ]
    lines = ["function_groups:", "  att:", "    _type: mcp_client", "    server:"]
    return Snippet(
        place="the workflow's configuration",
        text="\n".join([*lines, *(f"      {line}" for line in server)]) + "\n",
        note="Its functions are named such as att__att_runtime_logs. " + _underscore_note(wanted),
    )


CLIENTS: Mapping[str, Callable[[Wanted], Snippet]] = {
    "claude-code": _claude_code,
    "claude-desktop": _claude_desktop,
    "codex": _codex,
    "cursor": _cursor,
    "vscode": _vscode,
    "nat": _nat,
}
"""Names of clients, as `att mcp config` takes them."""


def _underscored(wanted: Wanted) -> Wanted:
    """The same, with names of tools that hold no dots."""
    return replace(wanted, command=[*wanted.command, "--tool-names", NameForm.UNDERSCORE.value])


def _underscore_note(wanted: Wanted) -> str:
    if not wanted.url:
        return "It takes no dots in the names of tools, hence --tool-names."
    return "Start the bridge with --tool-names underscore: it takes no dots in their names."


def _json_server(
    wanted: Wanted, token: str, pipe_type: str = "", http_type: str = ""
) -> dict[str, object]:
    if wanted.url:
        kind: dict[str, object] = {"type": http_type} if http_type else {}
        return kind | {"url": wanted.url, "headers": {"Authorization": f"Bearer {token}"}}
    command, *arguments = wanted.command
    server: dict[str, object] = {"type": pipe_type} if pipe_type else {}
    server |= {"command": command, "args": arguments}
    return server | ({"env": dict(wanted.env)} if wanted.env else {})


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _toml(value: object) -> str:
    # Strings and lists of strings are written alike, but for what JSON need not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

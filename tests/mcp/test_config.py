"""`att mcp config`: settings that clients can read, and that start the bridge."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from att_client.mcp.names import OptionInvalid
from att_client.mcp.snippets import CLIENTS, Wanted, snippet
from tests.cli.att import att as run_att
from tests.cli.att import environment, python
from tests.server_process import PATIENCE, ServerProcess

WITHOUT_DOTS = {"claude-desktop", "cursor", "nat"}


COMMAND = ("bin/att", "mcp", "serve", "--project", "web")
PIPES = Wanted(command=COMMAND, env={"ATT_TARGET": "unix:/run/att.sock"})
HTTP = Wanted(command=(), env={}, url="http://127.0.0.1:8765/mcp")


def servers(client: str, text: str) -> Any:
    """What the settings say of the bridge."""
    if client == "codex":
        return tomllib.loads(text)["mcp_servers"]["att"]
    if client == "nat":
        # The lines hold JSON, which is YAML.
        lines = [line.strip().partition(": ") for line in text.splitlines()[4:]]
        return {name: json.loads(value) for name, _, value in lines if name != "transport"}
    settings = json.loads(text)
    return settings["servers" if client == "vscode" else "mcpServers"]["att"]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_settings_start_the_bridge(client: str) -> None:
    server = servers(client, snippet(client, PIPES).text)
    words = [server["command"], *server["args"]]
    assert tuple(words[:5]) == COMMAND
    assert words[5:] == (["--tool-names", "underscore"] if client in WITHOUT_DOTS else [])
    assert server["env"] == PIPES.env


@pytest.mark.parametrize("client", sorted(CLIENTS.keys() - {"claude-desktop"}))
def test_the_settings_lead_to_a_bridge_over_http_and_name_the_token(client: str) -> None:
    text = snippet(client, HTTP).text
    assert HTTP.url in text
    assert "ATT_TOKEN" in text or client == "vscode"


def test_there_are_no_settings_for_what_does_not_work() -> None:
    with pytest.raises(OptionInvalid, match="claude-code"):
        snippet("nonsense", PIPES)
    with pytest.raises(OptionInvalid, match="--http"):
        snippet("claude-desktop", HTTP)
    printed = run_att("mcp", "config", "nonsense", "--json")
    assert printed.code == 2
    assert printed.error["reason"] == "USAGE"


def test_what_the_settings_say_answers_and_holds_no_token(server: ServerProcess) -> None:
    env = {"ATT_TOKEN": "att_secret", "ATT_STATE_DIR": "here"}
    printed = run_att("mcp", "config", "claude-code", "--read-only", target=server.target, env=env)
    assert "att_secret" not in printed.stdout.decode() + printed.stderr
    entry = servers("claude-code", printed.stdout.decode())
    assert entry["env"] == {
        "ATT_TARGET": server.target,
        "ATT_STATE_DIR": str(Path("here").absolute()),
    }
    opening: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    params = {"protocolVersion": "2025-06-18", "capabilities": {}}
    opening["params"] = params | {"clientInfo": {"name": "test", "version": "1"}}
    answered = subprocess.run(
        [entry["command"], *entry["args"]],
        env=environment("", entry["env"]),
        input=b"\xff\xfe no JSON\n[]\n" + json.dumps(opening).encode() + b"\n",
        capture_output=True,
        timeout=PATIENCE,
    )
    answers = {answer.get("id"): answer for answer in map(json.loads, answered.stdout.splitlines())}
    result = answers[1]["result"]
    assert result["serverInfo"]["name"] == "att"
    assert result["protocolVersion"] == "2025-06-18"


def test_without_the_extra_it_says_how_to_get_it() -> None:
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'mcp' else found(name, *a)\n"
        "sys.argv = ['att', 'mcp', 'serve']\n"
        "import att_client.cli as cli\n"
        "cli.main()\n"
    )
    ended = subprocess.run([*python(code)], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 1
    assert 'pip install "att-control[mcp]"' in ended.stderr

"""What `att` says about itself, and what it says to wrong arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.att import Here, att

COMMANDS = [
    *("serve", "shutdown", "demo", "doctor", "project", "start", "stop", "restart"),
    *("status", "log", "logs", "events", "cycle", "release", "rollback", "mcp"),
]


def test_help_names_every_command_and_the_exit_codes() -> None:
    ended = att("--help")
    text = ended.stdout.decode()
    assert ended.code == 0
    assert all(f" {command} " in text for command in COMMANDS)
    assert "3 the server is not reachable" in " ".join(text.replace("│", " ").split())


GROUPS = ("project", "log", "cycle", "release", "mcp")


@pytest.mark.parametrize(
    "command", [*(c for c in COMMANDS if c != "serve"), "project create", "cycle run"]
)
def test_every_command_has_help_with_json_and_exit_codes(command: str, att_here: Here) -> None:
    ended = att_here(*command.split(), "--help")
    text = ended.stdout.decode()
    assert ended.code == 0
    assert command in GROUPS or "--json" in text
    assert "Exit codes" in text


def test_no_arguments_show_the_help_as_wrong_usage() -> None:
    ended = att()
    assert ended.code == 2
    assert b"Usage" in ended.stdout + ended.stderr.encode()


def test_the_version_is_that_of_the_distribution() -> None:
    ended = att("--version")
    assert ended.code == 0
    assert ended.stdout.startswith(b"att ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["logs"],
        ["logs", "web", "--tail", "-1"],
        ["logs", "web", "--tail", "1", "--cursor", "2"],
        ["logs", "web", "--since", "yesterday-ish"],
        ["start", "web", "--wait", "forever"],
        ["start", "web", "--timeout", "soon"],
        ["project", "create", "web", "--command", "'open"],
        ["project", "create", "web", "--env", "NOVALUE"],
        ["project", "update", "web"],
        ["cycle", "run", "web"],
        ["cycle", "show", "web", "--step", "nonsense"],
        ["status", "--target", "tcp:nowhere"],
        ["status", "--nonsense"],
    ],
)
def test_wrong_arguments_exit_with_2_and_one_line(arguments: list[str], att_here: Here) -> None:
    ended = att_here(*arguments)
    assert ended.code == 2
    assert ended.stdout == b""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    as_json = att_here(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.error["reason"] in ("USAGE", "CONFIG_INVALID")


def test_a_colour_is_for_terminals_only() -> None:
    assert b"\x1b" not in att("--help").stdout
    assert "\x1b" not in att("nonsense").stderr


def test_the_command_uses_only_public_names_of_the_client() -> None:
    code = (
        "import ast, pathlib, att_client, att_client.cli as cli\n"
        "public = set(att_client.__all__)\n"
        "for path in pathlib.Path(cli.__file__).parent.glob('*.py'):\n"
        "    for node in ast.walk(ast.parse(path.read_text())):\n"
        "        if isinstance(node, ast.ImportFrom) and node.module.startswith('att_'):\n"
        "            own = ('att_client.cli', 'att_client.mcp')\n"
        "            assert node.module.startswith(own), (path, node.module)\n"
        "        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):\n"
        "            if node.value.id == 'att_client' and not node.attr.startswith('__'):\n"
        "                assert node.attr in public, (path, node.attr)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell: str) -> None:
    ended = att("--show-completion", shell)
    assert ended.code == 0
    assert b"_ATT_COMPLETE" in ended.stdout

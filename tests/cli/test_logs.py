"""`att logs`, on a real server: exact bytes, exact JSON, and quiet ends."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import att_client
from tests.cli.att import ATT, att, environment, python, running_att
from tests.server_process import PATIENCE, ServerProcess, wait_until

HEAD = 'set -o pipefail; "$@" 2>/dev/null | head -1'

RunApp = Callable[[str, str], None]


@pytest.fixture
def run_app(target: str, tmp_path: Path) -> RunApp:
    """Creates a project, runs Python code in it, and returns when it has ended."""

    def run(project_id: str, code: str) -> None:
        start_app(target, tmp_path, project_id, code)
        asyncio.run(until_exited(target, project_id))

    return run


async def until_exited(target: str, project_id: str) -> None:
    async with asyncio.timeout(PATIENCE), att_client.connect(target) as client:
        while (await client.runtimes.get(project_id)).state is not att_client.RuntimeState.EXITED:
            await asyncio.sleep(0.01)


def start_app(target: str, directory: Path, project_id: str, code: str) -> None:
    command = shlex.join(python(code))
    create = ("project", "create", project_id, "--path", str(directory), "--command", command)
    assert att(*create, target=target).code == 0
    started = att("start", project_id, target=target)
    assert started.code == 0, started.stderr


def test_plain_output_is_exactly_what_the_app_wrote(target: str, run_app: RunApp) -> None:
    form = "b'plain\\n' + bytes(range(256)) + b'\\n' + b'x' * 200_000 + b'\\n\\n\\r\\nno newline'"
    written = eval(form)
    run_app("bytes", f"import os; rest = {form}\nwhile rest: rest = rest[os.write(1, rest):]")
    ended = att("logs", "bytes", target=target)
    assert ended.code == 0
    assert ended.stdout == written
    assert "started" in ended.stderr
    assert "exit code 0" in ended.stderr


def test_json_lines_have_the_documented_form(target: str, run_app: RunApp) -> None:
    run_app(
        "json",
        "import os\n"
        "os.write(1, 'grün \\u2028 \"quoted\"\\n'.encode())\n"
        "os.write(1, b'\\xff\\x00ok\\n')\n"
        "os.write(1, b'y' * 70_000 + b'\\nopen')\n",
    )
    ended = att("logs", "json", "--json", target=target)
    assert ended.code == 0
    assert ended.stderr == ""
    first, *lines, last = ended.items
    assert [o["sequence"] for o in ended.items] == list(range(len(ended.items)))

    assert set(first) == {"sequence", "run"}
    assert isinstance(first["run"], dict)
    assert first["run"]["started"]["command"][0].endswith("python")
    assert isinstance(last["run"], dict)
    assert last["run"]["ended"]["exit_code"] == 0
    assert last["run"]["ended"]["duration"] > 0

    for line in lines:
        assert set(line) - {"line_base64", "partial", "unterminated"} == {
            *("sequence", "time", "stream", "run_id", "line")
        }
        assert line["stream"] == "stdout"
        assert line["run_id"] == first["run"]["run_id"]
        assert str(line["time"]).endswith("Z")
    quoted, binary, cut, rest, unterminated = lines
    assert quoted["line"] == 'grün \u2028 "quoted"'
    assert binary["line"] == "\ufffd\x00ok"
    assert base64.b64decode(str(binary["line_base64"])) == b"\xff\x00ok"
    assert cut["partial"] is True
    assert str(cut["line"]) + str(rest["line"]) == "y" * 70_000
    assert "partial" not in rest
    assert (unterminated["line"], unterminated["unterminated"]) == ("open", True)
    assert all("line_base64" not in line for line in lines if line is not binary)


def test_positions_select_where_to_begin(target: str, run_app: RunApp) -> None:
    run_app("positions", "for n in range(1000): print(n)")
    tail = att("logs", "positions", "--tail", "3", target=target)
    assert tail.stdout == b"997\n998\n999\n"
    at_cursor = att("logs", "positions", "--cursor", "999", target=target)
    assert at_cursor.stdout == b"998\n999\n"
    assert att("logs", "positions", "--since", "1h", target=target).stdout.startswith(b"0\n")
    assert att("logs", "positions", "--since", "2999-01-01", target=target).stdout == b""
    assert att("logs", "positions", "--tail", "0", target=target).stdout == b""


def test_a_cursor_outside_the_log_is_refused(target: str, run_app: RunApp) -> None:
    run_app("outside", "print(1)")
    ahead = att("logs", "outside", "--cursor", "1000", "--json", target=target)
    assert ahead.code == 1
    assert ahead.error["reason"] == "LOG_CURSOR_AHEAD"
    assert isinstance(ahead.error["metadata"], dict)
    assert ahead.error["metadata"]["end_cursor"] == "3"
    negative = att("logs", "outside", "--cursor", "-1", "--json", target=target)
    assert negative.code in (1, 2)
    assert negative.error["reason"] in ("FIELD_INVALID", "USAGE")


def test_a_long_log_is_printed_whole(target: str, run_app: RunApp) -> None:
    run_app("long", "print('\\n'.join(f'{n:>9}' for n in range(300_000)))")
    ended = att("logs", "long", target=target)
    assert ended.stdout.splitlines() == [b"%9d" % n for n in range(300_000)]


def test_an_open_line_is_closed_only_where_something_else_follows(
    target: str, run_app: RunApp
) -> None:
    run_app("open", "import os; os.write(1, b'one')")
    assert att("start", "open", target=target).code == 0
    asyncio.run(until_exited(target, "open"))
    assert att("logs", "open", target=target).stdout == b"one\none"


def test_a_reader_that_leaves_ends_it_quietly(target: str, run_app: RunApp) -> None:
    run_app("left", "print('\\n'.join(map(str, range(100_000))))")
    for options in ([], ["--json"], ["-f"]):
        ended = subprocess.run(
            ["bash", "-c", HEAD, "-", *ATT, "logs", "left", *options],
            env=environment(target),
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        assert ended.stdout.count(b"\n") == 1
        assert ended.stderr == b""


def test_ctrl_c_ends_a_follow_with_130(target: str, run_app: RunApp) -> None:
    run_app("interrupted", "print('first')")
    with running_att("logs", "interrupted", "-f", target=target) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert b"Traceback" not in process.stderr.read()


def test_a_follow_until_exit_waits_for_a_project_that_never_ran(
    target: str, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    code = (
        f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)\nprint('hi')"
    )
    command = ("--path", str(tmp_path), "--command", shlex.join(python(code)))
    assert att("project", "create", "patient", *command, target=target).code == 0
    with running_att("logs", "patient", "--until-exit", "--json", target=target) as process:
        assert process.stdout is not None
        assert att("start", "patient", target=target).code == 0
        assert "started" in json.loads(process.stdout.readline())["run"]
        seen.touch()
        assert json.loads(process.stdout.readline())["line"] == "hi"
        assert "ended" in json.loads(process.stdout.readline())["run"]
        assert process.stdout.read() == b""
        assert process.wait(PATIENCE) == 0


def test_a_follow_survives_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("f")
    go_on = directory / "go-on"
    code = (
        "import os, sys, time\n"
        "for n in range(1000): print(n)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        "for n in range(1000, 2000): print(n)\n"
    )
    with ServerProcess(directory / "s") as server:
        start_app(server.target, directory, "survivor", code)
        with running_att(
            *("logs", "survivor", "--until-exit", "--json"), target=server.target
        ) as process:
            assert process.stdout is not None
            lines: list[bytes] = []
            while not lines or json.loads(lines[-1]).get("line") != "999":
                lines.append(process.stdout.readline())
            server.kill()
            go_on.touch()
            wait_until(lambda: bool(server.supervisor_states()), "a state of the supervisor")
            server.start()
            lines += process.stdout.readlines()
            assert process.wait(PATIENCE) == 0
    objects = [json.loads(line) for line in lines]
    assert [o["sequence"] for o in objects] == list(range(len(objects)))
    assert [o["line"] for o in objects if "line" in o] == [str(n) for n in range(2000)]


SEVERE = r"""
import os
os.write(1, b"printed\nINFO:     up\n")
os.write(2, b"ERROR:root:no\nTraceback (most recent call last):\n  File \"x\"\nKeyError: 1\n")
os.write(2, b"WARNING:root:" + b"x" * 70_000 + b"\n")
"""


def test_each_line_stands_behind_its_severity(target: str, run_app: RunApp) -> None:
    run_app("severe", SEVERE)
    ended = att("logs", "severe", "--severity", target=target)
    assert ended.code == 0
    assert sorted(ended.stdout.decode().splitlines()) == [
        "-        printed",
        'ERROR      File "x"',
        "ERROR    ERROR:root:no",
        "ERROR    KeyError: 1",
        "ERROR    Traceback (most recent call last):",
        "INFO     INFO:     up",
        "WARNING  WARNING:root:" + "x" * 70_000,
    ]
    assert "exit code 0" in ended.stderr
    as_json = att("logs", "severe", "--severity", "--json", target=target)
    found = [(item["severity"], item["line"]) for item in as_json.items if "line" in item]
    assert ("error", "KeyError: 1") in found
    assert ("unspecified", "printed") in found
    assert [severity for severity, _ in found].count("warning") == 2  # in two parts
    assert not any(
        "severity" in item for item in att("logs", "severe", "--json", target=target).items
    )


def test_severities_have_colours_on_a_terminal_only(target: str, run_app: RunApp) -> None:
    run_app("coloured", "import os; os.write(2, b'ERROR:root:no\\nINFO:root:yes\\n')")
    main, other = pty.openpty()
    try:
        for env, error in (({}, b"\x1b[31mERROR    ERROR:root:no\x1b[0m\r\n"), NO_COLOUR):
            process = subprocess.Popen(
                [*ATT, "logs", "coloured", "--severity"],
                env=environment(target, {"NO_COLOR": ""} | env),
                stdout=other,
                stderr=subprocess.DEVNULL,
            )
            assert process.wait(PATIENCE) == 0
            assert os.read(main, 1000) == error + b"INFO     INFO:root:yes\r\n"
    finally:
        os.close(main)
        os.close(other)


NO_COLOUR = ({"NO_COLOR": "1"}, b"ERROR    ERROR:root:no\r\n")

"""Where the output of `att` goes: full disks, closed and shared descriptors, terminals."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess

import pytest

from att_client.cli.terminal import harmless
from tests.cli.att import ATT, att, environment
from tests.cli.test_logs import start_app, until_exited
from tests.server_process import PATIENCE, ServerProcess

LINES = b"".join(b"%06d %s\n" % (n, b"x" * 100) for n in range(20_000))
"""What `web` printed: more than any pipe holds."""
HOSTILE = b"\x1b]0;title\x07 \x1b[31mred\x1b[0m \x1b[2J\tend\r\n"
"""What `evil` printed."""


@pytest.fixture(scope="module")
def logged(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("apps")
    (directory / "web").write_bytes(LINES)
    (directory / "evil").write_bytes(HOSTILE)
    for name in ("web", "evil"):
        print_file = (
            f"import shutil, sys; shutil.copyfileobj(open({name!r}, 'rb'), sys.stdout.buffer)"
        )
        start_app(server.target, directory, name, print_file)
        asyncio.run(until_exited(server.target, name))
    return server.target


def shell(line: str, *arguments: str, target: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash in which "$@" is `att` with `arguments`."""
    return subprocess.run(
        ["bash", "-c", line, "-", *ATT, *arguments],
        env=environment(target),
        capture_output=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs", "web"),
        ("logs", "web", "--json"),
        ("logs", "web", "--timestamps"),
        ("status", "web"),
        ("status", "web", "--json"),
        ("logs", "--help"),
    ],
)
def test_output_that_finds_no_room_is_an_error_in_a_sentence(
    logged: str, arguments: tuple[str, ...]
) -> None:
    ended = shell('"$@" > /dev/full', *arguments, target=logged)
    assert ended.returncode == 1
    assert b"OUTPUT_FAILED" in ended.stderr
    assert b"No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_with_timestamps_runs_and_lines_have_their_times_in_one_form(logged: str) -> None:
    zone = {"TZ": "Asia/Kolkata"}
    ended = att("logs", "evil", "-t", target=logged, env=zone)
    line_time = ended.stdout.split(b" ")[0].decode()
    started, finished = (re.findall(r"\d{4}-[^ ,]*Z", note) for note in ended.stderr.splitlines())
    assert started[0] <= line_time <= finished[0]
    json_form = att("logs", "evil", "--json", target=logged, env=zone).items[0]["run"]
    assert isinstance(json_form, dict)
    assert json_form["time"] == started[0]


def test_streams_that_are_closed_are_nobody(logged: str) -> None:
    ended = shell('"$@" <&- >&- 2>&-', "logs", "web", target=logged)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_notes_that_nobody_can_read_cut_nothing_off(logged: str) -> None:
    full = shell('"$@" 2> /dev/full', "logs", "web", target=logged)
    assert (full.returncode, full.stdout) == (0, LINES)
    gone = shell('"$@" 2> >(exec 0<&-)', "logs", "web", target=logged)
    assert (gone.returncode, gone.stdout) == (0, LINES)


def test_a_pipe_that_another_process_made_non_blocking_gets_all(logged: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        [*ATT, "logs", "web", "--raw"],
        env=environment(logged),
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    with process, open(reader, "rb") as output:
        assert output.read() == LINES
    assert process.returncode == 0


def on_terminal(*arguments: str, target: str) -> bytes:
    """What `att` prints on a terminal, as it arrives there."""
    control, terminal = pty.openpty()
    with subprocess.Popen(
        [*ATT, *arguments],
        env=environment(target),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
    ) as process:
        process.wait(PATIENCE)
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(control, 65_536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    finally:
        os.close(control)
    return shown


def test_an_app_sets_colours_on_a_terminal_and_drives_it_in_no_other_way(logged: str) -> None:
    safe = rb"\x1b]0;title\x07 " + b"\x1b[31mred\x1b[0m " + rb"\x1b[2J" + b"\tend\r\r\n"
    assert on_terminal("logs", "evil", target=logged) == safe
    assert on_terminal("logs", "evil", "-t", target=logged).endswith(b" " + safe)
    assert on_terminal("logs", "evil", "--severity", target=logged).endswith(b" " + safe)
    assert on_terminal("logs", "evil", "--raw", target=logged) == HOSTILE.replace(b"\n", b"\r\n")
    # Programs get the very bytes.
    assert att("logs", "evil", target=logged).stdout == HOSTILE


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"plain \xc3\xa4 \xe2\x94\x80 \xff\tx\n", b"plain \xc3\xa4 \xe2\x94\x80 \xff\tx\n"),
        (b"\x1b[1;38:5:9mx\x1b[m", b"\x1b[1;38:5:9mx\x1b[m"),
        (b"\x1b[5A\x1b[8;1;1tm", rb"\x1b[5A\x1b[8;1;1tm"),
        (b"\xc2\x9b2J \xc2\xa0", rb"\x9b2J " + b"\xc2\xa0"),
        (b"\x08\x7f\x00\x0e", rb"\x08\x7f\x00\x0e"),
        (b"10%\r20%\r\n", b"10%\r20%\r\n"),
    ],
)
def test_only_text_tabs_and_colours_stay(line: bytes, shown: bytes) -> None:
    assert harmless(line, labelled=False) == shown


def test_a_line_does_not_overwrite_what_stands_before_it() -> None:
    assert harmless(b"a\rother | b\r\nc\r", labelled=True) == b"a\\x0dother | b\r\nc\r"

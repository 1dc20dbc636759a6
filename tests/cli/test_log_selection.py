"""`att logs` of several projects, and of some of their lines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

import att_client
from att_client.cli.app import run
from att_client.cli.log_progress import ExportProgress
from att_client.cli.output import Output
from tests.cli.att import ATT, att, environment, python, running_att
from tests.server_process import PATIENCE, ServerProcess

WEB = r"""
import os
os.write(2, b"INFO:root:up\nWARNING:root:a timeout\nERROR:root:refused\nTraceback:\n")
os.write(1, b"out\nopen")
"""
WORKER = r"import os; os.write(1, b'\xff\x1b[31mred\x1b[0m\nERROR:root:refused\n')"


@pytest.fixture(scope="module")
def logged(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The target of a server with the logs of `web`, twice, and then of `worker`."""
    directory = tmp_path_factory.mktemp("apps")

    async def fill() -> None:
        async with asyncio.timeout(PATIENCE), att_client.connect(server.target) as client:
            for name, code, runs in (("web", WEB, 2), ("worker", WORKER, 1)):
                await client.projects.create(name, path=directory, command=[*python(code)])
                for _ in range(runs):
                    await client.runtimes.start(name)
                    async for _ in client.logs.follow(name, until_exit=True):
                        pass

    asyncio.run(fill())
    return server.target


def test_lines_are_picked_out_by_what_they_say(logged: str) -> None:
    options = ("--since", "1h", "--level", "warning", "--grep", "timeout|refused", "--json")
    found = att("logs", "web", *options, target=logged)
    assert found.code == 0
    assert [item["line"] for item in found.items] == [
        "WARNING:root:a timeout",
        "ERROR:root:refused",
    ] * 2
    assert [item["sequence"] for item in found.items[:2]] == [2, 3]
    plain = att("logs", "web", "--level", "ERR", "--tail", "2", target=logged)
    assert plain.stdout == b"ERROR:root:refused\nTraceback:\n"
    assert plain.stderr == ""


def test_a_run_a_stream_and_a_time_are_picked_out(logged: str) -> None:
    last = att("logs", "web", "--run", "last", "--stream", "stdout", target=logged)
    assert last.stdout == b"out\nopen"
    (status,) = att("status", "web", "--json", target=logged).items
    by_id = att("logs", "web", "--run", str(status["run_id"]), "--json", target=logged)
    assert {item.get("run_id") for item in by_id.items if "line" in item} == {status["run_id"]}
    assert len(by_id.items) == 8
    before = att("logs", "web", "--until", "2020-01-01", target=logged)
    assert (before.code, before.stdout) == (0, b"")
    since = att("logs", "web", "--since", "1h", "--tail", "1", "--stream", "stderr", target=logged)
    assert since.stdout == b"Traceback:\n"


def test_several_logs_are_one_behind_their_names(logged: str) -> None:
    every = att("logs", "--all", target=logged)
    assert every.code == 0
    lines = every.stdout.splitlines()
    assert lines[0] == b"web    | INFO:root:up"
    assert lines[5] == b"web    | open"
    assert lines[-2:] == [
        b"worker | \xff\x1b[31mred\x1b[0m",
        b"worker | ERROR:root:refused",
    ]
    assert "worker: run" in every.stderr
    timed = att("logs", "worker", "web", "-t", "--severity", "-g", "refused", target=logged)
    line = rb"(web   |worker) \| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ERROR    ERROR:root:refused"
    assert [bool(re.fullmatch(line, found)) for found in timed.stdout.splitlines()] == [True] * 3
    assert timed.stderr == ""
    as_json = att("logs", "--all", "--stream", "stdout", "--json", target=logged)
    assert [item["project_id"] for item in as_json.items] == ["web"] * 4 + ["worker"] * 2


def test_raw_is_what_the_apps_wrote_and_nothing_else(logged: str) -> None:
    raw = att("logs", "worker", "--raw", target=logged)
    assert raw.stdout == b"\xff\x1b[31mred\x1b[0m\nERROR:root:refused\n"
    assert raw.stderr == ""
    every = att("logs", "--all", "--raw", "--stream", "stdout", target=logged)
    assert every.stdout == b"out\nopen\nout\nopen\n\xff\x1b[31mred\x1b[0m\nERROR:root:refused\n"


def test_names_have_colours_on_a_terminal_unless_unwanted(logged: str) -> None:
    for option, label in (((), b"\x1b[33mworker |\x1b[0m "), (("--no-color",), b"worker | ")):
        main, other = pty.openpty()
        try:
            command = [*ATT, "logs", "web", "worker", "--grep", "red$|0m$", *option]
            process = subprocess.Popen(
                command,
                env=environment(logged, {"NO_COLOR": ""}),
                stdout=other,
                stderr=subprocess.DEVNULL,
            )
            assert process.wait(PATIENCE) == 0
            assert os.read(main, 1000) == label + b"\xff\x1b[31mred\x1b[0m\r\n"
        finally:
            os.close(main)
            os.close(other)


def test_a_follow_of_all_takes_in_a_project_that_is_created_later(
    logged: str, tmp_path: Path
) -> None:
    with running_att("logs", "--all", "-f", "-n", "0", "--json", target=logged) as process:
        assert process.stdout is not None
        # Its own log begins where the others are read on.
        command = ("--command", shlex.join(python("print('hello')")))
        created = att(
            "project", "create", "young", "--path", str(tmp_path), *command, target=logged
        )
        assert created.code == 0
        assert att("start", "young", target=logged).code == 0
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert {item["project_id"] for item in seen} == {"young"}
    assert [item.get("line") for item in seen] == [None, "hello", None]
    assert att("project", "delete", "young", "--yes", target=logged).code == 0


def test_a_follow_ends_with_its_reader_though_nothing_comes(logged: str) -> None:
    script = 'set -o pipefail; "$@" 2>/dev/null | head -1'
    ended = subprocess.run(
        ["bash", "-c", script, "-", *ATT, "logs", "web", "-f", "-n", "2"],
        env=environment(logged),
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == (b"out\n", b"")


def test_an_export_has_its_notes_on_the_terminal(logged: str, tmp_path: Path) -> None:
    main, other = pty.openpty()
    file = tmp_path / "exported"
    try:
        with file.open("wb") as out:
            process = subprocess.Popen(
                [*ATT, "logs", "web"], env=environment(logged), stdout=out, stderr=other
            )
            assert process.wait(PATIENCE) == 0
        notes = os.read(main, 10_000)
    finally:
        os.close(main)
        os.close(other)
    assert file.read_bytes().startswith(b"INFO:root:up\n")
    assert notes.count(b"exit code 0") == 2


def test_a_long_export_shows_how_far_it_came() -> None:
    terminal, now = io.StringIO(), 0.0
    bar = Progress(MofNCompleteColumn(), console=Console(file=terminal, force_terminal=True))
    progress = ExportProgress(Output(as_json=False), bar, clock=lambda: now)

    def printed(project_id: str, first: int, cursor: int, end: int) -> None:
        chunk = att_client.LogChunk(first_sequence=first)
        record = att_client.LogRecord(chunk=chunk)
        batch = att_client.LogBatch(records=[record], cursor=cursor, end_cursor=end)
        progress.printed(project_id, batch)

    printed("web", 100, 150, 300)
    assert terminal.getvalue() == ""
    now = 2.0
    printed("worker", 0, 10, 50)
    progress.note("run ended")
    bar.stop()
    assert "run ended" in terminal.getvalue()
    assert "60/250" in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["web", "--level", "warnng"], "Did you mean warning"),
        (["web", "--stream", "stdin"], "stdout"),
        (["web", "--since", "yesterday"], "10m"),
        (["web", "--until", "1y"], "2026-01-31T12:00:00Z"),
        (["web", "--since", "99999999999999d"], "--since"),
        (["web", "--since", "1m", "--until", "2m"], "Exchange"),
        (["web", "--since", "2026-01-01", "--until", "2026-01-01"], "--until"),
        (["web", "--grep", ""], "pattern"),
        (["web", "--grep", "ü" * 2049], "4,096"),
        (["web", "--run", "first"], "last"),
        (["web", "--cursor", "3", "--tail", "1"], "--cursor"),
        (["web", "--cursor", "3", "--since", "1m"], "--cursor"),
        (["web", "worker", "--cursor", "3"], "one project"),
        (["--all", "--run", "last"], "one project"),
        (["web", "--tail", "-1"], "--tail"),
        (["web", "--tail", "100000001"], "--tail"),
        (["web", "--cursor", "-1"], "--cursor"),
        (["web", "--cursor", "9223372036854775808"], "--cursor"),
        (["web", "--raw", "--json"], "--raw"),
        (["web", "--raw", "-t"], "--raw"),
        (["web", "--all"], "--all"),
        ([], "--all"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage_that_says_what_to_type(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["logs", *arguments]) == 2
    assert named in capsys.readouterr().err


def test_a_pattern_that_is_none_is_wrong_usage(logged: str) -> None:
    ended = att("logs", "web", "--grep", "(", "--json", target=logged)
    assert ended.code == 2
    assert ended.error["reason"] == "USAGE"
    assert "--grep '('" in str(ended.error["message"])
    long = att("logs", "--all", "--grep", "(" * 4096, target=logged)
    assert long.code == 2
    assert len(long.stderr) < 1000


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_a_run_that_never_was_is_an_error_that_names_those_that_were(
    logged: str, follow: list[str]
) -> None:
    newest = att("status", "web", "--json", target=logged).item["run_id"]
    ended = att("logs", "web", "--run", "0" * 26, *follow, "--json", target=logged)
    assert ended.code == 1
    assert ended.stdout == b""
    assert ended.error["reason"] == "RUN_NOT_FOUND"
    assert str(newest) in str(ended.error["message"])
    # What it says to do next shows the runs.
    assert str(newest) in att("events", "web", target=logged).stdout.decode()


def test_a_log_is_described_and_trimmed(logged: str) -> None:
    (info,) = att("log", "info", "web", "--json", target=logged).items
    assert (info["start_cursor"], info["end_cursor"], info["segment_count"]) == (0, 16, 1)
    assert "0 to 16" in att("log", "info", "web", target=logged).stdout.decode()
    # The segment that is written never goes.
    for before in ("5", "0s", "2020-01-01"):
        trimmed = att("log", "trim", "web", "--before", before, "--json", target=logged)
        assert trimmed.item == {"project_id": "web", "start_cursor": 0}


def test_a_place_to_trim_at_that_is_none_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for before in ("last week", "-3"):
        assert run(["log", "trim", "web", "--before", before]) == 2
        assert "2026-01-31T12:00:00Z" in capsys.readouterr().err

"""`att start`, `stop`, `restart`, `status` and `events`, on a real server."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.att import att, python, running_att
from tests.server_process import PATIENCE

Create = Callable[[str, str], str]


@pytest.fixture
def create(target: str, tmp_path: Path) -> Create:
    """Creates a project that runs Python code and returns its id."""

    def make(project_id: str, code: str) -> str:
        command = shlex.join(python(code))
        ended = att(
            *("project", "create", project_id, "--path", str(tmp_path), "--command", command),
            target=target,
        )
        assert ended.code == 0, ended.stderr
        return project_id

    return make


def test_an_app_is_started_restarted_and_stopped(target: str, create: Create) -> None:
    project = create("sleeper", "import time; time.sleep(600)")
    first = att("start", project, "--wait", "ready", "--json", target=target)
    assert first.code == 0, first.stderr
    assert first.item["state"] == "ready"
    again = att("start", project, "--json", target=target)
    assert again.item["run_id"] == first.item["run_id"]
    status = att("status", project, "--json", target=target)
    assert status.item["pid"] == first.item["pid"]
    assert b"ready" in att("status", target=target).stdout
    assert att("status", project, target=target).code == 0

    second = att("restart", project, "--grace", "1s", "--json", target=target)
    assert second.code == 0, second.stderr
    assert second.item["run_id"] != first.item["run_id"]
    stopped = att("stop", project, "--grace", "0", "--json", target=target)
    assert stopped.item["state"] == "stopped"
    assert att("stop", project, target=target).code == 0
    states = {r["project_id"]: r["state"] for r in att("status", "--json", target=target).items}
    assert states[project] == "stopped"


def test_a_command_that_does_not_exist_fails_with_its_reason(target: str, tmp_path: Path) -> None:
    att(
        *("project", "create", "absent", "--path", str(tmp_path)),
        *("--command", "no-such-program-anywhere"),
        target=target,
    )
    ended = att("start", "absent", "--json", target=target)
    assert ended.code == 1
    assert ended.error["reason"] == "COMMAND_NOT_FOUND"


def test_a_failed_start_shows_what_the_app_printed_line_by_line(
    target: str, tmp_path: Path
) -> None:
    att(
        *("project", "create", "breaks", "--path", str(tmp_path), "--command"),
        shlex.join(python("print('one\\x1b[31m'); print('two'); raise SystemExit(3)")),
        *("--ready-http", "http://127.0.0.1:9/health"),
        target=target,
    )
    ended = att("start", "breaks", "--wait", "ready", target=target)
    assert ended.code == 1
    first, *lines = ended.stderr.splitlines()
    assert first.startswith("error: ")
    assert first.endswith("(RUNTIME_START_FAILED)")
    assert lines == ["  one\\x1b[31m", "  two"]


def test_an_app_that_is_not_ready_in_time_fails_and_runs_on(target: str, tmp_path: Path) -> None:
    att(
        *("project", "create", "late", "--path", str(tmp_path), "--command"),
        shlex.join(python("import time; time.sleep(600)")),
        *("--ready-http", "http://127.0.0.1:9/health"),
        target=target,
    )
    ended = att("start", "late", "--wait", "ready", "--timeout", "300ms", "--json", target=target)
    assert ended.code == 1
    assert ended.error["reason"] == "RUNTIME_NOT_READY"
    assert att("status", "late", "--json", target=target).item["state"] == "running"
    assert att("stop", "late", "--grace", "0", target=target).code == 0


def test_events_tell_what_was_done(target: str, create: Create) -> None:
    project = create("told", "pass")
    att("start", project, target=target)
    ended = att("events", project, "--json", target=target)
    assert ended.code == 0, ended.stderr
    types = [event["event_type"] for event in ended.items]
    assert types[0] == "project.created"
    assert len(types) > 1
    last = att("events", project, "--tail", "1", "--json", target=target)
    assert last.items[0]["project_id"] == project
    assert len(last.items) == 1
    from_first = att(
        *("events", project, "--json", "--cursor", str(ended.items[0]["sequence"])),
        target=target,
    )
    assert from_first.items[: len(types)] == ended.items
    assert b"project.created" in att("events", target=target).stdout


def test_events_are_followed_until_the_reader_leaves(target: str, create: Create) -> None:
    project = create("watched", "pass")
    process = running_att("events", project, "-f", "--json", target=target)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event_type"] == "project.created"
        att("start", project, target=target)
        assert json.loads(process.stdout.readline())["project_id"] == project
        process.send_signal(2)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_stopping_needs_no_terminal(target: str, create: Create) -> None:
    project = create("quiet", "import time; time.sleep(600)")
    att("start", project, target=target)
    ended = att("stop", project, "--grace", "0", target=target)
    assert ended.stderr == ""
    assert ended.stdout.startswith(b"quiet is stopped")

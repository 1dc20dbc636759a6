"""`att project`, on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.att import att
from tests.server_process import ServerProcess


def test_a_project_lives_from_create_to_delete(target: str, tmp_path: Path) -> None:
    created = att(
        *("project", "create", "life", "--path", str(tmp_path), "--json"),
        *("--command", 'python3 -c "print(1, 2)"', "--env", "A=b=c", "--stop-grace", "2s"),
        *("--ready-http", "http://127.0.0.1:9/health"),
        target=target,
    )
    assert created.code == 0, created.stderr
    assert created.item["project_id"] == "life"
    assert created.item["path"] == str(tmp_path)
    runtime = created.item["runtime"]
    assert isinstance(runtime, dict)
    assert runtime["command"] == ["python3", "-c", "print(1, 2)"]
    assert runtime["env"] == {"A": "b=c"}
    assert runtime["stop_grace"] == 2.0
    assert runtime["readiness"]["http"] == {"url": "http://127.0.0.1:9/health"}

    listed = att("projects", "list", "--json", target=target)
    assert "life" in [project["project_id"] for project in listed.items]
    table = att("project", "list", target=target).stdout.decode()
    assert str(tmp_path) in table

    updated = att("project", "update", "life", "--env", "D=e", "--json", target=target)
    runtime = updated.item["runtime"]
    assert isinstance(runtime, dict)
    assert runtime["env"] == {"A": "b=c", "D": "e"}
    assert runtime["command"] == ["python3", "-c", "print(1, 2)"]
    assert att("project", "show", "life", "--json", target=target).items == updated.items
    assert b"python3 -c 'print(1, 2)'" in att("project", "show", "life", target=target).stdout

    deleted = att("project", "delete", "life", "--json", target=target)
    assert deleted.item == {"project_id": "life", "deleted": True}
    gone = att("project", "show", "life", "--json", target=target)
    assert gone.code == 1
    assert gone.error["reason"] == "PROJECT_NOT_FOUND"
    assert gone.error["metadata"] == {"project_id": "life"}


def test_every_option_is_a_setting(target: str, tmp_path: Path) -> None:
    created = att(
        *("project", "create", "options", "--path", str(tmp_path), "--json"),
        *("--command", "true", "--env-file", ".env", "--restart", "on-failure:5"),
        *("--ready-tcp", "8000", "--ready-interval", "250ms", "--ready-timeout", "1s"),
        *("--ready-threshold", "2", "--ready-deadline", "1m"),
        *("--live-command", "curl -f 'a b'", "--live-interval", "10s", "--live-threshold", "4"),
        *("--memory", "512m", "--open-files", "1024", "--processes", "64", "--cpu-time", "1h"),
        target=target,
    )
    assert created.code == 0, created.stderr
    runtime = created.item["runtime"]
    assert isinstance(runtime, dict)
    assert runtime["env_file"] == ".env"
    assert runtime["restart"]["condition"] == "on_failure"
    assert runtime["restart"]["max_restarts"] == 5
    assert runtime["readiness"] == {
        "tcp": {"host": "127.0.0.1", "port": 8000},
        "interval": 0.25,
        "timeout": 1.0,
        "threshold": 2,
        "deadline": 60.0,
    }
    assert runtime["liveness"] == {
        "command": {"command": ["curl", "-f", "a b"]},
        "interval": 10.0,
        "timeout": 2.0,
        "threshold": 4,
    }
    assert runtime["limits"] == {
        "memory_bytes": 512 << 20,
        "open_files": 1024,
        "processes": 64,
        "cpu_time": 3600.0,
    }
    shown = att("project", "show", "options", target=target).stdout.decode()
    for text in (
        *(".env", "connect 127.0.0.1:8000, every 0.25 s, 2 in a row, within 1 min 0 s"),
        *("curl -f 'a b', every 10.0 s, 4 in a row", "on failure, after 1.0 s to 1 min 0 s"),
        *("at most 5 times within 10 min 0 s", "memory 512 MiB, 1024 open files, 64 processes"),
        "10.0 s",
    ):
        assert text in shown


def test_an_update_keeps_what_is_not_given_and_takes_back_what_is_named(
    target: str, tmp_path: Path
) -> None:
    create = ("project", "create", "update", "--path", str(tmp_path), "--command", "true")
    assert att(*create, "--env", "A=1", "--env", "B=2", "--memory", "1g", target=target).code == 0

    def update(*options: str) -> dict[str, Any]:
        ended = att("project", "update", "update", *options, "--json", target=target)
        assert ended.code == 0, ended.stderr
        runtime = ended.item["runtime"]
        assert isinstance(runtime, dict)
        return runtime

    runtime = update("--ready-log", "listening", "--ready-interval", "5s", "--processes", "8")
    assert runtime["readiness"]["log"] == {"pattern": "listening"}
    assert runtime["limits"] == {"memory_bytes": 1 << 30, "processes": 8}
    runtime = update("--ready-grpc", "unix:app.sock", "--live-http", "http://localhost/")
    assert runtime["readiness"]["grpc"] == {"target": "unix:app.sock", "service": ""}
    assert "log" not in runtime["readiness"]
    assert runtime["readiness"]["interval"] == 5.0
    assert runtime["liveness"]["threshold"] == 3
    runtime = update("--ready-deadline", "90s")
    assert runtime["readiness"]["deadline"] == 90.0
    runtime = update("--unset", "env.A", "--unset", "readiness", "--unset", "limits")
    assert runtime["env"] == {"B": "2"}
    assert not runtime.keys() & {"readiness", "limits"}
    assert runtime["command"] == ["true"]
    assert update("--unset", "env", "--env", "C=3")["env"] == {"C": "3"}


def test_settings_of_att_toml_are_shown_as_a_start_would_use_them(
    target: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PASSWORD=hunter2\n")
    (tmp_path / "att.toml").write_text(
        "[runtime]\ncommand = ['true']\nenv_file = '.env'\n[runtime.liveness]\ntcp = 8000\n"
    )
    create = ("project", "create", "toml", "--path", str(tmp_path))
    created = att(*create, "--restart", "always", "--json", target=target)
    effective = created.item["effective_runtime"]
    assert isinstance(effective, dict)
    assert effective["restart"]["condition"] == "always"
    assert effective["env_file"] == ".env"
    assert effective["liveness"]["threshold"] == 3
    assert effective["stop_grace"] == 10.0
    shown = att("project", "show", "toml", target=target).stdout.decode()
    assert "connect 127.0.0.1:8000" in shown
    assert "hunter2" not in shown
    assert b"hunter2" not in created.stdout

    (tmp_path / "att.toml").write_text("[runtime]\ncomand = []\n")
    shown = att("project", "show", "toml", target=target).stdout.decode()
    assert "is 'command' meant?" in " ".join(shown.split())


@pytest.mark.parametrize(
    "options",
    [
        ("--memory", "512MX"),
        ("--open-files", "many"),
        ("--processes", "99999999999999999999"),
        ("--live-threshold", "99999999999", "--live-tcp", "1"),
        ("--unset", "colour"),
        ("--live-log", "x"),
    ],
)
def test_an_option_that_makes_no_sense_is_wrong_usage(options: tuple[str, ...]) -> None:
    # Found before a server is needed.
    ended = att("project", "update", "web", *options, target="unix:/nowhere/att.sock")
    assert ended.code == 2, ended.stderr
    assert ended.stderr


def test_a_setting_that_the_server_refuses_names_its_field(target: str, tmp_path: Path) -> None:
    ended = att(
        *("project", "create", "refused", "--path", str(tmp_path), "--json"),
        *("--ready-http", "http://example.com/", "--memory", "1k", "--restart", "always:99999"),
        target=target,
    )
    assert ended.code == 1
    assert ended.error["reason"] == "FIELD_INVALID"
    message = str(ended.error["message"])
    for field in ("readiness.http.url", "limits.memory_bytes", "restart.max_restarts"):
        assert f"runtime.{field}" in message


def test_the_same_project_again_is_done_and_another_is_refused(target: str, tmp_path: Path) -> None:
    create = ("project", "create", "twice", "--path", str(tmp_path), "--json", "--command")
    assert att(*create, "true", target=target).code == 0
    assert att(*create, "true", target=target).code == 0
    other = att(*create, "false", target=target)
    assert other.code == 1
    assert other.error["reason"] == "PROJECT_SPEC_CONFLICT"


def test_a_relative_path_means_the_directory_of_the_caller(target: str) -> None:
    created = att("project", "create", "relative", "--path", ".", "--json", target=target)
    assert created.item["path"] == str(Path.cwd())


def test_an_error_is_one_line_with_its_reason(target: str) -> None:
    ended = att("project", "show", "nobody", target=target)
    assert ended.code == 1
    assert ended.stdout == b""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("(PROJECT_NOT_FOUND)\n")
    assert ended.stderr.count("\n") == 1


def test_a_bad_id_names_the_field(target: str, tmp_path: Path) -> None:
    ended = att("project", "create", "Bad_Id", "--path", str(tmp_path), "--json", target=target)
    assert ended.code == 1
    assert ended.error["reason"] == "FIELD_INVALID"


@pytest.mark.parametrize(
    "arguments",
    [
        ("project", "create", "raw", "--path", "/\udcff"),
        ("project", "show", "\udcff"),
        ("logs", "\udcff"),
        ("start", "\udcff"),
    ],
    ids=["a path", "a project", "a log", "a start"],
)
def test_bytes_that_are_no_text_are_wrong_usage(target: str, arguments: tuple[str, ...]) -> None:
    ended = att(*arguments, "--json", target=target)
    assert ended.code == 2
    assert ended.error["reason"] == "USAGE"
    assert "is not UTF-8" in str(ended.error["message"])


def test_the_target_option_wins_over_the_environment(server: ServerProcess) -> None:
    ended = att("project", "list", "--target", server.target, target="unix:/nowhere/att.sock")
    assert ended.code == 0


def test_without_a_server_it_exits_with_3_and_says_what_to_do(tmp_path: Path) -> None:
    nowhere = f"unix:{tmp_path}/att.sock"
    for command in (["project", "list"], ["logs", "web", "-f"], ["shutdown"]):
        ended = att(*command, "--json", target=nowhere)
        assert ended.code == 3
        assert "att serve" in str(ended.error["message"])
        assert isinstance(ended.error["metadata"], dict)
        assert ended.error["metadata"]["target"] == nowhere


def test_a_template_makes_a_directory_named_after_the_project(target: str, tmp_path: Path) -> None:
    for _ in range(2):
        created = att(
            *("project", "create", "from-nat", "--template", "nat", "--json"),
            target=target,
            cwd=tmp_path,
        )
        assert created.code == 0, created.stderr
        assert created.item["path"] == str(tmp_path / "from-nat")
    effective = created.item["effective_runtime"]
    assert isinstance(effective, dict)
    assert effective["command"][:2] == [".venv/bin/nat", "serve"]
    told = att(*("project", "create", "from-nat", "--template", "nat"), target=target, cwd=tmp_path)
    assert "README.md" in told.stderr
    started = att("start", "from-nat", "--json", target=target)
    assert started.error["reason"] == "COMMAND_NOT_FOUND"


def test_a_directory_that_holds_something_is_not_filled(target: str, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    refused = att(
        *("project", "create", "full", "--template", "nat", "--path", str(tmp_path), "--json"),
        target=target,
    )
    assert refused.code == 1
    assert refused.error["reason"] == "PROJECT_PATH_INVALID"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert att("project", "show", "full", target=target).code == 1


def test_an_unknown_template_is_answered_with_those_that_there_are(
    target: str, tmp_path: Path
) -> None:
    refused = att(
        *("project", "create", "what", "--template", "rails", "--json"), target=target, cwd=tmp_path
    )
    assert refused.error["reason"] == "FIELD_INVALID"
    assert "must be one of: nat" in str(refused.error["message"])
    assert list(tmp_path.iterdir()) == []

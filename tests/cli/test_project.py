"""`att project`, on a real server."""

from __future__ import annotations

from pathlib import Path

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

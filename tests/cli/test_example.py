"""The example app and the repository that is made from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import att_client
from tests.cli.att import att

NAMED = "test_app.AppTest"
MAKE = (sys.executable, "-m", "att_client.example.repository")


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", directory, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_repository_is_clean_pushed_and_its_own_tests_pass(tmp_path: Path) -> None:
    directory = tmp_path / "app"
    subprocess.run([*MAKE, directory], check=True, capture_output=True)
    remote = tmp_path / "app.git"
    assert git(directory, "status", "--porcelain", "--branch") == "## main...origin/main"
    assert git(remote, "rev-parse", "HEAD") == git(directory, "rev-parse", "HEAD")
    assert git(remote, "rev-parse", "--is-bare-repository") == "true"
    tests = subprocess.run(
        [sys.executable, "-m", "unittest"], cwd=directory, capture_output=True, text=True
    )
    assert tests.returncode == 0, tests.stderr
    assert "OK" in tests.stderr
    assert git(directory, "status", "--porcelain") == ""


def test_an_existing_directory_is_not_touched(tmp_path: Path) -> None:
    ended = subprocess.run([*MAKE, tmp_path], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_call_without_a_directory_shows_the_usage() -> None:
    ended = subprocess.run(MAKE, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: ")


def test_its_settings_are_ones_that_the_server_takes(target: str) -> None:
    example = Path(att_client.__file__).parent / "example"
    created = att("project", "create", "example", "--path", str(example), "--json", target=target)
    assert created.code == 0, created.stderr
    assert "settings_error" not in created.item or created.item["settings_error"] == ""
    effective = created.item["effective_runtime"]
    assert isinstance(effective, dict)
    assert effective["command"][1] == "app.py"
    assert effective["readiness"]["http"]["url"].endswith("/health")


def test_a_change_can_pass_its_tests_and_be_unhealthy_when_it_runs(tmp_path: Path) -> None:
    directory = tmp_path / "app"
    subprocess.run([*MAKE, directory], check=True, capture_output=True)
    app = directory / "app.py"
    changed = app.read_text().replace('KNOWLEDGE = ""', 'KNOWLEDGE = "facts.json"')
    assert changed != app.read_text()
    app.write_text(changed)
    healthy = (
        sys.executable,
        "-m",
        "unittest",
        f"{NAMED}.test_it_is_healthy_and_tells_its_version",
    )
    for data, code in ((None, 0), (tmp_path, 1)):
        env = {**os.environ, **({"ATT_DATA_DIR": str(data)} if data else {})}
        tests = subprocess.run(healthy, cwd=directory, env=env, capture_output=True, text=True)
        assert tests.returncode == code, tests.stderr
    assert "503" in tests.stderr
    (tmp_path / "facts.json").touch()
    assert subprocess.run(healthy, cwd=directory, env=env, capture_output=True).returncode == 0

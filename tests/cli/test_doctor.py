"""`att doctor`: each check ok, warn or fail, with what to do."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from att_client.cli.checks import Verdict
from att_client.cli.doctor_state import state_checks
from tests.cli.att import ATT, Ended, att
from tests.server_process import PATIENCE, ServerProcess

CHECKS = {
    *("python", "packages", "server packages", "sqlite", "kernel", "git", "node"),
    *("state directory", "filesystem", "log storage", "free space", "free inodes"),
    *("socket path", "server lock", "supervisors", "clock", "server"),
    *("pipe size", "pipe quota", "open files", "processes", "control groups", "out of memory"),
}


def finding(name: str, *arguments: str) -> dict[str, object]:
    """What one check found."""
    (found,) = (item for item in att("doctor", "--json", *arguments).items if item["name"] == name)
    return found


def verdicts(ended: Ended) -> dict[object, object]:
    return {check["name"]: check["verdict"] for check in ended.items}


def test_a_good_host_passes_with_a_server(target: str) -> None:
    state_dir = str(Path(target.removeprefix("unix:")).parent)
    ended = att("doctor", "--state-dir", state_dir, "--json", target=target)
    assert ended.code == 0, ended.stderr
    found = verdicts(ended)
    assert set(found) == CHECKS
    assert found["server"] == "ok"
    for name in ("state directory", "server lock", "supervisors", "clock", "log storage"):
        assert found[name] == "ok", name
    assert all(check["advice"] for check in ended.items if check["verdict"] != "ok")
    assert b"state directory" in att("doctor", target=target).stdout


def test_the_directory_of_the_server_that_answers_is_looked_at(target: str) -> None:
    ended = att("doctor", "--json", target=target)
    (found,) = (check for check in ended.items if check["name"] == "state directory")
    assert str(Path(target.removeprefix("unix:")).parent) in str(found["detail"])


def test_a_start_that_was_refused_is_explained_until_one_is_not(tmp_path: Path) -> None:
    state_dir = tmp_path / "s"
    state_dir.mkdir(mode=0o700)
    where = ("--state-dir", str(state_dir))
    refused = att("serve", *where, "--listen", "0.0.0.0:0", "--allow-root")
    assert refused.code == 2
    found = finding("last start", *where)
    assert found["verdict"] == "fail"
    assert "TLS_REQUIRED" in str(found["detail"])
    assert "--tls-cert" in str(found["detail"])
    with ServerProcess(state_dir):
        assert "last start" not in verdicts(att("doctor", "--json", *where))


def test_a_directory_that_others_may_read_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ended = att("doctor", "--state-dir", str(tmp_path), "--json")
    assert ended.code == 1
    assert verdicts(ended)["state directory"] == "fail"
    assert ended.error["reason"] == "CHECKS_FAILED"


def test_a_path_too_long_for_a_socket_fails(tmp_path: Path) -> None:
    ended = att("doctor", "--state-dir", str(tmp_path / ("x" * 100)), "--json")
    assert ended.code == 1
    assert verdicts(ended)["socket path"] == "fail"


def test_a_missing_server_is_a_warning(tmp_path: Path) -> None:
    env = {"ATT_STATE_DIR": str(tmp_path / "new")}
    ended = att("doctor", "--json", env=env)
    assert ended.code == 0, ended.stderr
    assert verdicts(ended)["server"] == "warn"


def test_a_wrong_setting_fails() -> None:
    ended = att("doctor", "--json", env={"ATT_TIMEOUT": "never"})
    assert ended.code == 1
    assert verdicts(ended)["settings"] == "fail"


def state_of(project: Path, **fields: object) -> None:
    """What a supervisor of `project` wrote last."""
    directory = project / "supervisors" / "01ABC"
    directory.mkdir(parents=True)
    (directory / "state.json").write_text(json.dumps(fields))


def options(directory: Path) -> tuple[str, ...]:
    return ("--state-dir", str(directory), "--target", f"unix:{directory}/att.sock")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "s"
    directory.mkdir(mode=0o700)
    return directory


def test_a_directory_behind_a_link_fails(state_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(state_dir)
    found = finding("state directory", *options(tmp_path / "link"))
    assert found["verdict"] == "fail"
    assert "symbolic link" in str(found["detail"])


def test_logs_behind_a_link_are_a_warning(state_dir: Path, tmp_path: Path) -> None:
    (state_dir / "projects" / "web").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (state_dir / "projects" / "web" / "logs").symlink_to(tmp_path / "elsewhere")
    found = finding("log storage", *options(state_dir))
    assert found["verdict"] == "warn"
    assert "projects/web/logs" in str(found["detail"])


def test_a_server_that_was_killed_leaves_a_socket_that_does_no_harm(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s") as server:
        held = finding("server lock", *options(tmp_path / "s"))
        assert held["detail"] == f"held by process {server.pid}"
        server.kill()
        left = finding("server lock", *options(tmp_path / "s"))
        assert left["verdict"] == "ok"
        assert "socket of one that was killed" in str(left["detail"])


def test_a_server_whose_socket_is_gone_fails(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s") as server:
        (tmp_path / "s" / "att.sock").unlink()
        ended = att("doctor", "--json", *options(tmp_path / "s"))
        assert ended.code == 1
        assert verdicts(ended)["server lock"] == "fail"
        (advice,) = (i["advice"] for i in ended.items if i["name"] == "server lock")
        assert f"kill -TERM {server.pid}" in str(advice)


def test_supervisors_are_counted_by_what_became_of_them(state_dir: Path) -> None:
    projects = state_dir / "projects"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mine = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    me = {"pid": os.getpid(), "boot_id": boot, "start_ticks": int(mine)}
    state_of(projects / "runs", state="running", **me)
    state_of(projects / "waits", state="backoff", **me)
    state_of(projects / "ended", state="exited", **me)
    state_of(projects / "reused", state="ready", **me | {"start_ticks": 1})
    state_of(projects / "rebooted", state="ready", **me | {"boot_id": "another"})
    state_of(projects / "torn")
    found = finding("supervisors", *options(state_dir))
    assert found["verdict"] == "warn"
    assert found["detail"] == "2 run an app, lost: rebooted, reused, unreadable: torn"


def test_a_clock_behind_the_newest_event_is_a_warning(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s"):
        pass
    with closing(sqlite3.connect(tmp_path / "s" / "att.db")) as store, store:
        store.execute("UPDATE event SET time = '2999-01-01 00:00:00.000000'")
    found = finding("clock", *options(tmp_path / "s"))
    assert found["verdict"] == "warn"
    assert "behind the newest record" in str(found["detail"])


def test_a_clock_behind_the_newest_line_is_a_warning(state_dir: Path) -> None:
    logs = state_dir / "projects" / "web" / "logs"
    logs.mkdir(parents=True)
    (logs / "head.json").write_text(json.dumps({"time_ns": 4102444800 * 10**9}))
    assert finding("clock", *options(state_dir))["verdict"] == "warn"


def test_a_clock_that_was_set_since_the_server_started_is_a_warning(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s"):
        lock = tmp_path / "s" / "att.lock"
        form = json.loads(lock.read_text())
        # As if it had started an hour earlier by the clock than by the time since the boot.
        before = datetime.fromisoformat(form["start_time"]) - timedelta(hours=1)
        lock.write_text(json.dumps(form | {"start_time": before.isoformat()}))
        found = finding("clock", *options(tmp_path / "s"))
        assert found["verdict"] == "warn"
        assert re.search("set forward by (1:00:00|0:59:5)", str(found["detail"]))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"[" * 100_000, b'{"pid": "x"}'])
def test_garbage_in_the_state_directory_is_reported_and_no_defect(
    state_dir: Path, content: bytes
) -> None:
    directory = state_dir / "projects" / "web" / "supervisors" / "01ABC"
    directory.mkdir(parents=True)
    (directory / "state.json").write_bytes(content)
    (state_dir / "projects" / "web" / "logs").mkdir()
    (state_dir / "projects" / "web" / "logs" / "head.json").write_bytes(content)
    for name in ("att.lock", "att.db"):
        (state_dir / name).write_bytes(content)
    ended = att("doctor", "--json", *options(state_dir))
    assert ended.code == 0, ended.stderr
    assert set(verdicts(ended)) == CHECKS
    assert verdicts(ended)["supervisors"] == "warn"


@pytest.mark.parametrize(
    ("content", "mode", "verdict"),
    [
        ("[bootstrap]", 0o600, Verdict.OK),
        ("[bootstrap]", 0o640, Verdict.FAIL),
        ("[bootstrap", 0o600, Verdict.FAIL),
    ],
)
def test_the_servers_own_settings_are_to_be_toml_and_its_owners_alone(
    tmp_path: Path, content: str, mode: int, verdict: Verdict
) -> None:
    path = tmp_path / "settings.toml"
    assert "server settings" not in {found.name for found in state_checks(tmp_path)}
    path.write_text(content)
    path.chmod(mode)
    (found,) = (found for found in state_checks(tmp_path) if found.name == "server settings")
    assert found.verdict is verdict


def test_few_open_files_are_a_warning(state_dir: Path) -> None:
    command = f"ulimit -n 256; exec {shlex.join(ATT)} doctor --json --state-dir {state_dir}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, timeout=PATIENCE)
    found = {item["name"]: item for item in map(json.loads, ended.stdout.splitlines())}
    assert found["open files"]["verdict"] == "warn"
    assert "ulimit -n" in found["open files"]["advice"]

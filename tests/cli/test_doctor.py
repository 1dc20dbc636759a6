"""`att doctor`: each check ok, warn or fail, with what to do."""

from __future__ import annotations

from pathlib import Path

from tests.cli.att import Ended, att

CHECKS = {
    *("python", "packages", "server packages", "state directory", "filesystem", "free space"),
    *("socket path", "server", "git", "node", "pipe size", "open files"),
}


def verdicts(ended: Ended) -> dict[object, object]:
    return {check["name"]: check["verdict"] for check in ended.items}


def test_a_good_host_passes_with_a_server(target: str) -> None:
    state_dir = str(Path(target.removeprefix("unix:")).parent)
    ended = att("doctor", "--state-dir", state_dir, "--json", target=target)
    assert ended.code == 0, ended.stderr
    found = verdicts(ended)
    assert set(found) == CHECKS
    assert found["server"] == "ok"
    assert found["state directory"] == "ok"
    assert all(check["advice"] for check in ended.items if check["verdict"] != "ok")
    assert b"state directory" in att("doctor", target=target).stdout


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

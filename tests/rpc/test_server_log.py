"""The server's own log on disk: rotated, private, and no reason to fail."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from att_server.server_log import server_log
from tests.server_process import PATIENCE, ServerProcess

log = logging.getLogger("att_server.test")


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    before = log.level
    log.setLevel(logging.INFO)
    yield
    log.setLevel(before)


def test_a_server_writes_its_log_below_the_state_directory(directory: Path) -> None:
    path = directory / "state" / "log" / "server.log"
    for _ in range(2):
        with ServerProcess(directory / "state") as server:
            assert server.terminate() == 0
    written = path.read_text()
    assert written.count(f"serves on unix:{directory}/state/att.sock") == 2
    assert written.count("ends, as asked by a signal") == 2
    # What it prints is as before, and the same.
    assert (directory / "state.log").read_text() == written
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_server_that_is_refused_does_not_touch_the_log_of_the_one_that_serves(
    directory: Path,
) -> None:
    with ServerProcess(directory / "state"):
        path = directory / "state" / "log" / "server.log"
        before = path.read_bytes()
        command = [sys.executable, "-m", "att_server", "--state-dir", str(directory / "state")]
        assert subprocess.run(command, capture_output=True, timeout=PATIENCE).returncode == 2
        assert path.read_bytes() == before


def test_files_are_renamed_when_they_are_full_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "log" / "server.log"
    with server_log(path, max_bytes=1000, kept=2):
        for number in range(100):
            log.info("entry %d %s", number, "x" * 50)
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert "entry 99" in path.read_text()


def test_what_ends_the_server_is_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    with pytest.raises(ZeroDivisionError), server_log(path):
        raise ZeroDivisionError
    assert "the server failed" in path.read_text()
    assert "ZeroDivisionError" in path.read_text()


def test_nothing_is_written_when_it_is_closed(tmp_path: Path) -> None:
    with server_log(tmp_path / "server.log"):
        log.info("within")
    log.info("behind")
    assert "behind" not in (tmp_path / "server.log").read_text()


def test_a_log_that_cannot_be_made_is_gone_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").touch()
    with server_log(tmp_path / "log" / "server.log"):
        log.info("served all the same")
    assert "no log is kept" in caplog.text
    # A link could lead to a file that is not ours to write.
    (tmp_path / "target").touch()
    (tmp_path / "server.log").symlink_to(tmp_path / "target")
    with server_log(tmp_path / "server.log"):
        log.info("secret")
    assert (tmp_path / "target").read_text() == ""


def test_a_full_disk_costs_the_lines_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").mkdir()
    with server_log(tmp_path / "log" / "server.log", max_bytes=1):
        # Rotation fails, as it would without a free inode.
        (tmp_path / "log" / "server.log").unlink()
        (tmp_path / "log").rmdir()
        log.info("one")
        log.info("two")
    assert capsys.readouterr().err == ""


def test_a_token_that_is_logged_is_masked(tmp_path: Path) -> None:
    token = "att_" + "0" * 26 + "_" + "ab" * 32
    with server_log(tmp_path / "log" / "server.log"):
        logging.getLogger("x").error("got %s", f"{token}_01234567, and {token}")
    written = (tmp_path / "log" / "server.log").read_text()
    assert "got att_***, and att_***" in written
    assert "abab" not in written

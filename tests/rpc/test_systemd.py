"""The server as a service of systemd: the unit that the docs show, and what it is told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from att_server.sd_notify import notify
from tests.server_process import PATIENCE, wait_until

UNIT = Path(__file__).parents[2] / "docs" / "att.service"


def unit() -> ConfigParser:
    parser = ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_lets_apps_outlive_the_server() -> None:
    service = unit()["Service"]
    assert service["KillMode"] == "process"
    assert service["OOMPolicy"] == "continue"
    assert service["Delegate"] == "yes"
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert service["StateDirectoryMode"] == "0700"
    assert service["Environment"] == f"ATT_STATE_DIR=%S/{service['StateDirectory']}"
    assert service["ExecStart"].endswith("/att launch")
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"


def test_every_line_of_the_unit_is_one_that_systemd_knows(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        return  # the test above reads what can be read without it
    text = UNIT.read_text().replace("/usr/local/bin/att", sys.executable)
    here = tmp_path / "att.service"
    here.write_text(text.replace("User=att", "User=root"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=PATIENCE
    )
    # Younger than some systems that it is checked on.
    said = [line for line in checked.stderr.splitlines() if "DelegateSubgroup" not in line]
    assert (checked.returncode, [line for line in said if "att.service" in line]) == (0, [])


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_the_server_serves_and_when_it_ends(
    directory: Path, abstract: bool
) -> None:
    name = f"@att-test-{os.getpid()}" if abstract else str(directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(PATIENCE)
        with subprocess.Popen(
            [sys.executable, "-m", "att_server", "--state-dir", directory / "state"],
            env=os.environ | {"NOTIFY_SOCKET": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            assert manager.recv(100) == b"READY=1"
            wait_until((directory / "state" / "att.sock").exists, "the socket")
            server.send_signal(signal.SIGTERM)
            assert manager.recv(100) == b"STOPPING=1"
            assert server.wait(PATIENCE) == 0


@pytest.mark.parametrize("path", ["", "relative", "/no/such/socket", "@nobody-listens", "\0"])
def test_a_manager_that_does_not_listen_changes_nothing(path: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": path})
    notify("READY=1", {})


def test_a_full_queue_does_not_hold_the_server_up(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        for _ in range(5000):
            notify("READY=1", {"NOTIFY_SOCKET": path})

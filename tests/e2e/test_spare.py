"""The spare of a server under a launcher: it serves where that one is killed, and only then."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.launcher_process import LauncherProcess
from tests.server_process import alive, wait_until


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LauncherProcess]:
    with LauncherProcess(tmp_path / "s") as launcher:
        yield launcher


def spare_of(server: int) -> int:
    """The pid of the server's spare, once it is prepared: last of all it has a zygote."""
    found: list[int] = []

    def there() -> bool:
        for child in psutil.Process(server).children():
            if "--spare" in child.cmdline() and child.children():
                found.append(child.pid)
        return bool(found)

    wait_until(there, "a spare")
    return found[0]


def test_a_spare_serves_where_its_server_is_killed_and_nobody_else_is_there(
    launcher: LauncherProcess,
) -> None:
    server = launcher.served_by(1)
    spare = spare_of(server)
    launcher.kill()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: launcher.holder["pid"] == spare, "the spare holds the directory")
    assert launcher.served_by(1) == spare
    launcher.start()  # it has a server of its own take over
    launcher.served_by(2)
    wait_until(lambda: not alive(spare), "the end of the spare")


def test_the_server_before_or_a_spare_serves_where_the_next_server_is_killed(
    launcher: LauncherProcess,
) -> None:
    first = launcher.served_by(1)
    spare_of(first)
    os.kill(first, signal.SIGKILL)
    second = launcher.served_by(2)
    launcher.kill()  # nobody is started any more
    os.kill(second, signal.SIGKILL)
    wait_until(
        lambda: launcher.holder["pid"] != second and launcher.holder["tenure"] == "serves",
        "one that was prepared serves",
    )
    launcher.start()
    launcher.served_by(3)


def test_a_spare_goes_when_its_server_was_asked_to_end(launcher: LauncherProcess) -> None:
    server = launcher.served_by(1)
    spare = spare_of(server)
    os.kill(server, signal.SIGTERM)
    assert launcher.wait() == 0
    wait_until(lambda: not alive(spare), "the end of the spare")
    assert launcher.holder["tenure"] == "ended"


def test_a_server_has_no_spare_where_none_is_wanted(tmp_path: Path) -> None:
    with LauncherProcess(tmp_path / "s", "--no-spare") as launcher:
        server = launcher.served_by(1)
        os.kill(server, signal.SIGKILL)
        second = launcher.served_by(2)
        assert [c for c in psutil.Process(second).children() if "--spare" in c.cmdline()] == []

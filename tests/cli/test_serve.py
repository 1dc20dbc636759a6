"""`att serve` and `att shutdown`, as processes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.att import att, environment, python, running_att
from tests.server_process import PATIENCE


@pytest.fixture
def state_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-cli-"))
    yield directory / "s"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def served(state_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that `att serve` runs, ready."""
    with running_att("serve", "--state-dir", str(state_dir), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"att: ready on unix:")
        yield process
        if process.poll() is None:
            process.kill()


def test_serve_becomes_the_server(served: subprocess.Popen[bytes], state_dir: Path) -> None:
    target = f"unix:{state_dir}/att.sock"
    ended = att("shutdown", "--json", target=target)
    assert ended.code == 0, ended.stderr
    assert ended.item == {
        "pid": served.pid,
        "state_dir": str(state_dir),
        "stopped_apps": [],
    }
    assert served.wait(PATIENCE) == 0
    assert att("shutdown", target=target).code == 3


def test_shutdown_leaves_apps_running_and_with_apps_stops_them(
    served: subprocess.Popen[bytes], state_dir: Path, tmp_path: Path
) -> None:
    target = f"unix:{state_dir}/att.sock"
    command = shlex.join(python("import time; time.sleep(600)"))
    att(
        *("project", "create", "stays", "--path", str(tmp_path), "--command", command),
        target=target,
    )
    pid = att("start", "stays", "--json", target=target).item["pid"]
    assert isinstance(pid, int)
    assert att("shutdown", target=target).code == 0
    os.kill(pid, 0)

    with running_att("serve", "--state-dir", str(state_dir), stderr=subprocess.DEVNULL) as second:
        assert second.stdout is not None
        second.stdout.readline()
        assert att("status", "stays", "--json", target=target).item["pid"] == pid
        ended = att("shutdown", "--apps", "--json", target=target)
        assert ended.item["stopped_apps"] == ["stays"]
        assert second.wait(PATIENCE) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_serve_passes_wrong_options_to_the_server(state_dir: Path) -> None:
    ended = att("serve", "--state-dir", str(state_dir), "--no-such-option")
    assert ended.code == 2
    assert "--no-such-option" in ended.stderr


def test_serve_without_the_server_says_what_to_install(tmp_path: Path) -> None:
    # An installation without the server: a finder that does not find it.
    code = (
        "import importlib.util as util, runpy, sys\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'att_server' else find(name, *a)\n"
        "sys.argv = ['att', 'serve']\n"
        "runpy.run_module('att_client.cli', run_name='__main__')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(""), capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert 'pip install "att-control[server]"' in ended.stderr
    assert "SERVER_NOT_INSTALLED" in ended.stderr


def test_ctrl_c_ends_the_server_in_good_order(served: subprocess.Popen[bytes]) -> None:
    served.send_signal(signal.SIGINT)
    assert served.wait(PATIENCE) == 0

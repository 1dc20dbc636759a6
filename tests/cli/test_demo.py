"""`att demo`: it proves what it claims, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.att import att, running_att
from tests.server_process import wait_until


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


def processes_of(directory: Path) -> list[int]:
    """The processes that name the directory in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_every_line_is_received_although_the_server_is_killed(temporary: Path) -> None:
    ended = att("demo", env={"TMPDIR": str(temporary)})
    assert ended.code == 0, ended.stderr
    last = ended.stdout.decode().splitlines()[-1]
    found = re.fullmatch(
        r"lines written (\d+), received (\d+), lost 0, doubled 0, hashes equal", last
    )
    assert found
    assert found[1] == found[2]
    assert int(found[1]) > 1000
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


def test_json_tells_the_same(temporary: Path) -> None:
    ended = att("demo", "--json", env={"TMPDIR": str(temporary)})
    assert ended.code == 0, ended.stderr
    *steps, result = ended.items
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert isinstance(result["result"], dict)
    assert result["result"]["ok"] is True
    assert result["result"]["written"] == result["result"]["received"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupted_demo_leaves_nothing_behind(
    temporary: Path, number: signal.Signals, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running_att("demo", "--json", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(step):
            process.stdout.readline()
        process.send_signal(number)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    wait_until(lambda: not processes_of(temporary), "the end of every process")
    assert list(temporary.iterdir()) == []

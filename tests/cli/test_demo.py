"""`att demo`: it proves what it claims, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.att import att, running_att
from tests.server_process import PATIENCE, wait_until


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


def test_nothing_is_lost_and_nothing_is_done_twice(temporary: Path) -> None:
    ended = att("demo", env={"TMPDIR": str(temporary)}, within=4 * PATIENCE)
    assert ended.code == 0, ended.stdout.decode()[-2000:] + ended.stderr
    *_, lines, cycles = ended.stdout.decode().splitlines()
    found = re.fullmatch(
        r"lines written (\d+), received (\d+), lost 0, doubled 0, hashes equal", lines
    )
    assert found
    assert found[1] == found[2]
    assert int(found[1]) > 1000
    assert cycles == (
        "cycles 4: commits 4, merges 4, reverts 1, branches left 0, runs of the app 6: each once"
    )
    told = ended.stdout.decode()
    for words in (
        "ROLLED BACK",
        "rollback_attempts_exhausted",
        "SAFE MODE",
        "PROJECT_IN_SAFE_MODE",
    ):
        assert words in told
    assert list(temporary.iterdir()) == []
    assert processes_of(temporary) == []


LAST_OF_THE_LOG = 7
FIRST_CYCLE, SECOND_CYCLE = 10, 11


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (1, signal.SIGINT),
        (3, signal.SIGTERM),
        (5, signal.SIGINT),
        # Before this step is told, the next cycle is at work.
        (FIRST_CYCLE - 1, signal.SIGINT),
        (SECOND_CYCLE - 1, signal.SIGTERM),
    ],
)
def test_an_interrupted_demo_leaves_nothing_behind(
    temporary: Path, number: signal.Signals, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running_att("demo", "--json", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(step)]
        if step > LAST_OF_THE_LOG:
            # Between the two parts stands what the first one came to.
            told.append(json.loads(process.stdout.readline()))
            check_log(told)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    wait_until(lambda: not processes_of(temporary), "the end of every process")
    assert list(temporary.iterdir()) == []


def check_log(told: list[dict[str, Any]]) -> None:
    """The JSON of the first part says that what was written was received."""
    (log,) = (item["log"] for item in told if "log" in item)
    assert log["ok"] is True
    assert log["written"] == log["received"]
    steps = [item["step"] for item in told if "step" in item]
    assert steps == list(range(1, len(steps) + 1))

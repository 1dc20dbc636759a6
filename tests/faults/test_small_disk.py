"""A disk that is really full, under a whole server and its app."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def test_a_full_disk_costs_counted_lines_and_never_the_app(tmp_path: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this host lets nobody have a file system of their own")
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.faults.small_disk", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    *gaps, ended = said["found"]
    assert ended == ["ended", 0]
    first, *others = gaps
    assert (first[0], first[2]) == (0, "RETENTION")
    assert {gap[2] for gap in others} == {"STORAGE_FULL"}
    # A marker is among the first numbers; of all others each is a line or in a gap.
    assert said["lines"] + first[1] - 1 + sum(gap[1] for gap in others) == 130_010
    assert all(gap[3] == gap[1] > 0 for gap in others)
    assert "log.storage_low" in said["events"]

"""The canary sees what it is to see: a watch that finds nothing says nothing by itself."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import canary

WORD = "canary-of-the-watch"
WHAT = re.compile(WORD.encode())


def test_it_looks_into_what_is_removed_before_the_end(tmp_path: Path) -> None:
    with canary.watching(tmp_path / "kept", WHAT) as found:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "x.log").write_text(f"is {WORD}")
            (Path(name) / "x.token").write_text(WORD)
        directory = Path(tempfile.mkdtemp())
        (directory / "below").mkdir()
        (directory / "below" / "att.db").write_bytes(b"\0\xff" + WORD.encode())
        shutil.rmtree(directory, ignore_errors=True)
    assert [Path(path).name for path in found] == ["x.log", "att.db"]


def test_it_looks_into_what_is_kept_and_what_is_logged(tmp_path: Path) -> None:
    with canary.watching(tmp_path, WHAT) as found:
        (tmp_path / "x").write_text(WORD)
        logging.getLogger("some").error("of %s", WORD)
    assert found == ["the log of some", str(tmp_path / "x")]


def test_it_looks_at_arguments_and_at_the_environments_of_children() -> None:
    waits = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits, WORD],
        stdin=subprocess.PIPE,
        env={**os.environ, "SOME": WORD},
    ) as child:
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        assert canary.in_children(child.pid, WHAT) == [f"arguments of {name} of {child.pid}"]
        below = canary.in_children(os.getpid(), WHAT)
        assert {what.split()[0] for what in below} == {"arguments", "environment"}
        child.communicate()

"""With which revision a release is compared, in every kind of clone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/previous"
SCHEMA = "att_server/adapters/state_schema.py"


class History:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=p", "-c", "user.email=p@localhost")
        return subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.directory, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    def commit(self, path: str) -> str:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text() if file.exists() else ''}x\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", path)
        return self.git("rev-parse", "HEAD")

    def previous(self, **environ: str) -> str:
        told = subprocess.run(
            [SCRIPT], cwd=self.directory, env={**os.environ, **environ},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return told.stdout.strip()


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path)
    made.git("init", "-q", "-b", "main")
    return made


def test_it_is_the_commit_before_the_last_change_of_what_is_shared(history: History) -> None:
    history.commit(SCHEMA)
    before = history.commit("README.md")
    history.commit(SCHEMA)
    history.commit("README.md")
    assert history.previous() == before


def test_a_tag_is_preferred_and_what_is_asked_for_to_both(history: History) -> None:
    history.commit(SCHEMA)
    history.git("tag", "v0.2.0")
    history.commit(SCHEMA)
    assert history.previous() == "v0.2.0"
    assert history.previous(ATT_COMPAT_BASE="main~1") == "main~1"


def test_where_history_does_not_reach_there_is_none(history: History, tmp_path: Path) -> None:
    history.commit("README.md")
    assert history.previous() == ""
    history.commit(SCHEMA)
    shallow = tmp_path / "shallow"
    history.git("clone", "-q", "--depth", "1", f"file://{tmp_path}", str(shallow))
    assert History(shallow).previous() == ""

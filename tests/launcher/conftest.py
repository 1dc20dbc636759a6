"""A launcher on releases that tests make: their servers hold the directory, and serve nothing."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.launcher_process import LauncherProcess
from tests.server_process import wait_until

STUB = Path(__file__).with_name("stub_server.py")


@dataclass
class Stage:
    """A state directory with releases, and its launcher."""

    launcher: LauncherProcess

    @property
    def state_dir(self) -> Path:
        return self.launcher.state_dir

    def release(self, does: str, name: str = "") -> str:
        """Makes a release whose server does that, as `stub_server.py` says; its path."""
        path = f"projects/att/releases/{name or uuid.uuid4().hex}"
        python = self.state_dir / path / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        # As the interpreter of a release is called: the stub in place of the module.
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {STUB} {does} "$@"\n')
        python.chmod(0o755)
        return path

    def wish(self, release: str, **given: Any) -> str:
        """Writes what a server would, and rings; the wish's id."""
        wish = {"format": 1, "id": uuid.uuid4().hex, "release": release, "good": False}
        wish |= {"tries": 2, "ready_within": 20.0, "good_within": 60.0, **given}
        path = self.state_dir / "launcher" / "wish.json"
        path.with_suffix(".new").write_text(json.dumps(wish))
        path.with_suffix(".new").rename(path)
        self.ring()
        return str(wish["id"])

    def ring(self) -> None:
        try:
            bell = os.open(self.state_dir / "launcher" / "bell", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return  # no launcher is there now
        os.write(bell, b"!")
        os.close(bell)

    def comes_to(self, wish: str, outcome: str) -> dict[str, Any]:
        """Waits for the outcome of a wish; the record then."""

        def there() -> bool:
            record = self.launcher.record
            return record.get("wish") == wish and record["outcome"] == outcome

        wait_until(there, f"{outcome}, see {self.launcher.output}")
        return self.launcher.record

    def begun(self, launch: int) -> None:
        """Waits until the server of this launch was started; it may never serve."""
        wait_until(lambda: self.launcher.record.get("launches") == launch, f"launch {launch}")

    def made_good(self, does: str = "serves") -> str:
        """A release that was wished for, serves alone, and was said to be good; its path."""
        wait_until(lambda: self.launcher.holder.get("tenure") == "serves", "a server")
        release = self.release(does)
        wish = self.wish(release)
        self.comes_to(wish, "serving")
        self.wish(release, id=wish, good=True)
        wait_until(lambda: self.launcher.record["good"][0] == release, "it is good")
        wait_until(lambda: len(self.launcher.record["servers"]) == 1, "the one before has left")
        return release


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Its installation is a stub too."""
    state_dir = tmp_path / "s"
    state_dir.mkdir(mode=0o700)
    launcher = LauncherProcess(state_dir)
    stage = Stage(launcher)
    (state_dir / "launcher").mkdir(mode=0o700)
    first = stage.release("serves", "first")
    record = {"good": [first], "current": first}
    (state_dir / "launcher" / "record.json").write_text(json.dumps(record))
    with launcher:
        yield stage

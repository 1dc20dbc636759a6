"""The `att` command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from att_client.cli.app import run
from tests.server_process import PATIENCE

ATT = (sys.executable, "-m", "att_client.cli")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a command left behind."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def items(self) -> list[dict[str, object]]:
        """The JSON lines of stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def item(self) -> dict[str, object]:
        """The one JSON line of stdout."""
        (found,) = self.items
        return found

    @property
    def error(self) -> dict[str, object]:
        """The error that a command with --json left on stderr."""
        error = json.loads(self.stderr)["error"]
        assert isinstance(error, dict)
        return error


def att(
    *arguments: str,
    target: str = "",
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    within: float = PATIENCE,
) -> Ended:
    """Runs `att` to its end, which has to come `within` so many seconds."""
    process = subprocess.run(
        [*ATT, *arguments],
        env=environment(target, env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=within,
    )
    return Ended(code=process.returncode, stdout=process.stdout, stderr=process.stderr.decode())


Here = Callable[..., Ended]
"""Runs `att` in this process."""


def here(capfd: pytest.CaptureFixture[str]) -> Here:
    def run_here(*arguments: str) -> Ended:
        capfd.readouterr()
        code = int(run(arguments))
        out, err = capfd.readouterr()
        return Ended(code=code, stdout=out.encode(), stderr=err)

    return run_here


def running_att(
    *arguments: str, target: str = "", stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Starts `att` and leaves it running."""
    return subprocess.Popen(
        [*ATT, *arguments],
        env=environment(target),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def environment(target: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with `target` as the server."""
    named = {"ATT_TARGET": target} if target else {}
    return os.environ | named | (more or {})


def python(code: str) -> Sequence[str]:
    """The words that run `code`."""
    return (sys.executable, "-c", code)

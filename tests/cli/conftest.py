"""A real server for the tests of the command."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.att import Here, here
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    # Not below pytest's directories: a socket path is short.
    directory = Path(tempfile.mkdtemp(prefix="att-cli-"))
    try:
        with ServerProcess(directory / "s") as process:
            yield process
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def target(server: ServerProcess) -> str:
    return server.target


@pytest.fixture
def att_here(capfd: pytest.CaptureFixture[str]) -> Here:
    """Runs `att` in this process, for what needs none of its own: five times as fast."""
    return here(capfd)

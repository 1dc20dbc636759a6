"""A real server for the tests of the command."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from att_client.cli.app import run
from tests.cli.att import Ended, Here
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

    def run_here(*arguments: str) -> Ended:
        capfd.readouterr()
        code = int(run(arguments))
        out, err = capfd.readouterr()
        return Ended(code=code, stdout=out.encode(), stderr=err)

    return run_here

"""An app whose supervisor is of the release before, probed by this one: it cannot be ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

import att_client
from att_client import RuntimeState
from tests.compat.releases import PREVIOUS, released_server, unpack
from tests.server_process import PATIENCE, ServerProcess

PROBED = """
[runtime]
command = [{python!r}, "-c", "import time; time.sleep(3600)"]
[runtime.readiness]
command = ["test", "-e", "healthy"]
interval = "20ms"
deadline = "100ms"
[runtime.liveness]
command = ["test", "-e", "healthy"]
interval = "20ms"
threshold = 2
"""


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """The server of the release before, which runs, and the one of this."""
    state_dir = tmp_path / "s"
    old = released_server(unpack(PREVIOUS, tmp_path), state_dir)
    new = ServerProcess(state_dir)
    old.start()
    try:
        yield old, new
    finally:
        old.__exit__(None, None, None)
        new.__exit__(None, None, None)


async def test_an_app_under_an_old_supervisor_is_shown_as_unhealthy_and_goes_on(
    upgraded: tuple[ServerProcess, ServerProcess], tmp_path: Path
) -> None:
    old, new = upgraded
    directory = tmp_path / "app"
    directory.mkdir()
    text = PROBED.format(python=sys.executable)
    (directory / "att.toml").write_text(text.partition("[runtime.readiness]")[0])
    async with att_client.connect(old.target) as att:
        await att.projects.create("web", path=str(directory))
        before = await att.runtimes.start("web")
        old.kill()
        (directory / "att.toml").write_text(text)
        await asyncio.to_thread(new.start)
        seen: list[datetime] = []
        async with asyncio.timeout(PATIENCE):
            while len(seen) < 10:
                after = await att.runtimes.get("web")
                if after.health_checked_at is not None and after.health_checked_at not in seen:
                    seen.append(after.health_checked_at)
                await asyncio.sleep(0.005)
        assert (after.run_id, after.state) == (before.run_id, RuntimeState.READY)
        assert (after.healthy, after.health_reason) == (False, "command_exit")
        assert (await att.runtimes.stop("web")).state is RuntimeState.STOPPED
    told = "".join(path.read_text() for path in tmp_path.glob("s/**/*.log"))
    assert told.count("is to be ended (liveness_failed)") == 1

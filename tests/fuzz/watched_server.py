"""`python -m tests.fuzz.watched_server`: the server, which tells how many tasks it has when asked.

It is asked by SIGUSR1 and answers into the file that ATT_TEST_TASKS names; see `Tasks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from att_server.__main__ import main
from tests.server_process import ServerProcess, wait_until

PLACE = "ATT_TEST_TASKS"


class Tasks:
    """How many tasks of asyncio a server has."""

    def __init__(self, place: Path) -> None:
        """place: of a file that is made."""
        self._place = place

    def server(self, state_dir: Path, *options: str) -> ServerProcess:
        """A server that tells it."""
        return ServerProcess(
            state_dir, *options, module=__spec__.name, environ={PLACE: str(self._place)}
        )

    def count(self, server: ServerProcess) -> int:
        """How many there are now."""
        self._place.unlink(missing_ok=True)
        os.kill(server.pid, signal.SIGUSR1)
        wait_until(self._place.exists, "an answer of the server")
        return int(self._place.read_text())


def _tell(*_: object) -> None:
    place = Path(os.environ[PLACE])
    draft = place.with_suffix(".new")
    count = 0
    # Called between two steps of the loop, which is the thread's own.
    with contextlib.suppress(RuntimeError):
        count = len(asyncio.all_tasks())
    draft.write_text(str(count))
    draft.rename(place)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    sys.exit(main())

"""The server is killed while it notifies: nobody who wants to know of a failure goes untold."""

from __future__ import annotations

import json
import sqlite3
import sys
import textwrap
from contextlib import closing, suppress
from pathlib import Path

import att_client
from tests.server_process import PATIENCE, ServerProcess, wait_until

# Notes the event; on the first run kills the server before that can see the success.
TELL = """
import json, os, signal, sys
event = json.loads(sys.stdin.readline())
assert str(event["sequence"]) == os.environ["ATT_EVENT_SEQUENCE"]
first = not os.path.exists("told")
with open("told", "a") as told:
    print(event["sequence"], event["event_type"], event["reason"], file=told)
if first:
    with open(sys.argv[1]) as lock:
        os.kill(json.load(lock)["pid"], signal.SIGKILL)
"""


def noted(database: Path) -> int:
    """The number of the first event that may have to be told yet."""
    with closing(sqlite3.connect(database)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE name = 'notified'").fetchone()
    return 0 if row is None else int(row[0])


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_a_failure_is_told_again_when_the_server_was_killed_before_it_noted_that(
    tmp_path: Path,
) -> None:
    project = tmp_path / "app"
    project.mkdir()
    told = project / "told"
    (project / "tell.py").write_text(TELL)
    command = json.dumps([sys.executable, "tell.py", str(tmp_path / "s" / "att.lock")])
    (project / "att.toml").write_text(
        textwrap.dedent(f"""
            [runtime]
            command = ["./does-not-start"]
            [notify]
            command = {command}
            timeout = "20s"
        """)
    )
    (project / "does-not-start").write_text("#!/no/such/interpreter\\n")
    (project / "does-not-start").chmod(0o700)
    with ServerProcess(tmp_path / "s") as server:
        async with att_client.connect(server.target) as att:
            await att.projects.create("web", path=str(project))
            with suppress(att_client.AttError):
                await att.runtimes.start("web")
        assert server.process is not None
        assert server.process.wait(PATIENCE) == -9
        server.kill()
        assert len(lines(told)) == 1

        server.start()
        wait_until(lambda: len(lines(told)) >= 2, "the second telling")
        first, second = lines(told)
        assert first == second
        assert "runtime.failed" in first

        # It is told once that is noted, and then no later server tells it.
        sequence = int(first.split()[0])
        wait_until(lambda: noted(tmp_path / "s" / "att.db") > sequence, "the note of it")
        assert server.terminate() == 0
        server.start()
        async with att_client.connect(server.target) as att:
            page = await att.events.list(event_types=["notify."])
            assert page.events == []
        assert server.terminate() == 0
        assert len(lines(told)) == 2

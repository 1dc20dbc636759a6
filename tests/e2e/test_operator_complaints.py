"""What users of other supervisors complain about does not happen here, one test each.

Shown elsewhere: children that die with the server or lose their output
(`test_survival`), waits that grow, limits of restarts that count every run, and
stable runs that end the waits (`tests/supervisor/test_restarts`), an app that is left
dead after a failed probe (`test_health`), daemons and stopped processes that outlive
a stop (`tests/supervisor/test_stop`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import LogLine, RunMarker, Runtime, RuntimeState
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

ON_FAILURE = """
[runtime.restart]
condition = "on-failure"
backoff = { initial = "20ms", max = "20ms" }
max_restarts = 3
"""


class Stage:
    """A project `web`, whose app leaves files in its directory."""

    def __init__(self, server: ServerProcess, directory: Path) -> None:
        self.server = server
        self.directory = directory

    @asynccontextmanager
    async def app(self, code: str, settings: str = "") -> AsyncIterator[att_client.Client]:
        """A client of the project, whose app is not started yet."""
        command = json.dumps([sys.executable, "-c", code])
        (self.directory / "att.toml").write_text(f"[runtime]\ncommand = {command}\n{settings}")
        async with att_client.connect(self.server.target) as att:
            await att.projects.create("web", path=self.directory)
            yield att

    def processes(self) -> set[int]:
        """The processes that began in the app's directory, wherever their parents are."""
        found = set()
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.directory) and alive(process.pid):
                    found.add(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def pid_in(self, name: str) -> int:
        """The process id that the app has written to a file, once it is there."""
        path = self.directory / name
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name}")
        return int(path.read_text())


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    directory = tmp_path / "web"
    directory.mkdir()
    with ServerProcess(tmp_path / "s") as server:
        yield Stage(server, directory)


async def until(att: att_client.Client, holds: Callable[[Runtime], bool]) -> Runtime:
    async with asyncio.timeout(PATIENCE):
        async for change in att.runtimes.watch(project_ids=["web"]):
            for runtime in change.runtimes:
                if holds(runtime):
                    return runtime
    raise AssertionError("the watch ended")


CHILD = """
import os, subprocess, sys
def child(name, *command):
    process = subprocess.Popen(command or [sys.executable, "-c", "import time; time.sleep(3600)"])
    with open(name, "w") as file:
        print(process.pid, file=file)
"""


# Follow never ends, or does not find the next run ---------------------------


async def test_a_follow_goes_on_into_the_run_after_a_crash(stage: Stage) -> None:
    code = """
import os, sys
print("run", os.path.exists("crashed"), flush=True)
if not os.path.exists("crashed"):
    open("crashed", "w").close()
    sys.exit(3)
"""
    async with stage.app(code, ON_FAILURE) as att:
        await att.runtimes.start("web")
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            async for line in att.logs.follow("web"):
                lines.append(str(line))
                if len(lines) == 2:
                    break
    assert lines == ["run False", "run True"]


async def test_a_follow_until_the_exit_ends_and_tells_how(stage: Stage) -> None:
    async with stage.app("import sys; print('a'); print('b'); sys.exit(5)") as att:
        await att.runtimes.start("web")
        async with asyncio.timeout(PATIENCE):
            items = [item async for item in att.logs.follow("web", markers=True, until_exit=True)]
    assert [str(item) for item in items if isinstance(item, LogLine)] == ["a", "b"]
    last = items[-1]
    assert isinstance(last, RunMarker)
    assert last.ended is not None
    assert last.ended.exit_code == 5


# Which run is this line from? -----------------------------------------------


async def test_every_line_is_told_from_those_of_other_runs(stage: Stage) -> None:
    code = "import os, sys; print(os.environ['ATT_RUN_ID']); sys.exit(1)"
    async with stage.app(code, ON_FAILURE) as att:
        await att.runtimes.start("web")
        await until(att, lambda runtime: runtime.state is RuntimeState.FAILED)
        page = await att.logs.read("web")
    lines = [item for item in att_client.log_items(page.records) if isinstance(item, LogLine)]
    assert [str(line) for line in lines] == [line.run_id for line in lines]
    assert len({line.run_id for line in lines}) == len(lines) == 4


# Orphans and stops that leave something -------------------------------------


async def test_what_a_crashed_app_left_is_gone_before_it_is_started_again(stage: Stage) -> None:
    code = f"""{CHILD}
if os.path.exists("first"):
    with open("seen", "w") as file:
        print(os.path.exists("/proc/" + open("first").read().strip() + "/exe"), file=file)
    import time; time.sleep(3600)
child("first")
sys.exit(1)
"""
    async with stage.app(code, "stop_grace = '100ms'\n" + ON_FAILURE) as att:
        started = await att.runtimes.start("web")
        again = await until(
            att, lambda r: r.run_id != started.run_id and r.state is RuntimeState.READY
        )
        seen = stage.directory / "seen"
        wait_until(lambda: seen.exists() and bool(seen.read_text()), "the second run")
        assert seen.read_text() == "False\n"
        assert not alive(stage.pid_in("first"))
        assert stage.processes() == {again.pid}
        await att.runtimes.stop("web")
        assert stage.processes() == set()


async def test_a_stop_after_the_main_process_has_ended_takes_its_children(stage: Stage) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    )
    code = f"{CHILD}\nchild('left', sys.executable, '-c', {stubborn!r})"
    async with stage.app(code, "stop_grace = '1h'\n") as att:
        started = await att.runtimes.start("web")
        left = stage.pid_in("left")
        wait_until(lambda: not alive(started.pid), "the end of the main process")
        assert alive(left)
        async with asyncio.timeout(PATIENCE):
            await att.runtimes.stop("web", grace=timedelta(milliseconds=100))
        assert not alive(left)
        assert stage.processes() == set()


async def test_a_tree_is_stopped_whole_by_a_server_that_did_not_start_it(stage: Stage) -> None:
    code = f"{CHILD}\nchild('child')\nimport time; time.sleep(3600)"
    async with stage.app(code) as att:
        started = await att.runtimes.start("web")
        child = stage.pid_in("child")
        stage.server.kill()
        await asyncio.to_thread(stage.server.start)
        assert {started.pid, child} == stage.processes()
        await att.runtimes.stop("web")
        assert stage.processes() == set()


# The server is started again --------------------------------------------------


async def test_servers_that_come_and_go_never_make_a_second_app(stage: Stage) -> None:
    async with stage.app("import time; time.sleep(3600)", ON_FAILURE) as att:
        before = await att.runtimes.start("web")
        for _ in range(3):
            stage.server.kill()
            await asyncio.to_thread(stage.server.start)
            assert (await att.runtimes.start("web")).run_id == before.run_id
            assert stage.processes() == {before.pid}
        os.kill(before.pid, signal.SIGKILL)
        after = await until(
            att, lambda r: r.run_id != before.run_id and r.state is RuntimeState.READY
        )
        assert after.restarts == 1
        assert stage.processes() == {after.pid}


# Restart loops ------------------------------------------------------------------


async def test_an_app_that_takes_too_much_memory_each_time_is_given_up_too(stage: Stage) -> None:
    code = "import time; memory = b'x' * (64 << 20); time.sleep(3600)"
    limits = '[runtime.limits]\nmemory = "32MiB"\n'
    async with stage.app(code, ON_FAILURE.replace("= 3", "= 1") + limits) as att:
        await att.runtimes.start("web")
        given_up = await until(att, lambda runtime: runtime.state is RuntimeState.FAILED)
        assert (given_up.reason, given_up.restarts) == ("crash_loop", 1)
        assert given_up.exit is not None
        assert given_up.exit.reason == "memory_limit"
        assert stage.processes() == set()


async def test_calls_while_it_waits_to_be_started_again_make_one_app(stage: Stage) -> None:
    code = """
import os, sys, time
if not os.path.exists("crashed"):
    open("crashed", "w").close()
    sys.exit(3)
time.sleep(3600)
"""
    async with stage.app(code, ON_FAILURE.replace("20ms", "1h")) as att:
        await att.runtimes.start("web")
        await until(att, lambda runtime: runtime.state is RuntimeState.BACKOFF)
        started = await asyncio.gather(*(att.runtimes.start("web") for _ in range(5)))
        assert len({runtime.run_id for runtime in started}) == 1
        assert stage.processes() == {started[0].pid}
        again = await att.runtimes.restart("web")
        assert stage.processes() == {again.pid}


async def test_an_app_that_was_given_up_can_be_started_and_counts_anew(stage: Stage) -> None:
    async with stage.app("import sys; sys.exit(1)", ON_FAILURE) as att:
        for _ in range(2):
            started = await att.runtimes.start("web")
            assert started.restarts == 0
            given_up = await until(att, lambda runtime: runtime.state is RuntimeState.FAILED)
            assert (given_up.reason, given_up.restarts) == ("crash_loop", 3)
            assert given_up.next_restart_time is None


async def test_a_failed_probe_is_followed_by_another_run_and_not_by_none(stage: Stage) -> None:
    code = """
import os, time
open("runs", "a").write("x")
if len(open("runs").read()) > 1: open("well", "w").close()
time.sleep(3600)
"""
    probe = """
[runtime.liveness]
command = ["test", "-e", "well"]
interval = "20ms"
threshold = 2
deadline = "100ms"
"""
    async with stage.app(code, ON_FAILURE + probe) as att:
        first = await att.runtimes.start("web")
        well = await until(att, lambda runtime: bool(runtime.healthy))
        assert well.run_id != first.run_id
        assert well.restarts >= 1
        # The probe's own process runs there too, now and then.
        wait_until(lambda: stage.processes() == {well.pid}, "one app")

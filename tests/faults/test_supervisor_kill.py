"""A supervisor that is killed takes its app along, and its end is recorded once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RunStatus, RuntimeState
from att_server.supervisor import hunt, processes, settle
from att_server.supervisor.segment import FrameKind
from tests.server_process import PATIENCE
from tests.supervisor.host import Host, Listener, alive, new_host, until, wait_until

PRINTS = """
import os, sys, time
number = 0
while True:
    os.write(1, b"%d\\n" % number)
    number += 1
    if len(sys.argv) > 1:
        time.sleep(float(sys.argv[1]))
"""

DAEMON = """
import os, time
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    with open("daemon", "w") as file:
        file.write(str(os.getpid()))
    os.write(write, b"x")
    time.sleep(600)
os.read(read, 1)
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that has nothing to do with any app."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def driver(host: Host, listener: Listener) -> AsyncIterator[SupervisorDriver]:
    made = await host.opened("app", listener=listener)
    yield made
    await made.aclose()


def over(status: RunStatus) -> bool:
    return not status.state.alive


def counted(output: bytes) -> int:
    """How many lines there are; they are 0, 1, 2 … without a hole or a double."""
    lines = output.split(b"\n")
    whole = lines[:-1]
    assert whole == [b"%d" % number for number in range(len(whole))]
    return len(whole)


async def test_the_tree_goes_with_the_supervisor_and_the_log_says_so_once(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(host.python(PRINTS, "0.001"))
    await until(lambda: counted(host.output()) > 20, "some lines")
    host.kill_supervisor()
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert status.exit is not None
    assert status.exit.supervisor_lost
    assert not alive(started.pid)
    assert [json.loads(end.payload)["supervisor_lost"] for end in host.ends()] == [True]
    assert host.kinds()[-1] == FrameKind.RUN_ENDED
    assert counted(host.output()) > 20


async def test_daemons_of_the_app_go_with_the_supervisor(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.python(DAEMON))
    await until(lambda: host.output() == b"up\n", "the daemon is up")
    daemon = int((host.work / "daemon").read_text())
    host.kill_supervisor()
    await listener.until("app", over)
    assert not alive(daemon)


CHAIN = """
import os, time
os.open("held", os.O_WRONLY)
os.write(1, b"up\\n")
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.fixture
def held(host: Host) -> Iterator[int]:
    """The reading end of a pipe which an app can open, and which ends with all that hold it."""
    path = host.work / "held"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


async def test_what_forks_and_exits_without_end_goes_with_the_supervisor(
    host: Host, driver: SupervisorDriver, listener: Listener, held: int
) -> None:
    await driver.start(host.python(CHAIN, grace=60))
    await until(lambda: host.output() == b"up\n", "the chain is up")
    host.kill_supervisor()
    status = await listener.until("app", over)
    assert status.reason == "supervisor_lost"
    assert os.read(held, 1) == b"", "a link of the chain lives"
    assert len(host.ends()) == 1


async def test_a_run_is_not_over_before_all_of_it_is_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await host.opened("app")
    await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()

    def settle_app() -> None:
        project = str(host.project("app"))
        settle.settle(project, log_id=host.log_id, boot_id=processes.boot_id())

    with monkeypatch.context() as no_time:
        no_time.setattr(settle, "END_WITHIN", 0.0)
        with pytest.raises(settle.StillRunning):
            settle_app()
    assert not host.state().ended
    assert host.ends() == []
    settle_app()
    assert host.state().ended
    assert len(host.ends()) == 1


async def test_a_start_whose_prepared_supervisor_was_killed_has_another(
    host: Host, driver: SupervisorDriver
) -> None:
    async with driver.prepared("app", host.log_id):
        await until(lambda: bool(waiting(driver)), "a supervisor waits")
        for process in waiting(driver):
            processes.send(process, signal.SIGKILL)
        status = await driver.start(host.spec("sleep", "60"))
    assert status.state is RuntimeState.READY
    assert host.kinds() == [FrameKind.RUN_STARTED]


def waiting(driver: SupervisorDriver) -> list[processes.Process]:
    """The supervisors that the driver's zygote has forked."""
    return [
        process
        for process in processes.below(driver.zygote_pid)
        if Path(f"/proc/{process.pid}/comm").read_text() == "att-supervisor\n"
    ]


async def test_a_start_after_a_lost_supervisor_goes_on_in_the_same_log(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    first = await driver.start(host.python(PRINTS, "0.001"))
    await until(lambda: counted(host.output()) > 5, "some lines")
    host.kill_supervisor()
    await listener.until("app", over)
    second = await driver.start(host.spec("sleep", "60"))
    assert second.run_id != first.run_id
    assert [kind for kind in host.kinds() if kind != FrameKind.LINES] == [
        FrameKind.RUN_STARTED,
        FrameKind.RUN_ENDED,
        FrameKind.RUN_STARTED,
    ]


async def test_a_supervisor_that_dies_with_its_server_is_settled_by_the_next_one(
    host: Host,
) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()
    assert alive(started.pid)
    again = host.driver()
    found = await again.adopt({"app": host.log_id}, Listener())
    assert (found["app"].state, found["app"].reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert not alive(started.pid)
    assert len(host.ends()) == 1
    await again.aclose()
    third = host.driver()
    assert (await third.adopt({"app": host.log_id}, Listener())) == found
    assert len(host.ends()) == 1
    await third.aclose()


async def test_a_start_settles_what_nobody_has_looked_at(host: Host) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()
    # A server that knows nothing of the run: its supervisor finds it.
    other = await host.opened("another")
    assert (await other.start(host.spec("sleep", "60"))).state is RuntimeState.READY
    assert not alive(started.pid)
    assert host.kinds() == [FrameKind.RUN_STARTED, FrameKind.RUN_ENDED, FrameKind.RUN_STARTED]
    await other.aclose()


async def test_a_restart_of_the_host_is_told_from_a_lost_supervisor(host: Host) -> None:
    driver = await host.opened("app", boot_id="first")
    await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()
    again = host.driver(boot_id="second")
    found = await again.adopt({"app": host.log_id}, Listener())
    assert (found["app"].state, found["app"].reason) == (RuntimeState.EXITED, "host_restarted")
    ends = host.ends()
    assert len(ends) == 1
    await again.aclose()


async def test_a_pid_that_another_process_has_now_is_left_alone(host: Host, stranger: int) -> None:
    driver = await host.opened("app")
    await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()
    state = host.state()
    assert state.run is not None
    hunt.end_run(state.run.run_id, None, within=PATIENCE)
    # As if the pid of the app had come to a stranger.
    path = host.supervisor() / "state.json"
    form = json.loads(path.read_text())
    form["run"]["pid"] = stranger
    path.write_text(json.dumps(form))
    again = host.driver()
    found = await again.adopt({"app": host.log_id}, Listener())
    assert found["app"].state is RuntimeState.EXITED
    assert alive(stranger)
    await again.aclose()


async def test_an_app_that_says_nothing_of_its_run_is_known_by_its_start(host: Host) -> None:
    driver = await host.opened("app")
    program = "import os; os.execve('/bin/sleep', ['sleep', '600'], {})"
    started = await driver.start(host.python(program))
    await until(lambda: b"sleep" in command_line(started.pid), "the environment is gone")
    await driver.aclose()
    host.kill_supervisor()
    again = await host.opened("app")
    assert not alive(started.pid)
    assert len(host.ends()) == 1
    await again.aclose()


async def test_kills_at_any_moment_leave_no_process_and_one_end_per_run(
    host: Host, kills: int
) -> None:
    driver = await host.opened("app")
    chance = random.Random(7)
    runs = set()
    for _ in range(kills):
        status = await driver.start(host.python(PRINTS, "0.002", grace=1))
        runs.add(status.run_id)
        pid = host.state().pid
        delay = chance.uniform(0, 0.03)
        at = time.monotonic() + delay
        wait_until(lambda at=at: time.monotonic() >= at, "a moment")  # type: ignore[misc]  # bound now
        if chance.random() < 0.5:
            # While it ends the app: between the signal, the marker and the state.
            os.kill(status.pid, signal.SIGKILL)
            at = time.monotonic() + chance.uniform(0, 0.004)
            wait_until(lambda at=at: time.monotonic() >= at, "a moment")  # type: ignore[misc]  # bound now
        process = processes.find(pid)
        if process is not None:
            processes.send(process, signal.SIGKILL)
        await until(lambda: host.state().ended, "settled")
        assert not alive(status.pid)
    await driver.aclose()
    ends = [end.frame.run for end in host.ends()]
    assert len(ends) == len(set(ends)) == len(runs) == kills
    starts = [r for r in host.records() if r.frame.kind == FrameKind.RUN_STARTED]
    assert [start.frame.run for start in starts] == ends


@pytest.mark.parametrize("state", ["starting", "ready"])
async def test_a_supervisor_killed_before_its_start_marker_is_settled(
    host: Host, state: str
) -> None:
    driver = await host.opened("app")
    await driver.start(host.spec("true"))
    await driver.stop("app", None)
    # What is on disk when the run was named, and then when its process was, but
    # there was no marker yet.
    path = host.supervisor() / "state.json"
    form = json.loads(path.read_text())
    run_id = "01J0000000000000000000000A"
    form.update(state=state, marker_sequence=2)
    form["run"].update(run_id=run_id, exit=None)
    if state == "starting":
        form["run"].update(pid=0, start_ticks=0)
    path.write_text(json.dumps(form))
    await driver.aclose()
    again = await host.opened("app")
    assert host.kinds() == [FrameKind.RUN_STARTED, FrameKind.RUN_ENDED] * 2
    assert host.records()[2].frame.run == host.records()[3].frame.run
    await again.aclose()


def command_line(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()

"""Supervisors that are killed, and restart policies: nothing is lost, doubled, or too often."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.adapters.supervisor_spec import spec_of
from att_server.core.model import RunSpec, RunStatus, RuntimeState
from att_server.supervisor import hunt, processes
from att_server.supervisor.state import MAX_PAST
from tests.server_process import PATIENCE
from tests.supervisor.host import Host, Listener, alive, new_host, policy, until, wait_until

HOUR = 3600.0


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that has nothing to do with any app."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


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


def in_backoff(status: RunStatus) -> bool:
    return status.state is RuntimeState.BACKOFF


async def test_a_supervisor_killed_in_backoff_leaves_an_end_and_nothing_twice(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("sh", "-c", "exit 3", restart=policy(factor=1e7))
    await driver.start(spec)
    waits = await listener.until("app", lambda s: in_backoff(s) and s.restarts == 1)
    host.kill_supervisor()
    lost = await listener.until("app", over)
    assert (lost.state, lost.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert (lost.run_id, lost.exit, lost.past) == (waits.run_id, waits.exit, waits.past)
    assert len(host.runs()) == len(host.ends()) == 2
    again = await driver.start(spec, after_loss=True)
    assert (again.state, again.reason) == (RuntimeState.BACKOFF, "supervisor_lost")
    assert again.supervisor_id != lost.supervisor_id
    assert (again.run_id, again.exit, again.past) == (lost.run_id, lost.exit, lost.past)
    assert again.restarts == 1
    assert again.next_restart_time is not None
    assert (host.state().attempt, len(host.state().restart_times)) == (1, 1)
    await until(lambda: len(host.states()) == 1, "the lost supervisor's state is removed")
    stopped = await driver.stop("app", None)
    assert stopped is not None
    assert (stopped.state, stopped.run_id) == (RuntimeState.STOPPED, lost.run_id)


async def test_a_run_lost_with_its_supervisor_counts_as_a_failure(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("sleep", "60", restart=policy(wait=0.01))
    first = await driver.start(spec)
    host.kill_supervisor()
    await listener.until("app", over)
    assert not alive(first.pid)
    waits = await driver.start(spec, after_loss=True)
    # It may have been started again before the call was answered.
    assert waits.run_id == first.run_id or waits.restarts == 1
    runs = await listener.until("app", lambda s: s.state is RuntimeState.READY)
    assert (runs.restarts, [run.run_id for run in runs.past]) == (1, [first.run_id])
    assert runs.past[0].exit.supervisor_lost
    assert host.runs() == [first.run_id, runs.run_id]


async def test_supervisors_killed_again_and_again_end_in_a_crash_loop(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("sleep", "60", restart=policy(wait=0.01, max_restarts=3))
    status = await driver.start(spec)
    runs = [status.run_id]
    for _ in range(3):
        host.kill_supervisor()
        await listener.until("app", over)
        await driver.start(spec, after_loss=True)
        status = await listener.until("app", lambda s: s.state is RuntimeState.READY)
        runs.append(status.run_id)
    host.kill_supervisor()
    await listener.until("app", over)
    last = await driver.start(spec, after_loss=True)
    assert (last.state, last.reason, last.restarts) == (RuntimeState.FAILED, "crash_loop", 3)
    assert last.run_id == runs[-1]
    assert [run.run_id for run in last.past] == runs[:-1]
    assert host.runs() == runs
    assert len(host.ends()) == 4
    # A call asks for it: everything begins anew.
    started = await driver.start(spec)
    assert (started.state, started.restarts) == (RuntimeState.READY, 0)


async def test_a_loss_where_nothing_is_restarted_is_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("sleep", "60"))
    host.kill_supervisor()
    lost = await listener.until("app", over)
    status = await driver.start(host.spec("sleep", "60"), after_loss=True)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert status.run_id == lost.run_id
    assert len(host.runs()) == 1


async def test_a_supervisor_killed_while_it_stops_its_app_is_settled(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = "trap '' TERM; echo up; while :; do sleep 1; done"
    started = await driver.start(host.spec("sh", "-c", program, restart=policy(), grace=60))
    await until(lambda: host.output() == b"up\n", "the app is up")
    with host.connect() as wire:
        wire.sendall(b'{"id": 1, "epoch": 1, "command": "stop"}\n')
        await listener.until("app", lambda s: s.state is RuntimeState.STOPPING)
        host.kill_supervisor()
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert not alive(started.pid)
    assert len(host.ends()) == 1
    assert await driver.stop("app", None) == status


# What is on disk where a supervisor was killed between two writes -------------


def left(host: Host, **changes: object) -> None:
    """As if the supervisor had been killed before it wrote its last state."""
    path = host.supervisor() / "state.json"
    form = json.loads(path.read_text())
    form["run"].update(changes.pop("run", {}))
    form.update(changes)
    path.write_text(json.dumps(form))


async def adopted(host: Host, **options: object) -> RunStatus:
    driver = host.driver(**options)
    found = await driver.adopt({"app": host.log_id}, Listener())
    await driver.aclose()
    return found["app"]


@pytest.mark.parametrize(
    ("condition", "code", "asked", "state", "reason"),
    [
        ("never", 3, False, RuntimeState.EXITED, ""),
        ("on-failure", 0, False, RuntimeState.EXITED, ""),
        # It would have been started again, so it is for the server to do so.
        ("on-failure", 3, False, RuntimeState.EXITED, "supervisor_lost"),
        ("always", 0, False, RuntimeState.EXITED, "supervisor_lost"),
        ("always", 0, True, RuntimeState.STOPPED, ""),
    ],
)
async def test_killed_between_the_end_marker_and_the_state(
    condition: str, code: int, asked: bool, state: RuntimeState, reason: str, host: Host
) -> None:
    driver = await host.opened("app")
    await driver.start(host.spec("sh", "-c", f"exit {code}", restart=policy(condition, wait=HOUR)))
    await until(lambda: host.ends(), "the end")
    await driver.stop("app", None)
    await driver.aclose()
    left(host, state="stopping" if asked else "ready", reason="", run={"exit": None})
    status = await adopted(host)
    assert (status.state, status.reason) == (state, reason)
    assert status.exit is not None
    assert status.exit.exit_code == code
    assert len(host.ends()) == 1


async def test_killed_between_the_end_marker_and_the_next_start_marker(host: Host) -> None:
    driver = await host.opened("app")
    first = await driver.start(host.spec("false", restart=policy(wait=HOUR)))
    await until(lambda: host.state().state == "backoff", "the wait")
    await driver.stop("app", None)
    await driver.aclose()
    run_id = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"
    past = host.state().form()["run"]
    left(
        host,
        state="starting",
        restarts=1,
        past=[past],
        marker_sequence=2,
        run={"run_id": run_id, "pid": 0, "start_ticks": 0, "exit": None},
    )
    status = await adopted(host)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert [run.run_id for run in status.past] == [first.run_id]
    assert host.runs() == [first.run_id, run_id]
    assert len(host.ends()) == 2
    assert await adopted(host) == status


async def test_a_host_that_restarts_in_backoff_says_so(host: Host) -> None:
    driver = await host.opened("app", boot_id="first")
    await driver.start(host.spec("false", restart=policy(wait=HOUR)))
    await until(lambda: host.state().state == "backoff", "the wait")
    await driver.aclose()
    host.kill_supervisor()
    status = await adopted(host, boot_id="second")
    assert (status.state, status.reason) == (RuntimeState.EXITED, "host_restarted")
    assert not status.this_boot
    assert len(host.ends()) == 1


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\0" * 4096, b"[]", b"{}", b'{"state": 1}', b"[" * 9999]
)
@pytest.mark.parametrize("spec_too", [False, True])
async def test_a_state_that_cannot_be_read_is_made_anew_from_the_log(
    data: bytes, spec_too: bool, host: Host
) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60", restart=policy()))
    await driver.aclose()
    host.kill_supervisor()
    (host.supervisor() / "state.json").write_bytes(data)
    if spec_too:
        (host.supervisor() / "spec.json").write_bytes(data)
    status = await adopted(host)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert status.run_id == started.run_id
    assert not alive(started.pid)
    assert host.runs() == [started.run_id]
    assert len(host.ends()) == 1
    assert await adopted(host) == status


async def test_a_live_supervisor_is_found_though_its_state_cannot_be_read(host: Host) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    (host.supervisor() / "state.json").write_bytes(b"garbage")
    again = host.driver()
    found = await again.adopt({"app": host.log_id}, Listener())
    assert found["app"] == started
    stopped = await again.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED
    await again.aclose()


async def test_a_specification_that_cannot_be_read_starts_nothing(
    host: Host,
) -> None:
    # A supervisor that is started from it says so, and the project stays free.
    driver = await host.opened("app")
    await driver.start(host.spec("true"))
    await driver.stop("app", None)
    ours, theirs = socket.socketpair()
    (host.supervisor() / "spec.json").write_bytes(b'{"supervisor_id": 1')
    job = {
        "job": "run",
        "directory": str(host.supervisor()),
        "log_id": host.log_id,
        "boot_id": processes.boot_id(),
    }
    with ours, theirs:
        await driver._zygote.submit(job, theirs)
        ours.sendall(b'{"secrets": {}}\n')
        ours.settimeout(PATIENCE)
        answer = json.loads(ours.makefile().readline())
    assert answer["refused"] == "failed"
    assert (await driver.start(host.spec("sleep", "60"))).state is RuntimeState.READY
    await driver.aclose()


async def test_a_run_that_could_not_be_saved_is_found_and_ended_as_well(host: Host) -> None:
    listener = Listener()
    driver = await host.opened("app", listener=listener)
    flag = host.work / "flag"
    fails = f"echo up; until test -e {flag}; do sleep 0.01; done; exit 1"
    program = f"test -e {flag} && exec sleep 60; {fails}"
    first = await driver.start(host.spec("sh", "-c", program, restart=policy()))
    await until(lambda: host.output() == b"up\n", "the first run has looked for the flag")
    # No state can be written from here on.
    (host.supervisor() / "state.json.new").mkdir()
    flag.touch()
    unsaved = await listener.until("app", lambda s: s.restarts == 1 and s.exit is None)
    assert host.state().run is not None
    assert host.state().form()["run"]["run_id"] == first.run_id  # type: ignore[index]  # JSON
    await driver.aclose()
    supervisor = host.state().pid
    host.kill_supervisor()
    assert not alive(supervisor)
    assert alive(unsaved.pid)
    (host.supervisor() / "state.json.new").rmdir()
    status = await adopted(host)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert status.run_id == unsaved.run_id
    assert [run.run_id for run in status.past] == [first.run_id]
    assert status.past[0].exit.exit_code == 1
    assert not alive(unsaved.pid)
    assert host.runs() == [first.run_id, unsaved.run_id]
    assert len(host.ends()) == 2
    assert await adopted(host) == status


async def test_a_run_that_left_no_trace_but_its_processes_is_ended(host: Host) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    host.kill_supervisor()
    left(host, run={"run_id": "01J0000000000000000000000A", "pid": 0, "start_ticks": 0})
    for path in (host.project("app") / "logs").iterdir():
        path.unlink()
    await adopted(host)
    assert not alive(started.pid)


async def test_a_state_that_could_not_be_saved_is_saved_later(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("sleep", "60", probed=True))
    obstacle = host.supervisor() / "state.json.new"
    obstacle.mkdir()
    run = host.state().run
    assert run is not None
    await driver.set_ready("app", run.run_id)
    await listener.until("app", lambda s: s.state is RuntimeState.READY)
    assert host.state().state == "running"
    obstacle.rmdir()
    await until(lambda: host.state().state == "ready", "it is saved")


# Kills at any moment -----------------------------------------------------------


async def test_kills_at_any_moment_of_a_loop_lose_and_double_nothing(
    host: Host, driver: SupervisorDriver, listener: Listener, kills: int
) -> None:
    chance = random.Random(11)
    again = policy("always", wait=0.002, max_restarts=100_000)
    spec = host.spec("sh", "-c", "echo $ATT_RUN_ID", restart=again)
    await driver.start(spec)
    seen: list[str] = []
    for _ in range(kills):
        pid = host.state().pid
        at = time.monotonic() + chance.uniform(0, 0.05)
        await until(lambda at=at: time.monotonic() >= at, "a moment")  # type: ignore[misc]  # bound now
        process = processes.find(pid)
        assert process is not None
        processes.send(process, signal.SIGKILL)
        lost = await listener.until("app", lambda s: over(s) and s.reason == "supervisor_lost")
        known = [*(run.run_id for run in lost.past), lost.run_id]
        runs = host.runs()
        assert known == runs[-len(known) :]
        assert len(known) == min(len(runs), MAX_PAST + 1)
        assert len(host.ends()) == len(runs)
        assert lost.restarts == len(runs) - 1
        assert runs[: len(seen)] == seen
        seen = runs
        status = await driver.start(spec, after_loss=True)
        assert in_backoff(status) or status.run_id not in seen
    await driver.stop("app", None)
    assert len(host.runs()) == len(host.ends())


ALONE = """
import fcntl, os, sys, time
lock = os.open("alone", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.write(1, b"not alone\\n")
    time.sleep(600)
os.write(1, b"up\\n")
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


async def test_whatever_is_asked_and_killed_there_is_one_app_and_one_history(
    host: Host, kills: int
) -> None:
    chance = random.Random(3)
    listener = Listener()
    driver = await host.opened("app", listener=listener)
    for _ in range(6 * kills):
        known = listener.statuses["app"][-1] if "app" in listener.statuses else None
        what = chance.choice(
            ["start", "start", "stop", "now", "fail", "app", "supervisor", "server", "zygote"]
        )
        if what == "start" and (known is None or not known.state.alive):
            program = [str(chance.choice([0.001, 0.02, 600])), str(chance.choice([0, 1]))]
            again = policy(chance.choice(["never", "on-failure", "always"]), max_restarts=50)
            spec = host.python(ALONE, *program, restart=again, grace=1)
            lost = known is not None and known.reason == "supervisor_lost"
            await driver.start(spec, after_loss=lost)
        elif what == "stop":
            status = await driver.stop("app", chance.choice([None, timedelta(0)]))
            assert status is None or not status.state.alive
        elif what == "now":
            await driver.start_now("app")
        elif what == "fail" and known is not None:
            await driver.fail("app", known.run_id, "liveness_failed")
        elif what == "app" and known is not None:
            hunt.end_run(known.run_id, None, within=20)
        elif what == "supervisor" and known is not None:
            process = processes.find(host.state().pid)
            if process is not None and process.ticks == host.state().start_ticks:
                processes.send(process, signal.SIGKILL)
        elif what == "zygote" and driver.zygote_pid:
            os.kill(driver.zygote_pid, signal.SIGKILL)
        elif what == "server":
            await driver.aclose()
            driver = host.driver()
            for status in (await driver.adopt({"app": host.log_id}, listener)).values():
                listener.run_changed("app", status)
    last = await driver.stop("app", timedelta(0))
    await driver.aclose()
    assert last is not None
    assert not last.state.alive
    assert b"not alone" not in host.output()
    runs = host.runs()
    assert len(runs) == len(host.ends())
    assert [*(run.run_id for run in last.past), last.run_id] == runs[-len(last.past) - 1 :]
    for run_id in runs[-MAX_PAST:]:
        assert hunt.end_run(run_id, None, within=0)


# The clock ---------------------------------------------------------------------

SUPERVISOR = """
import os, socket, sys, time
directory, boot_id, flag, channel = sys.argv[1:]
wall, wall_ns = time.time, time.time_ns
time.time = lambda: wall() - (7200 if os.path.exists(flag) else 0)
time.time_ns = lambda: wall_ns() - (7200 * 10**9 if os.path.exists(flag) else 0)
from pathlib import Path
from att_server.supervisor import app_process
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.process import Supervisor
from att_server.supervisor.writer_lock import take_lock
from att_server.supervisor.spec import Spec
app_process.become_subreaper()
project = os.path.dirname(os.path.dirname(directory))
lock = take_lock(project)
spec = Spec.load(directory)
log = LogWriter.open(Path(project, "logs"), log_id=spec.log_id, boot_id=boot_id)
server = socket.socket(fileno=int(channel))
Supervisor(directory, spec, lock=lock, log=log, boot_id=boot_id, server=server).run()
"""


def supervised(host: Host, spec: RunSpec, flag: Path) -> subprocess.Popen[bytes]:
    """A supervisor whose wall clock goes back by two hours when `flag` is there."""
    host.epoch += 1
    directory = host.project("app") / "supervisors" / host.clock.new_id()
    directory.mkdir(parents=True)
    told = spec_of(spec, directory.name, epoch=host.epoch, after_loss=False, before=None)
    told.save(str(directory))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        arguments = [str(directory), processes.boot_id(), str(flag), str(theirs.fileno())]
        return subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, *arguments], pass_fds=[theirs.fileno()]
        )


async def test_a_wall_clock_that_is_set_back_changes_no_wait(host: Host) -> None:
    flag = host.work / "flag"
    spec = host.spec("sh", "-c", "exit 1", restart=policy(wait=0.3, max_restarts=3))
    supervisor = supervised(host, spec, flag)
    try:
        wait_until(lambda: host.states() and host.state().state == "backoff", "the first wait")
        flag.touch()
        wait_until(lambda: host.state().ended, "the loop is over")
        status = await adopted(host)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert (status.state, status.reason, status.restarts) == (RuntimeState.FAILED, "crash_loop", 3)
    assert len(host.runs()) == len(host.ends()) == 4


async def test_a_wall_clock_that_was_set_back_forgets_no_restart_of_a_lost_supervisor(
    host: Host,
) -> None:
    driver = await host.opened("app")
    spec = host.spec("sleep", "60", restart=policy(max_restarts=2))
    await driver.start(spec)
    await driver.aclose()
    host.kill_supervisor()
    ahead = time.time() + HOUR
    left(host, restarts=2, restart_times=[ahead, ahead])
    again = await host.opened("app")
    status = await again.start(spec, after_loss=True)
    assert (status.state, status.reason) == (RuntimeState.FAILED, "crash_loop")
    await again.aclose()


# What is not what it seems -----------------------------------------------------


async def test_a_lock_that_a_dead_process_left_is_no_obstacle(host: Host) -> None:
    driver = await host.opened("app")
    (host.project("app") / "writer.lock").write_text("4194303\n")
    status = await driver.start(host.spec("sleep", "60"))
    assert status.state is RuntimeState.READY
    await driver.aclose()


async def test_a_stranger_with_the_pid_of_the_run_and_of_its_supervisor_lives_on(
    host: Host, stranger: int
) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60", restart=policy()))
    await driver.aclose()
    host.kill_supervisor()
    hunt.end_run(started.run_id, None, within=20)
    left(host, pid=stranger, run={"pid": stranger})
    again = host.driver()
    found = (await again.adopt({"app": host.log_id}, Listener()))["app"]
    assert (found.state, found.reason) == (RuntimeState.EXITED, "supervisor_lost")
    assert await again.usage(["app"]) == {}
    waits = await again.start(host.spec("sleep", "60", restart=policy()), after_loss=True)
    assert waits.state is RuntimeState.BACKOFF
    await until(lambda: host.state().state == "ready", "the next run")
    stopped = await again.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED
    assert alive(stranger)
    await again.aclose()


async def test_a_host_that_shuts_down_restarts_nothing(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("sleep", "60", restart=policy("always")))
    os.kill(host.state().pid, signal.SIGTERM)
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "host_shutdown")
    assert status.exit is not None
    assert (status.exit.signal, status.exit.reason) == (signal.SIGTERM, "host_shutdown")
    assert len(host.runs()) == 1


async def test_a_host_that_shuts_down_in_backoff_restarts_nothing(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    await driver.start(host.spec("false", restart=policy(wait=HOUR)))
    await listener.until("app", in_backoff)
    os.kill(host.state().pid, signal.SIGTERM)
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "host_shutdown")
    assert status.exit is not None
    assert status.exit.duration < timedelta(seconds=20)
    assert len(host.runs()) == 1

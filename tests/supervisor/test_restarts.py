"""An app that ends is started again as its policy says, by its supervisor alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from datetime import timedelta

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RunStatus, RuntimeState
from att_server.core.settings import ResourceLimits
from att_server.supervisor.segment import FrameKind
from att_server.supervisor.state import MAX_PAST
from tests.supervisor.host import Host, Listener, alive, policy, until

HOUR = 3600.0


def over(status: RunStatus) -> bool:
    return not status.state.alive


def in_backoff(status: RunStatus) -> bool:
    return status.state is RuntimeState.BACKOFF


def restarted(count: int) -> object:
    return lambda status: status.restarts == count and status.exit is None


# What follows an end ---------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "program", "state"),
    [
        ("never", "exit 3", RuntimeState.EXITED),
        ("on-failure", "exit 0", RuntimeState.EXITED),
        ("on-failure", "exit 3", RuntimeState.BACKOFF),
        ("on-failure", "kill -9 $$", RuntimeState.BACKOFF),
        ("always", "exit 0", RuntimeState.BACKOFF),
        ("always", "kill -9 $$", RuntimeState.BACKOFF),
    ],
)
async def test_the_policy_decides_what_follows_an_end(
    condition: str,
    program: str,
    state: RuntimeState,
    host: Host,
    driver: SupervisorDriver,
    listener: Listener,
) -> None:
    started = await driver.start(
        host.spec("sh", "-c", program, restart=policy(condition, wait=HOUR))
    )
    status = await listener.until("app", lambda s: over(s) or in_backoff(s))
    assert (status.state, status.run_id, status.restarts) == (state, started.run_id, 0)
    assert len(host.runs()) == len(host.ends()) == 1
    if state is RuntimeState.BACKOFF:
        assert status.reason == ("signalled" if "kill" in program else "exited")
        assert status.exit is not None
        assert status.next_restart_time is not None
        left = status.next_restart_time - status.exit.time
        assert timedelta(seconds=HOUR - 60) < left < timedelta(seconds=HOUR + 60)


async def test_each_restart_is_a_run_of_its_own_until_there_are_too_many(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    again = policy("on-failure", max_restarts=3)
    await driver.start(host.spec("sh", "-c", "echo $ATT_RUN_ID; exit 3", restart=again))
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.FAILED, "crash_loop")
    assert (status.restarts, status.next_restart_time) == (3, None)
    runs = host.runs()
    assert len(runs) == 4
    assert [*(run.run_id for run in status.past), status.run_id] == runs
    assert host.output() == "".join(f"{run}\n" for run in runs).encode()
    assert {run.exit.exit_code for run in status.past} == {3}
    assert [json.loads(end.payload)["exit_code"] for end in host.ends()] == [3] * 4
    assert len({run.pid for run in status.past}) == 3
    assert len(host.states()) == 1


async def test_waits_grow_and_the_state_says_which_attempt_when_and_why(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    growing = policy("always", wait=0.02, factor=50.0)
    await driver.start(host.spec("true", restart=growing))
    await listener.until("app", lambda s: in_backoff(s) and s.restarts == 2)
    state = host.state()
    assert (state.state, state.reason, state.attempt) == ("backoff", "exited", 2)
    assert len(state.restart_times) == 2
    assert state.run is not None
    assert state.run.end is not None
    assert state.next_restart_time is not None
    assert state.next_restart_time - state.run.end.time > timedelta(seconds=45)


async def test_a_stable_run_lets_the_waits_begin_anew(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("sleep", "0.05", restart=policy("always", factor=1e6, stable_after=0.05))
    await driver.start(spec)
    # The second wait would be hours if the runs before were not stable.
    await listener.until("app", restarted(3))  # type: ignore[arg-type]  # a predicate
    assert host.state().attempt <= 1


async def test_an_app_without_a_server_goes_on_and_is_adopted_exactly(host: Host) -> None:
    driver = await host.opened("app")
    first = await driver.start(
        host.spec("sh", "-c", "echo up; sleep 0.01; exit 1", restart=policy(max_restarts=1000))
    )
    await driver.aclose()
    await until(lambda: len(host.ends()) >= 5, "restarts")
    listener = Listener()
    again = await host.opened("app", listener=listener)
    known = await listener.until("app", lambda s: s.restarts >= 7)
    assert known.supervisor_id == first.supervisor_id
    stopped = await again.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED
    runs = host.runs()
    assert runs[0] == first.run_id
    assert [*(run.run_id for run in stopped.past), stopped.run_id] == runs[-MAX_PAST - 1 :]
    assert stopped.restarts == len(runs) - 1
    await again.aclose()
    third = host.driver()
    assert await third.adopt({"app": host.log_id}, Listener()) == {"app": stopped}
    await third.aclose()


async def test_a_loop_that_ended_while_nobody_looked_is_adopted_as_it_ended(host: Host) -> None:
    driver = await host.opened("app")
    await driver.start(host.spec("sh", "-c", "exit 1", restart=policy(max_restarts=2)))
    await driver.aclose()
    await until(lambda: host.state().ended, "the loop is over")
    again = host.driver()
    found = (await again.adopt({"app": host.log_id}, Listener()))["app"]
    assert (found.state, found.reason, found.restarts) == (RuntimeState.FAILED, "crash_loop", 2)
    assert [run.run_id for run in found.past] == host.runs()[:-1]
    started = await again.start(host.spec("sleep", "60", restart=policy()))
    assert (started.state, started.restarts, started.past) == (RuntimeState.READY, 0, ())
    await again.aclose()


async def test_a_long_loop_leaves_bounded_memory_and_the_last_runs(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("true", restart=policy("always", wait=0.001, max_restarts=10_000))
    await driver.start(spec)
    await listener.until("app", lambda s: s.restarts >= MAX_PAST + 10)
    pid = host.state().pid
    before = resident(pid)
    status = await listener.until("app", lambda s: s.restarts >= MAX_PAST + 150)
    assert resident(pid) - before < 1024
    assert len(status.past) == MAX_PAST
    assert open_files(pid) < 40
    await driver.stop("app", None)
    assert len(host.runs()) == len(host.ends())


def resident(pid: int) -> int:
    """KiB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss_Anon"))


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


# Starts that fail ------------------------------------------------------------


async def test_the_first_start_fails_at_once_whatever_the_policy(
    host: Host, driver: SupervisorDriver
) -> None:
    status = await driver.start(host.spec("no-such-command", restart=policy("always")))
    assert (status.state, status.reason) == (RuntimeState.FAILED, "start_error")
    assert status.start_failure == "command_not_found"
    assert len(host.runs()) == 1


async def test_a_directory_that_goes_meanwhile_makes_restarts_fail_until_it_is_back(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    place = host.work / "project"
    place.mkdir()
    spec = host.spec("sh", "-c", "echo up; exec sleep 60", directory=place, restart=policy())
    started = await driver.start(spec)
    await until(lambda: host.output() == b"up\n", "the app is up")
    shutil.rmtree(place)
    os.kill(started.pid, signal.SIGKILL)
    waits = await listener.until("app", lambda s: in_backoff(s) and s.reason == "start_error")
    assert waits.start_failure == "directory_invalid"
    assert waits.exit is not None
    assert waits.exit.start_error is not None
    place.mkdir()
    back = await listener.until("app", lambda s: s.state is RuntimeState.READY)
    assert (back.start_failure, back.reason) == ("", "")
    assert alive(back.pid)
    await driver.stop("app", None)
    assert len(host.runs()) == len(host.ends()) == back.restarts + 1


async def test_a_program_that_is_gone_at_the_restart_ends_in_a_crash_loop(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = host.work / "program"
    program.write_text("#!/bin/sh\nrm program\nexit 1\n")
    program.chmod(0o755)
    await driver.start(host.spec("./program", restart=policy(max_restarts=2)))
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.FAILED, "crash_loop")
    assert status.start_failure == "command_not_found"
    kinds = [kind for kind in host.kinds() if kind != FrameKind.LINES]
    assert kinds == [FrameKind.RUN_STARTED, FrameKind.RUN_ENDED] * 3


# Starting at once ------------------------------------------------------------


async def test_a_start_in_backoff_begins_at_once_and_anew(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    flag = host.work / "flag"
    program = f"test -e {flag} && exec sleep 60; exit 1"
    waiting = policy(wait=0.01, factor=1e7)
    started = await driver.start(host.spec("sh", "-c", program, restart=waiting))
    waits = await listener.until("app", lambda s: in_backoff(s) and s.restarts == 1)
    flag.touch()
    status = await driver.start_now("app")
    assert status is not None
    assert (status.state, status.restarts) == (RuntimeState.READY, 0)
    assert status.supervisor_id == started.supervisor_id
    assert [run.run_id for run in status.past] == [started.run_id, waits.run_id]
    state = host.state()
    assert (state.attempt, state.restart_times, state.next_restart_time) == (0, (), None)
    assert await driver.start_now("app") == status


async def test_a_start_in_backoff_that_fails_says_so_and_is_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = host.work / "program"
    program.write_text("#!/bin/sh\nrm program\nexit 1\n")
    program.chmod(0o755)
    await driver.start(host.spec("./program", restart=policy(wait=HOUR)))
    await listener.until("app", in_backoff)
    status = await driver.start_now("app")
    assert status is not None
    assert (status.state, status.start_failure) == (RuntimeState.FAILED, "command_not_found")
    assert len(host.runs()) == len(host.ends()) == 2
    assert await driver.start_now("app") == status


# Failures that others find ---------------------------------------------------


@pytest.mark.parametrize("reason", ["liveness_failed", "startup_deadline"])
async def test_a_failed_probe_ends_the_run_and_the_policy_goes_on(
    reason: str, host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
    started = await driver.start(host.spec("sh", "-c", program, restart=policy(wait=HOUR)))
    await until(lambda: host.output() == b"up\n", "the app is up")
    await driver.fail("app", "01J0000000000000000000000A", reason)
    assert alive(started.pid)
    await driver.fail("app", started.run_id, reason)
    waits = await listener.until("app", in_backoff)
    assert waits.reason == reason
    assert waits.exit is not None
    # Even an exit code of 0 is a failure then.
    assert (waits.exit.exit_code, waits.exit.reason) == (0, reason)
    assert json.loads(host.ends()[0].payload)["reason"] == reason
    assert host.output() == b"up\nbye\n"
    await driver.fail("app", started.run_id, reason)
    assert host.state().state == "backoff"


async def test_a_failed_probe_without_a_policy_is_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(
        host.spec("sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", grace=0.1)
    )
    await driver.fail("app", started.run_id, "liveness_failed")
    status = await listener.until("app", over)
    assert (status.state, status.reason) == (RuntimeState.FAILED, "liveness_failed")
    assert not alive(started.pid)


GROWS = "held = []\nwhile True: held.append(bytearray(b'x' * 1000000)); print(len(held))"
FORKS = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        time.sleep(600)
time.sleep(600)
"""
BURNS = "while True: pass"


@pytest.mark.parametrize(
    ("program", "limits", "reason"),
    [
        (GROWS, ResourceLimits(memory_bytes=64 << 20), "memory_limit"),
        (FORKS, ResourceLimits(processes=4), "process_limit"),
        (BURNS, ResourceLimits(cpu_time=timedelta(seconds=1)), "cpu_time_limit"),
    ],
)
@pytest.mark.parametrize("condition", ["never", "on-failure"])
async def test_an_app_above_a_limit_is_ended_as_a_failure(
    condition: str,
    program: str,
    limits: ResourceLimits,
    reason: str,
    host: Host,
    driver: SupervisorDriver,
    listener: Listener,
) -> None:
    again = policy(condition, wait=HOUR)
    started = await driver.start(host.python(program, limits=limits, restart=again))
    status = await listener.until("app", lambda s: over(s) or in_backoff(s))
    wanted = RuntimeState.EXITED if condition == "never" else RuntimeState.BACKOFF
    assert (status.state, status.reason, status.run_id) == (wanted, reason, started.run_id)
    assert status.exit is not None
    assert (status.exit.reason, status.exit.exit_code) == (reason, None)
    assert json.loads(host.ends()[0].payload)["reason"] == reason
    assert not alive(started.pid)


async def test_what_an_app_gets_in_secret_is_nowhere_on_disk(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    secret = "tr0ub4dor&3"
    spec = host.spec(
        "sh",
        "-c",
        'test "$TOKEN" = "$(cat given)" && echo same; echo $TOKEN; exit 1',
        secrets={"TOKEN": secret},
        restart=policy(max_restarts=2),
    )
    (host.work / "given").write_text(secret)
    await driver.start(spec)
    status = await listener.until("app", over)
    assert (status.reason, status.restarts) == ("crash_loop", 2)
    assert host.output() == b"same\n***\n" * 3
    files = [path for path in host.project("app").rglob("*") if path.is_file()]
    assert "supervisor.log" in {path.name for path in files}
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


async def test_a_stop_while_a_failure_is_carried_out_wins(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(
        host.spec(
            "sh",
            "-c",
            "trap '' TERM; echo up; while :; do sleep 1; done",
            restart=policy(),
            grace=60,
        )
    )
    await until(lambda: host.output() == b"up\n", "the app is up")
    await driver.fail("app", started.run_id, "liveness_failed")
    await listener.until("app", lambda s: s.reason == "liveness_failed")
    status = await driver.stop("app", timedelta(0))
    assert status is not None
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "")
    assert status.exit is not None
    assert status.exit.reason == "liveness_failed"
    assert len(host.runs()) == 1


async def test_readiness_can_be_taken_back(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(host.spec("sleep", "60", probed=True))
    await driver.set_ready("app", started.run_id, ready=False)
    await driver.set_ready("app", started.run_id)
    ready = await listener.until("app", lambda s: s.state is RuntimeState.READY)
    assert ready.ready_time is not None
    await driver.set_ready("app", "01J0000000000000000000000A", ready=False)
    assert host.state().state == "ready"
    await driver.set_ready("app", started.run_id, ready=False)
    unready = await listener.until("app", lambda s: s.state is RuntimeState.RUNNING)
    assert (unready.ready_time, unready.run_id) == (None, started.run_id)


# The clock -------------------------------------------------------------------


async def test_restarts_are_told_in_wall_time_and_measured_without_it(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    before = time.time()
    await driver.start(host.spec("false", restart=policy(max_restarts=3)))
    await listener.until("app", over)
    times = host.state().restart_times
    assert len(times) == 3
    assert list(times) == sorted(times)
    assert before - 1 < times[0] <= times[-1] < time.time() + 1

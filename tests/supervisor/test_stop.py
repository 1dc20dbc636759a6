"""A stop, in whatever state it comes, ends the whole tree, and all who ask hear the same."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RunStatus, RuntimeState
from att_server.supervisor import processes
from tests.server_process import PATIENCE
from tests.supervisor.host import Host, Listener, alive, policy, until

HOUR = 3600.0
DEAF = "trap '' TERM; echo up; while :; do sleep 1; done"


def in_backoff(status: RunStatus) -> bool:
    return status.state is RuntimeState.BACKOFF


async def stopped_by_all(driver: SupervisorDriver, grace: float | None = None) -> RunStatus:
    """What several stops at once, and one more, have all returned."""
    span = None if grace is None else timedelta(seconds=grace)
    told = await asyncio.gather(*(driver.stop("app", span) for _ in range(4)))
    told.append(await driver.stop("app", span))
    assert told[0] is not None
    assert all(status == told[0] for status in told)
    return told[0]


@pytest.mark.parametrize("probed", [False, True])
async def test_stopped_while_it_runs(probed: bool, host: Host, driver: SupervisorDriver) -> None:
    started = await driver.start(host.spec("sleep", "60", probed=probed, restart=policy("always")))
    status = await stopped_by_all(driver)
    assert (status.state, status.reason, status.restarts) == (RuntimeState.STOPPED, "", 0)
    assert not alive(started.pid)
    assert len(host.ends()) == 1


async def test_stopped_before_its_start_was_answered(host: Host, driver: SupervisorDriver) -> None:
    start = asyncio.create_task(driver.start(host.spec("sleep", "60", restart=policy())))
    await until(lambda: host.project("app").joinpath("supervisors").exists(), "it begins")
    status = await stopped_by_all(driver)
    assert status.state is RuntimeState.STOPPED
    assert (await start).run_id == status.run_id
    assert not alive(status.pid)


async def test_stopped_in_backoff(host: Host, driver: SupervisorDriver, listener: Listener) -> None:
    await driver.start(host.spec("false", restart=policy(wait=HOUR)))
    waits = await listener.until("app", in_backoff)
    status = await stopped_by_all(driver)
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "")
    assert (status.run_id, status.exit) == (waits.run_id, waits.exit)
    assert status.next_restart_time is None
    assert len(host.runs()) == len(host.ends()) == 1
    assert (await driver.start(host.spec("sleep", "60"))).state is RuntimeState.READY


async def test_stopped_when_only_what_it_left_behind_runs(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = f'sh -c "{DEAF}" & sleep 0.05; exit 4'
    await driver.start(host.spec("sh", "-c", program, restart=policy("always"), grace=60))
    left = await listener.until("app", lambda s: s.state is RuntimeState.STOPPING)
    assert left.reason == "main_exited"
    status = await stopped_by_all(driver, grace=0.05)
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "")
    assert status.exit is not None
    assert status.exit.exit_code == 4
    assert len(host.runs()) == len(host.ends()) == 1
    assert members(status.run_id) == []


async def test_a_shorter_grace_ends_a_stop_that_waits(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(host.spec("sh", "-c", DEAF))
    await until(lambda: host.output() == b"up\n", "the app is up")
    patient = asyncio.create_task(driver.stop("app", timedelta(hours=1)))
    await until(lambda: host.state().state == "stopping", "the stop has begun")
    status = await driver.stop("app", timedelta(0))
    assert status is not None
    assert status.exit is not None
    assert status.exit.signal == signal.SIGKILL
    assert await patient == status


def members(run_id: str) -> list[int]:
    """The living processes of a run."""
    mark = f"ATT_RUN_ID={run_id}".encode()
    found = []
    for process in processes.everyone().values():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        except OSError:
            continue
        if mark in environment.split(b"\0") and not process.zombie:
            found.append(process.pid)
    return found


# Each makes processes that are hard to end, says so, and never ends by itself.
STUBBORN = {
    "daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    deaf()
    said("up")
    sleep()
sleep()
""",
    "sessions": """
deaf()
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
        sleep()
said("up")
sleep()
""",
    "stopped": """
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
        sleep()
time.sleep(0.05)
said("up")
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "chain": """
# A process that is gone whenever one looks, with another one in its place.
deaf()
said("up")
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
""",
    "storm": """
# Bounded, for the sake of the machine: thirty of them, and each goes on elsewhere.
deaf()
end = time.monotonic() + 60
for _ in range(30):
    if os.fork() == 0:
        os.setsid()
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            time.sleep(0.002)
        os._exit(0)
said("up")
sleep()
""",
    "deep": """
deaf()
for depth in range(60):
    if os.fork():
        sleep()
    os.setsid()
said("up")
sleep()
""",
}
PRELUDE = """
import os, signal, sys, time
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def said(word):
    os.write(1, word.encode() + b"\\n")
def sleep():
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize("kind", STUBBORN)
async def test_nothing_survives_a_stop(
    kind: str, host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    started = await driver.start(
        host.python(PRELUDE + STUBBORN[kind], restart=policy("always", wait=HOUR), grace=60)
    )
    await until(lambda: b"up\n" in host.output(), "the tree is up")
    async with asyncio.timeout(PATIENCE):
        status = await driver.stop("app", timedelta(seconds=0.2))
    assert status is not None
    assert status.state is RuntimeState.STOPPED
    assert members(started.run_id) == []
    assert len(host.runs()) == len(host.ends()) == 1


async def test_calls_that_pile_up_are_bounded(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(host.spec("sh", "-c", DEAF, grace=60))
    await until(lambda: host.output() == b"up\n", "the app is up")
    with host.connect() as wire, wire.makefile("rb") as file:
        stop = json.dumps({"id": 1, "epoch": 1, "command": "stop", "grace": 60}).encode() + b"\n"
        wire.sendall(stop * 1100)
        for _ in range(100):
            assert json.loads(file.readline())["error"] == "too_many"
    run = host.state().run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    await until(lambda: host.state().ended, "the end")

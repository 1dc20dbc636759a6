"""Supervisors and a server that dies: nothing is lost, and the next server knows all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.model import RuntimeState
from att_server.supervisor.segment import FrameKind
from att_server.supervisor.writer_lock import take_lock
from tests.supervisor.host import Host, Listener, alive, new_host, until, wait_until

SERVER = """
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from att_server.adapters.clock import SystemClock
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RunSpec

class Deaf:
    def run_changed(self, project_id, status): pass
    def log_grew(self, project_id): pass

async def main(state_dir, log_id, epoch, *command):
    driver = SupervisorDriver(Path(state_dir), epoch=int(epoch), clock=SystemClock())
    await driver.adopt({"app": log_id}, Deaf())
    status = await driver.start(RunSpec(
        project_id="app", log_id=log_id, command=command, directory=Path(state_dir),
        env=dict(os.environ), own_env={}, stop_grace=timedelta(seconds=10), probed=False))
    print(status.pid, driver.zygote_pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""

COUNTS = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1, b"%d\\n" % number)
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


def serve(host: Host, *command: str) -> tuple[subprocess.Popen[str], int, int]:
    """A server process, its app's pid and its zygote's."""
    host.epoch += 1
    host.project("app").mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(host.state_dir), host.log_id, str(host.epoch), *command],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    app, zygote = server.stdout.readline().split()
    return server, int(app), int(zygote)


def end(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.communicate()


async def test_an_app_floods_on_while_servers_come_and_go(host: Host) -> None:
    server, app, zygote = serve(host, sys.executable, "-S", "-c", COUNTS, "300000")
    end(server)
    wait_until(lambda: not alive(zygote), "the zygote goes with its server")
    listener = Listener()
    for _ in range(3):
        driver = await host.opened("app", listener=listener)
        status = listener.statuses["app"][-1] if "app" in listener.statuses else None
        assert status is None or status.pid == app
        await driver.aclose()
    driver = await host.opened("app", listener=listener)
    await until(lambda: host.state().ended, "the app is through")
    assert host.output() == b"".join(b"%d\n" % number for number in range(300_000))
    assert [k for k in host.kinds() if k != FrameKind.LINES] == [
        FrameKind.RUN_STARTED,
        FrameKind.RUN_ENDED,
    ]
    await driver.aclose()


async def test_the_next_server_adopts_the_very_state(host: Host) -> None:
    server, app, _ = serve(host, "sleep", "60")
    end(server)
    driver = host.driver()
    found = await driver.adopt({"app": host.log_id}, Listener())
    assert (found["app"].state, found["app"].pid) == (RuntimeState.READY, app)
    stopped = await driver.stop("app", None)
    assert stopped is not None
    assert (stopped.state, stopped.run_id) == (RuntimeState.STOPPED, found["app"].run_id)
    assert not alive(app)
    await driver.aclose()


async def test_a_server_that_stopped_reading_does_not_hold_the_app_up(host: Host) -> None:
    server, _, _ = serve(host, sys.executable, "-S", "-c", COUNTS, "200000")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await until(lambda: host.state().ended, "the app is through")
        assert host.output().endswith(b"199999\n")
    finally:
        end(server)


async def test_a_killed_zygote_is_replaced_and_takes_no_app_along(host: Host) -> None:
    driver = await host.opened("app", "other")
    first = await driver.start(host.spec("sleep", "60"))
    os.kill(driver.zygote_pid, signal.SIGKILL)
    second = await driver.start(host.spec("sleep", "60", project="other"))
    assert alive(first.pid)
    assert second.state is RuntimeState.READY
    await driver.aclose()


async def test_a_stopped_zygote_goes_on_when_an_app_is_started(host: Host) -> None:
    driver = await host.opened("app")
    os.kill(driver.zygote_pid, signal.SIGSTOP)
    started = await driver.start(host.spec("sleep", "60"))
    assert started.state is RuntimeState.READY
    await driver.aclose()


async def test_a_second_supervisor_of_a_project_has_no_effect(host: Host) -> None:
    driver = await host.opened("app")
    first = await driver.start(host.spec("sleep", "60"))
    ignorant = await host.opened("another")
    with pytest.raises(AttError) as refused:
        await ignorant.start(host.spec("sh", "-c", "echo twice; sleep 60"))
    assert refused.value.reason is Reason.SUPERVISOR_UNREACHABLE
    assert alive(first.pid)
    assert host.kinds() == [FrameKind.RUN_STARTED]
    assert len(host.states()) == 1
    await ignorant.aclose()
    await driver.aclose()


async def test_whoever_holds_the_lock_keeps_supervisors_away(host: Host) -> None:
    driver = await host.opened("app")
    lock = take_lock(str(host.project("app")))
    assert lock is not None
    assert take_lock(str(host.project("app"))) is None
    with pytest.raises(AttError) as refused:
        await driver.start(host.spec("sleep", "60"))
    assert refused.value.reason is Reason.SUPERVISOR_UNREACHABLE
    os.close(lock)
    assert (await driver.start(host.spec("sleep", "60"))).state is RuntimeState.READY
    await driver.aclose()


async def test_a_supervisor_told_to_end_stops_its_app_and_records_it(host: Host) -> None:
    listener = Listener()
    driver = await host.opened("app", listener=listener)
    started = await driver.start(
        host.spec("sh", "-c", "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.01; done")
    )
    await until(lambda: host.output() == b"up\n", "the app is up")
    os.kill(host.state().pid, signal.SIGTERM)
    status = await listener.until("app", lambda s: not s.state.alive)
    assert (status.state, status.reason) == (RuntimeState.STOPPED, "host_shutdown")
    assert status.exit is not None
    assert status.exit.exit_code == 4
    assert not alive(started.pid)
    assert host.output() == b"up\nbye\n"
    await driver.aclose()


async def test_a_supervisor_that_does_not_answer_is_unknown_until_it_does(host: Host) -> None:
    driver = await host.opened("app")
    started = await driver.start(host.spec("sleep", "60"))
    await driver.aclose()
    pid = host.state().pid
    os.kill(pid, signal.SIGSTOP)
    listener = Listener()
    again = host.driver(answers_within=timedelta(seconds=0.2))
    try:
        found = await again.adopt({"app": host.log_id}, listener)
        assert (found["app"].state, found["app"].run_id) == (RuntimeState.UNKNOWN, started.run_id)
        with pytest.raises(AttError) as unreachable:
            await again.stop("app", None)
        assert unreachable.value.reason is Reason.SUPERVISOR_UNREACHABLE
    finally:
        os.kill(pid, signal.SIGCONT)
    await listener.until("app", lambda status: status.state is not RuntimeState.UNKNOWN)
    stopped = await again.stop("app", None)
    assert stopped is not None
    assert stopped.state is RuntimeState.STOPPED
    await again.aclose()


async def test_a_supervisor_that_stops_is_unknown_though_nobody_asks_for_anything(
    host: Host,
) -> None:
    often = timedelta(seconds=0.1)
    listener = Listener()
    driver = await host.opened(
        "app", listener=listener, answers_within=timedelta(seconds=0.3), asks_again=often
    )
    await driver.start(host.spec("sleep", "60"))
    pid = host.state().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        await listener.until("app", lambda status: status.state is RuntimeState.UNKNOWN)
    finally:
        os.kill(pid, signal.SIGCONT)
    await listener.until("app", lambda status: status.state is RuntimeState.READY)
    await driver.aclose()

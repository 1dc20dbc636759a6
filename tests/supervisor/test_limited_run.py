"""Runs that are ended for what they take say so, in their state and in their log."""

from __future__ import annotations

import json
import resource
import signal
from dataclasses import replace
from datetime import timedelta

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.model import RunExit, RunSpec, RunStatus, RuntimeState
from att_server.core.settings import ResourceLimits
from tests.supervisor.host import Host, Listener

MIB = 1024 * 1024


async def ended(
    driver: SupervisorDriver, listener: Listener, spec: RunSpec, limits: ResourceLimits
) -> tuple[RunStatus, RunExit]:
    """The last status of an app with limits, and how it ended."""
    await driver.start(replace(spec, limits=limits))
    status = await listener.until("app", lambda status: not status.state.alive)
    assert status.exit is not None
    return status, status.exit


async def test_too_much_memory_is_the_reason_of_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.python("import time; x = bytearray(200 << 20); print('up'); time.sleep(60)")
    limits = ResourceLimits(memory_bytes=64 * MIB)
    status, end = await ended(driver, listener, spec, limits)
    assert (status.state, status.reason) == (RuntimeState.EXITED, "memory_limit")
    assert end.reason == "memory_limit"
    (marker,) = host.ends()
    assert json.loads(marker.payload)["reason"] == "memory_limit"


async def test_too_many_processes_are_the_reason_of_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    spec = host.spec("sh", "-c", "for i in 1 2 3 4 5; do setsid sleep 60 & done; wait")
    status, end = await ended(driver, listener, spec, ResourceLimits(processes=4))
    assert (status.state, end.reason) == (RuntimeState.EXITED, "process_limit")


async def test_too_much_processor_time_is_the_reason_of_the_end(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    limits = ResourceLimits(cpu_time=timedelta(seconds=1))
    _, end = await ended(driver, listener, host.python("while True: pass"), limits)
    assert (end.signal, end.reason) == (signal.SIGXCPU, "cpu_time_limit")


async def test_the_app_runs_out_of_files_and_its_supervisor_does_not(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    program = """
import os, sys
try:
    while True: os.open("/", os.O_RDONLY)
except OSError as error:
    print(error.errno)
for number in range(100_000): print(number, file=sys.stderr)
"""
    limits = ResourceLimits(open_files=16)
    status, end = await ended(driver, listener, host.python(program), limits)
    assert (status.state, end.exit_code, end.reason) == (RuntimeState.EXITED, 0, "")
    assert host.output() == b"24\n"
    assert host.output(stream=2).endswith(b"\n99999\n")


async def test_a_limit_above_that_of_the_server_is_a_start_error(
    host: Host, driver: SupervisorDriver, listener: Listener
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spec = replace(host.spec("true"), limits=ResourceLimits(open_files=hard + 1))
    status = await driver.start(spec)
    assert (status.state, status.start_failure) == (RuntimeState.FAILED, "start_error")
    assert status.exit is not None
    assert f"open_files is {hard + 1}" in str(status.exit.start_error)


@pytest.mark.parametrize("limits", [ResourceLimits(), ResourceLimits(open_files=100)])
async def test_an_app_inherits_no_descriptor_and_no_ignored_signal(
    host: Host, driver: SupervisorDriver, listener: Listener, limits: ResourceLimits
) -> None:
    looks = ("ls self/fd", "grep -E 'Sig(Ign|Blk)' self/status", "cut -d' ' -f5 $$/stat")
    script = "pwd; cd /proc; " + "; ".join(looks)
    status, end = await ended(driver, listener, host.spec("sh", "-c", script), limits)
    assert end.exit_code == 0
    directory, *descriptors, blocked, ignored, group = host.output().decode().split("\n")[:-1]
    assert descriptors == ["0", "1", "2", "3"]  # the last is what `ls` reads the directory by
    # Above 31 are those that the C library keeps for itself.
    assert [int(line.split()[1], 16) & 0x7FFFFFFF for line in (blocked, ignored)] == [0, 0]
    assert directory == str(host.work)
    assert int(group) == status.pid


async def test_the_usage_of_a_run_is_that_of_its_tree(host: Host, driver: SupervisorDriver) -> None:
    await driver.start(host.spec("sh", "-c", "sleep 60 & setsid sleep 60 & wait"))
    usage = (await driver.usage(["app", "none"]))["app"]
    assert 1 <= usage.process_count <= 3
    assert usage.resident_bytes > MIB / 4
    await driver.stop("app", timedelta(0))
    assert await driver.usage(["app"]) == {}

"""Processes are told apart by more than their pid."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from att_server.supervisor import processes
from tests.supervisor.host import alive, wait_until

RUN = "01J0000000000000000000000A"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with one child, of run RUN."""
    made = subprocess.Popen(
        ["sh", "-c", "sleep 60 & wait"], env={"PATH": os.environ["PATH"], "ATT_RUN_ID": RUN}
    )
    yield made
    processes.end_run(RUN, None, within=10)
    made.kill()
    made.wait()


def found(pid: int) -> processes.Process:
    process = processes.find(pid)
    assert process is not None
    return process


def below(pid: int) -> list[processes.Process]:
    return processes.descendants([pid], processes.everyone())


def test_a_process_is_found_with_its_parent(child: subprocess.Popen[bytes]) -> None:
    assert found(child.pid).parent == os.getpid()
    assert processes.everyone()[child.pid] == found(child.pid)
    assert processes.find(2**22 + 1) is None


def test_a_name_with_spaces_and_parentheses_does_not_confuse() -> None:
    program = "import sys; open('/proc/self/comm', 'w').write(') R 1 (x y'); sys.stdin.read()"
    with subprocess.Popen(["python3", "-S", "-c", program], stdin=subprocess.PIPE) as process:
        wait_until(lambda: b"x y" in comm(process.pid), "renamed")
        assert found(process.pid).parent == os.getpid()
        process.communicate()


def test_descendants_are_found_at_any_depth(child: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: below(child.pid), "the grandchild")
    grandchild = below(child.pid)[0]
    assert grandchild in below(os.getpid())
    assert grandchild.parent == child.pid


def test_a_process_with_the_same_pid_but_another_start_is_not_signalled(
    child: subprocess.Popen[bytes],
) -> None:
    process = found(child.pid)
    assert not processes.send(replace(process, ticks=process.ticks - 1), signal.SIGKILL)
    assert alive(child.pid)
    assert processes.send(process, signal.SIGKILL)


def test_a_run_is_ended_by_its_environment_and_by_its_main_process(
    child: subprocess.Popen[bytes],
) -> None:
    wait_until(lambda: below(child.pid), "the grandchild")
    grandchild = below(child.pid)[0].pid
    assert processes.end_run("01J0000000000000000000000B", None, within=10)
    assert alive(child.pid)
    assert processes.end_run(RUN, None, within=10)
    assert not alive(child.pid)
    assert not alive(grandchild)


def test_a_main_process_of_another_start_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"], env={}) as process:
        main = found(process.pid)
        assert processes.end_run(RUN, (main.pid, main.ticks + 1), within=10)
        assert alive(process.pid)
        assert processes.end_run(RUN, (main.pid, main.ticks), within=10)
        assert not alive(process.pid)


def comm(pid: int) -> bytes:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read()


def test_a_hunt_strikes_a_family_and_nobody_else(child: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: below(child.pid), "the grandchild")
    grandchild = below(child.pid)[0]
    with subprocess.Popen(["sleep", "60"]) as stranger:
        hunt = processes.Hunt(child.pid)
        assert hunt.strike()
        assert hunt.struck == [grandchild]
        assert not hunt.strike()
        wait_until(lambda: not alive(grandchild.pid), "the grandchild is gone")
        assert stranger.poll() is None
        stranger.kill()


def test_a_run_is_ended_by_the_id_of_its_supervisor_too() -> None:
    env = {"PATH": os.environ["PATH"], "ATT_RUN_ID": RUN, "ATT_SUPERVISOR_ID": "S1"}
    with subprocess.Popen(["sleep", "60"], env=env) as process:
        assert processes.end_run("", None, supervisor_id="S", within=10)
        assert alive(process.pid)
        assert processes.end_run("", None, supervisor_id="S1", within=10)
        assert not alive(process.pid)

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


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with one child."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True) as made:
        yield made
        os.killpg(made.pid, signal.SIGKILL)


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


def comm(pid: int) -> bytes:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read()

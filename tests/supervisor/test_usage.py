"""What apps use is measured for each tree, and for many at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from att_server.supervisor import processes
from att_server.supervisor.usage import TreeUsage, UsageMeter
from tests.server_process import wait_until

MIB = 1024 * 1024

Started = Callable[[str], int]


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts a shell script or a Python program below a shell; returns the shell's pid."""
    with ExitStack() as stack:

        def start(program: str) -> int:
            command = ["sh", "-c", 'python=$1; shift; "$python" -S -c "$@" & wait', "sh"]
            process = subprocess.Popen([*command, sys.executable, program], cwd="/")

            def end() -> None:
                processes.send_below(process.pid, 9)
                process.kill()
                process.wait()

            stack.callback(end)
            return process.pid

        yield start


def look(meter: UsageMeter, root: int) -> TreeUsage | None:
    return meter.look({"app": root}).get("app")


def until(root: int, holds: Callable[[TreeUsage], bool], what: str) -> TreeUsage:
    """What a tree uses, once it holds."""
    found: list[TreeUsage] = []

    def held() -> bool:
        used = look(UsageMeter(), root)
        if used is not None and holds(used):
            found.append(used)
        return bool(found)

    wait_until(held, what)
    return found[0]


def test_memory_processes_and_files_of_the_whole_tree_are_counted(started: Started) -> None:
    root = started(
        """
import os, time
data = bytearray(50 << 20)
files = [os.open("/", os.O_RDONLY) for _ in range(40)]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os._exit(0)  # is a zombie, and uses nothing
    more = [os.open("/", os.O_RDONLY) for _ in range(20)]
time.sleep(60)
"""
    )
    both = (2, 2 * 43 + 20)
    used = until(root, lambda used: (used.process_count, used.open_file_count) == both, "both")
    assert 100 * MIB < used.resident_bytes < 160 * MIB


def test_processor_time_is_counted_from_the_start_and_between_looks(started: Started) -> None:
    root = started("while True: pass")
    first = until(root, lambda used: used.cpu_seconds > 0.2, "some work")
    assert first.cpu_percent > 0
    meter = UsageMeter()
    assert look(meter, root) is not None
    before = look(meter, root)
    assert before is not None
    wait_until(lambda: cpu_seconds(root) > before.cpu_seconds + 0.3, "more work")
    after = look(meter, root)
    assert after is not None
    # Of one processor, which it may have to share.
    assert 0 < after.cpu_percent < 150
    assert after.cpu_seconds >= before.cpu_seconds + 0.3


def test_a_process_that_ended_takes_nothing_away_from_the_others(started: Started) -> None:
    root = started(
        """
import os, sys, time
if os.fork() == 0:
    while time.process_time() < 0.5: pass
    time.sleep(60)
time.sleep(60)
"""
    )
    meter = UsageMeter()
    wait_until(lambda: cpu_seconds(root) > 0.3, "work")
    before = look(meter, root)
    assert before is not None
    worker = processes.descendants([root], processes.everyone())[-1]
    assert processes.send(worker, 9)
    wait_until(lambda: len(processes.below(root)) == 1, "ended")
    after = look(meter, root)
    assert after is not None
    assert after.cpu_percent >= 0
    assert after.cpu_seconds < before.cpu_seconds


def test_a_tree_that_is_gone_is_absent() -> None:
    meter = UsageMeter()
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert meter.look({"gone": process.pid, "never": 2**22 + 1}) == {}
    assert meter.look({}) == {}


def test_many_trees_are_measured_by_one_look(started: Started) -> None:
    roots = {str(number): started("import time; time.sleep(60)") for number in range(5)}
    meter = UsageMeter()
    wait_until(lambda: len(meter.look(roots)) == 5, "all of them")
    assert {used.process_count for used in meter.look(roots).values()} == {1}


def test_the_children_of_a_process_are_found_without_looking_at_all(started: Started) -> None:
    root = started("import os, time; os.fork(); os.fork(); time.sleep(60)")
    wait_until(lambda: len(processes.below(root)) == 4, "the tree")
    all_below = processes.descendants([root], processes.everyone())
    assert set(processes.below(root)) == set(all_below)
    assert processes.below(2**22 + 1) == []


def test_children_of_all_threads_are_found(started: Started) -> None:
    program = """
import os, threading, time
def start():
    if os.fork() == 0:
        time.sleep(60)
    time.sleep(60)
threading.Thread(target=start).start()
time.sleep(60)
"""
    root = started(program)
    wait_until(lambda: len(processes.below(root)) == 2, "the child of the thread")


def cpu_seconds(root: int) -> float:
    used = look(UsageMeter(), root)
    return 0.0 if used is None else used.cpu_seconds


def test_this_process_is_measured_as_the_kernel_says() -> None:
    me = processes.find(os.getpid())
    assert me is not None
    assert me.resident_pages > 1000
    spent = time.process_time()
    assert abs(me.cpu_ticks / os.sysconf("SC_CLK_TCK") - spent) < 0.5

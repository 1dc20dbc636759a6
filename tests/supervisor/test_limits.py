"""Apps that take more than they may end, and the reason is named."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from att_server.supervisor.app_process import AppProcess
from att_server.supervisor.kill_reason import kernel_messages, killed_for_memory
from att_server.supervisor.limits import Limits
from att_server.supervisor.start_failure import StartFailed

MIB = 1024 * 1024

_KEEPER = """
import json, os, sys, time
sys.path.append(sys.argv[1])
from att_server.supervisor.app_process import AppProcess, become_subreaper
from att_server.supervisor.limit_watch import LimitWatch
from att_server.supervisor.limits import Limits
limits = Limits.from_form(json.loads(sys.argv[2]))
become_subreaper()
app = AppProcess(sys.argv[3:], "/", {"PATH": os.environ["PATH"]}, limits=limits)
watch = LimitWatch(limits)
reason, deadline = "", time.monotonic() + 60
os.set_blocking(app.stdout, True)
while app.reap():
    reason = reason or watch.check(time.monotonic())
    if reason or time.monotonic() > deadline:
        app.kill()
    time.sleep(0.005)
print(json.dumps({
    "reason": reason or app.end_reason(),
    "status": app.status,
    "output": os.read(app.stdout, 65536).decode(),
    "own": len(os.listdir("/proc/self/fd")),
}))
"""
"""A supervisor with nothing but the app and its limits."""


@dataclass(frozen=True)
class Ended:
    reason: str
    status: int
    output: str
    own: int


def run(limits: Limits, *command: str) -> Ended:
    """Runs an app with limits until its tree is gone."""
    keeper = [sys.executable, "-I", "-S", "-c", _KEEPER, os.getcwd(), json.dumps(limits.form())]
    done = subprocess.run([*keeper, *command], stdout=subprocess.PIPE, check=True, timeout=90)
    return Ended(**json.loads(done.stdout))


def python(limits: Limits, program: str) -> Ended:
    return run(limits, sys.executable, "-I", "-S", "-c", program)


# The tree -------------------------------------------------------------------


def test_a_tree_with_too_much_memory_is_ended() -> None:
    program = "import time; data = bytearray(200 << 20); time.sleep(60)"
    ended = python(Limits(memory_bytes=64 * MIB), program)
    assert (ended.reason, ended.status) == ("memory_limit", -signal.SIGKILL)


def test_the_memory_of_all_processes_counts() -> None:
    program = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        data = bytearray(40 << 20)
        time.sleep(60)
time.sleep(60)
"""
    assert python(Limits(memory_bytes=100 * MIB), program).reason == "memory_limit"


def test_memory_that_processes_share_counts_once() -> None:
    program = """
import os, time
data = bytearray(60 << 20)
for _ in range(5):
    if os.fork() == 0:
        time.sleep(1.5)
        os._exit(0)
time.sleep(1.5)
"""
    assert python(Limits(memory_bytes=150 * MIB), program) == Ended("", 0, "", ANY_FILES)


def test_a_tree_with_too_many_processes_is_ended() -> None:
    script = "for i in 1 2 3 4 5 6; do sleep 60 & done; setsid sleep 60 & wait"
    ended = run(Limits(processes=5), "sh", "-c", script)
    assert (ended.reason, ended.status) == ("process_limit", -signal.SIGKILL)


def test_a_fork_bomb_is_ended() -> None:
    # Bounded by itself too, for the machine this runs on.
    program = """
import os, time
for _ in range(8):
    os.fork()
time.sleep(60)
"""
    assert python(Limits(processes=20), program).reason == "process_limit"


def test_a_tree_within_its_limits_is_left_alone() -> None:
    limits = Limits(memory_bytes=500 * MIB, processes=5, open_files=100, cpu_time=60)
    ended = run(limits, "sh", "-c", "sleep 1.2 & wait; echo done; exit 4")
    assert (ended.reason, ended.status, ended.output) == ("", 4, "done\n")


# Each process ---------------------------------------------------------------

_OPEN_ALL = """
import os, resource
print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
descriptors = []
try:
    while True:
        descriptors.append(os.open("/", os.O_RDONLY))
except OSError as error:
    os.write(1, f"{error.errno} {descriptors[-1]}".encode())
"""


@pytest.mark.parametrize("bound", [16, 64, 300])
def test_an_app_cannot_open_more_files_than_it_may(bound: int) -> None:
    ended = python(Limits(open_files=bound), _OPEN_ALL)
    assert ended.output.split() == list(map(str, (bound, bound, 24, bound - 1)))
    assert (ended.reason, ended.status) == ("", 0)


def test_what_an_app_forks_at_once_has_its_limits_too() -> None:
    script = 'sh -c "ulimit -n; ulimit -Hn; ulimit -t" & ulimit -n; ulimit -Hn; ulimit -t; wait'
    ended = run(Limits(open_files=300, cpu_time=7.5), "sh", "-c", script)
    assert sorted(ended.output.split()) == ["300"] * 4 + ["8"] * 2


def test_an_app_that_computes_too_long_is_ended_by_name() -> None:
    ended = python(Limits(cpu_time=1), "while True: pass")
    assert (ended.reason, ended.status) == ("cpu_time_limit", -signal.SIGXCPU)


def test_an_app_that_takes_no_notice_of_its_time_is_ended_all_the_same() -> None:
    program = "import signal; signal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass"
    ended = python(Limits(cpu_time=1), program)
    assert (ended.reason, ended.status) == ("cpu_time_limit", -signal.SIGKILL)


def test_a_kill_by_somebody_else_is_no_limit() -> None:
    limits = Limits(memory_bytes=500 * MIB, cpu_time=60)
    ended = run(limits, "sh", "-c", "kill -9 $$")
    assert (ended.reason, ended.status) == ("", -signal.SIGKILL)


def test_a_limit_that_cannot_be_given_is_a_clear_start_error() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(StartFailed, match=f"open_files is {hard + 1}.*{hard} at most") as failed:
        AppProcess(["true"], "/", {}, limits=Limits(open_files=hard + 1))
    assert failed.value.failure == "start_error"


def test_a_failed_start_leaves_no_descriptor_and_no_other_directory() -> None:
    before = os.listdir("/proc/self/fd"), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE)
    for command, directory in ((["no-such"], "/"), (["true"], "/none"), (["tr\0ue"], "/")):
        with pytest.raises(StartFailed):
            AppProcess(command, directory, {}, limits=Limits(open_files=1000))
    assert (
        os.listdir("/proc/self/fd"),
        os.getcwd(),
        resource.getrlimit(resource.RLIMIT_NOFILE),
    ) == before


# The form in spec.json ------------------------------------------------------


def test_limits_survive_their_json_form() -> None:
    limits = Limits(memory_bytes=MIB, open_files=16, processes=1, cpu_time=1.5)
    assert Limits.from_form(json.loads(json.dumps(limits.form()))) == limits
    assert Limits.from_form({"memory_bytes": None}) == Limits.from_form(None) == Limits()
    assert limits
    assert not Limits()


# Memory of the machine ------------------------------------------------------

_OF_A_GROUP = (
    (
        b"4,1045,88120455,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,"
        b"mems_allowed=0,oom_memcg=/att,task_memcg=/att,task=python3,pid=4242,uid=0\n"
    ),
    (
        b"3,1046,88120496,-;Memory cgroup out of memory: Killed process 4242 (python3) "
        b"total-vm:219716kB, anon-rss:32220kB, file-rss:5436kB, shmem-rss:0kB, UID:0 "
        b"pgtables:148kB oom_score_adj:0\n"
    ),
)
_OF_THE_HOST = (
    (
        b"3,912,5120496,-;Out of memory: Killed process 4242 (node) total-vm:1219716kB, "
        b"anon-rss:932220kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:2148kB "
        b"oom_score_adj:300\n"
        b" SUBSYSTEM=x\n"
    ),
)
_BEFORE_LINUX_5 = (
    b"3,87,5120400,-;Out of memory: Kill process 4242 (java) score 913 or sacrifice child\n",
    (
        b"3,88,5120496,-;Killed process 4242 (java) total-vm:1219716kB, anon-rss:932220kB, "
        b"file-rss:0kB, shmem-rss:0kB\n"
    ),
)


@pytest.mark.parametrize("messages", [_OF_A_GROUP, _OF_THE_HOST, _BEFORE_LINUX_5])
def test_the_kernel_names_whom_it_killed_for_memory(messages: tuple[bytes, ...]) -> None:
    assert killed_for_memory(messages, 4242, since=1.0)
    for message in messages:
        assert not killed_for_memory([message], 424, since=1.0)
        assert not killed_for_memory([message], 42424, since=1.0)


def test_what_the_kernel_killed_earlier_was_another_process() -> None:
    assert killed_for_memory(_OF_THE_HOST, 4242, since=5.5)
    assert not killed_for_memory(_OF_THE_HOST, 4242, since=60.0)


def test_what_an_app_prints_like_a_kernel_is_no_proof() -> None:
    user = b"12,99,5120496,-;Killed process 4242 (x)\n"
    other = b"6,99,5120496,-;usb 1-1: Product: Killed process 4242 (x)\n"
    not_yet = b"4,99,5120496,-;Out of memory: Kill process 4242 (java) score 9 or sacrifice child\n"
    assert not killed_for_memory([not_yet, b"", b"\n", b"x"], 4242, since=1.0)
    assert not killed_for_memory([user, other], 4242, since=1.0)


def test_the_messages_of_this_kernel_can_be_asked_for() -> None:
    for message in kernel_messages():
        assert b";" in message


if os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.W_OK) and list(kernel_messages()):

    @pytest.fixture
    def small_group() -> Iterator[Path]:
        """A control group (v1) with 48 MiB of memory."""
        group = Path(f"/sys/fs/cgroup/memory/att-test-{uuid.uuid4().hex}")
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(48 * MIB))
        yield group
        deadline = time.monotonic() + 10
        while group.exists():
            try:
                group.rmdir()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def test_an_app_that_the_kernel_kills_for_memory_is_named(small_group: Path) -> None:
        program = f"""
import os
open({str(small_group / "cgroup.procs")!r}, "w").write("0")
data = bytearray(200 << 20)
"""
        ended = python(Limits(), program)
        assert (ended.reason, ended.status) == ("oom_killed", -signal.SIGKILL)


class _Any(int):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__


ANY_FILES = _Any()

"""What an operator sees where the kernel itself bounds an app, counts it and ends it.

`make check-cgroup` gives these tests a machine with a delegated group; elsewhere they are skipped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from att_server.supervisor.cgroup import delegated
from tests.cli.att import Here, here, python
from tests.server_process import ServerProcess, alive, wait_until

MIB = 1024 * 1024
NOBODY = 65534

DAEMON = """
import os, sys, time

def awaited(name):
    while not os.path.exists(name):
        time.sleep(0.01)

# Without the app's environment, its session and its parents there is no telling whose it is.
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sh", ["sh", "-c", "echo $$ > daemon; exec sleep 600"], {})
    os._exit(0)
os.wait()
awaited("daemon")
"""
WAITS = DAEMON + "time.sleep(600)"
TAKES = (
    DAEMON
    + """
if os.fork() == 0:
    awaited("go")
    taken = []
    while True:
        taken.append(b"x" * (8 << 20))
time.sleep(600)
"""
)
SHELL_TAKES = "until [ -e go ]; do sleep 0.1; done; tail /dev/zero & wait"
"""What never ends a line has no last one, and is kept as a whole."""
FORKS = (
    DAEMON
    + """
awaited("go")
while True:
    try:
        os.fork()
    except BlockingIOError:
        time.sleep(0.1)
"""
)
THREADS = """
import threading, time
count, ended = 1, threading.Event()
try:
    while count < 200:
        threading.Thread(target=ended.wait).start()
        count += 1
except RuntimeError:
    print("no more than", count)
ended.set()
"""


class Operator:
    """Somebody with the `att` command, a server, and a directory for each app."""

    def __init__(self, run: Here, server: ServerProcess) -> None:
        self._run = run
        self._started: list[str] = []
        self.server = server

    def att(self, *words: str) -> list[dict[str, object]]:
        """What a command says, line by line."""
        ended = self._run(*words, "--json", "--target", self.server.target)
        assert ended.code == 0, ended.stderr
        return ended.items

    def start(self, name: str, command: Sequence[str], *limits: str) -> App:
        """A new app."""
        directory = Path(tempfile.mkdtemp(dir=self.server.state_dir.parent))
        directory.chmod(0o777)
        words = ("--path", str(directory), "--command", shlex.join(command))
        self.att("project", "create", name, *words, *limits)
        self._started.append(name)
        return App(self, name, directory)

    def stop_all(self) -> None:
        for name in self._started:
            self.att("stop", name, "--grace", "0")


class App:
    """An app that was started, and the group that it is in."""

    def __init__(self, operator: Operator, name: str, directory: Path) -> None:
        self._att = operator.att
        self.name = name
        self.directory = directory
        (started,) = self._att("start", name)
        self.pid = int(str(started["pid"]))
        self.group = group_of(self.pid)

    @property
    def status(self) -> dict[str, object]:
        (status,) = self._att("status", self.name)
        return status

    def tree(self) -> set[int]:
        """The main process and the daemon, once that is there."""
        told = self.directory / "daemon"
        wait_until(lambda: told.exists() and told.read_text().endswith("\n"), "the daemon")
        tree = {self.pid, int(told.read_text())}
        assert {group_of(pid) for pid in tree} == {self.group}
        return tree

    def go(self) -> None:
        (self.directory / "go").touch()

    def reason_of_end(self) -> object:
        wait_until(lambda: self.status["state"] == "exited", f"the end of {self.name}")
        return self.status["reason"]

    def runs_on(self) -> bool:
        status = self.status
        return (status["state"], status["pid"]) == ("ready", self.pid) and alive(self.pid)

    def gone(self, tree: set[int]) -> bool:
        return not self.group.exists() and not any(map(alive, tree))

    def kill_supervisor(self) -> None:
        supervisor = psutil.Process(self.pid).parent()
        assert supervisor is not None
        assert supervisor.name() == "att-supervisor"
        supervisor.kill()
        wait_until(lambda: not alive(supervisor.pid), "the supervisor is gone")


def group_of(pid: int) -> Path:
    (line,) = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return Path("/sys/fs/cgroup", line.removeprefix("0::/"))


@pytest.fixture(scope="module")
def parent() -> Path:
    """The delegated group, in which those of the apps are made."""
    found = delegated()
    if found is None:
        pytest.skip("no control group with memory and pids is delegated, see make check-cgroup")
    return Path(found)


@pytest.fixture(scope="module")
def top(parent: Path) -> Iterator[Path]:
    # Not below pytest's directories: a socket path is short.
    made = Path(tempfile.mkdtemp(prefix="att-cgroup-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def server(top: Path) -> Iterator[ServerProcess]:
    # One for all: it takes half a minute to start where each instruction is emulated.
    with ServerProcess(top / "s") as server:
        yield server


@pytest.fixture
def operator(
    capfd: pytest.CaptureFixture[str], server: ServerProcess, parent: Path
) -> Iterator[Operator]:
    operator = Operator(here(capfd), server)
    yield operator
    operator.stop_all()
    wait_until(lambda: not list(parent.glob("att-*")), "no group is left")


def test_a_child_that_takes_too_much_memory_ends_its_own_tree_and_nothing_else(
    operator: Operator,
) -> None:
    other = operator.start("beside-taker", python(WAITS), "--memory", "128m")
    app = operator.start("taker", python(TAKES), "--memory", "64m")
    tree = app.tree()
    assert (app.group / "memory.max").read_text() == f"{64 * MIB}\n"
    app.go()
    assert app.reason_of_end() == "memory_limit"
    wait_until(lambda: app.gone(tree), "the tree and its group are gone")
    assert other.runs_on()
    assert all(map(alive, other.tree()))


@pytest.fixture
def bound(parent: Path) -> Iterator[Path]:
    """The delegated group's own bound, which is taken away afterwards."""
    # Else the kernel first takes the pages of the server's programs, and what runs crawls.
    kept = group_of(os.getpid()) / "memory.min"
    (parent / "cgroup.subtree_control").write_text("+memory")
    kept.write_text("max")
    yield parent / "memory.max"
    (parent / "memory.max").write_text("max")
    kept.write_text("0")


def test_memory_that_lacks_around_an_app_is_another_reason_than_its_own_limit(
    operator: Operator, parent: Path, bound: Path
) -> None:
    other = operator.start("beside-greedy", python(WAITS), "--memory", "128m")
    app = operator.start("greedy", python(TAKES), "--memory", "1000m")
    tree = app.tree()
    used = int((parent / "memory.current").read_text())
    bound.write_text(str(used + 300 * MIB))
    app.go()
    assert app.reason_of_end() == "oom_killed"
    wait_until(lambda: app.gone(tree), "the tree and its group are gone")
    assert other.runs_on()


def test_an_app_that_forks_without_end_is_ended(operator: Operator) -> None:
    other = operator.start("beside-forker", python(WAITS), "--processes", "8")
    app = operator.start("forker", python(FORKS), "--processes", "4")
    tree = app.tree()
    app.go()
    assert app.reason_of_end() == "process_limit"
    wait_until(lambda: app.gone(tree), "the tree and its group are gone")
    assert other.runs_on()


def test_threads_beyond_64_for_each_process_cannot_be_made(operator: Operator) -> None:
    app = operator.start("threads", python(THREADS), "--processes", "1")
    assert app.reason_of_end() == ""
    assert any("no more than 64" in str(line) for line in operator.att("logs", "threads"))


def test_a_stop_ends_the_whole_tree_and_removes_its_group(operator: Operator) -> None:
    app = operator.start("stopped", python(WAITS), "--memory", "128m")
    tree = app.tree()
    operator.att("stop", "stopped", "--grace", "0")
    assert app.status["state"] == "stopped"
    wait_until(lambda: app.gone(tree), "the tree and its group are gone")


def test_a_tree_whose_supervisor_is_killed_is_ended_and_its_group_removed(
    operator: Operator,
) -> None:
    app = operator.start("orphan", python(WAITS), "--memory", "128m")
    tree = app.tree()
    app.kill_supervisor()
    assert app.reason_of_end() == "supervisor_lost"
    assert app.gone(tree)


def test_a_tree_whose_server_is_killed_stays_in_its_group_and_is_adopted(
    operator: Operator,
) -> None:
    app = operator.start("adopted", python(WAITS), "--memory", "128m")
    tree = app.tree()
    operator.server.kill()
    assert app.tree() == tree
    operator.server.start()
    wait_until(app.runs_on, "the app is adopted")
    operator.att("stop", "adopted", "--grace", "0")
    wait_until(lambda: app.gone(tree), "the tree and its group are gone")


def test_a_tree_whose_supervisor_and_server_are_killed_is_ended_by_the_next_server(
    operator: Operator,
) -> None:
    app = operator.start("lost", python(WAITS), "--processes", "8")
    tree = app.tree()
    operator.server.kill()
    app.kill_supervisor()
    operator.server.start()
    assert app.reason_of_end() == "supervisor_lost"
    assert app.gone(tree)


@pytest.fixture
def unprivileged(top: Path, parent: Path) -> Iterator[ServerProcess]:
    """A server of a user to whom the group was given as systemd gives it."""
    given = [
        parent,
        *(parent / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control")),
    ]
    state = top / "u"
    state.mkdir(mode=0o700)
    for path in (*given, state):
        os.chown(path, NOBODY, NOBODY)
    # To read what is closed: the Python of the tests may lie in a directory of root's.
    reads = ("-all,+dac_read_search",)
    under = (
        *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
        *("--inh-caps", *reads, "--ambient-caps", *reads, "--bounding-set", *reads),
    )
    with ServerProcess(state, under=under) as server:
        yield server
    for path in given:
        os.chown(path, 0, 0)


def test_the_kernel_bounds_the_apps_of_a_server_without_privileges(
    unprivileged: ServerProcess, capfd: pytest.CaptureFixture[str], parent: Path
) -> None:
    app = Operator(here(capfd), unprivileged).start(
        "humble", ("sh", "-c", SHELL_TAKES), "--memory", "64m"
    )
    assert app.group.parent == parent
    assert app.group.owner() == "nobody"
    app.go()
    assert app.reason_of_end() == "memory_limit"
    wait_until(lambda: app.gone({app.pid}), "the tree and its group are gone")

"""Control groups hold a tree together where they may be used, and are left nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from att_server.supervisor import cgroup
from att_server.supervisor.app_process import AppProcess
from att_server.supervisor.cgroup import Cgroup, delegated, reason_of_events
from att_server.supervisor.limits import Limits
from tests.server_process import wait_until

LOG = "01M836MS9NWDXNHMM232WWS8GD"


def writable_group() -> str | None:
    """Where this host lets us make groups, if it does."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, directory, kind, *_ = line.split()
            probe = Path(directory, f"att-probe-{uuid.uuid4().hex}")
            if kind == "cgroup2":
                try:
                    probe.mkdir()
                    probe.rmdir()
                except OSError:
                    continue
                return directory
    return None


HERE = writable_group()

if HERE is not None:

    @pytest.fixture
    def parent() -> Iterator[str]:
        """A group of our own, in which groups can be made, though nothing be bounded."""
        assert HERE is not None
        made = Path(HERE, f"att-test-{uuid.uuid4().hex}")
        made.mkdir()
        yield str(made)
        for group in made.iterdir():
            if group.is_dir():
                Cgroup(str(made), group.name.removeprefix("att-")).clear()
        made.rmdir()

    def tree_in(group: Cgroup) -> AppProcess:
        """A tree of which one process has left its session, and another its parent."""
        script = "setsid sleep 60 & (sleep 60 &) ; sleep 60 & wait"
        app = AppProcess(["sh", "-c", script], "/", {"PATH": os.environ["PATH"]}, cgroup=group)
        wait_until(lambda: len(group.pids()) == 4, "the tree")
        return app

    def ended(app: AppProcess) -> None:
        os.waitpid(app.pid, 0)
        os.close(app.stdout)
        os.close(app.stderr)

    def test_a_whole_tree_is_in_its_group_and_ends_with_it(parent: str) -> None:
        group = Cgroup.made(parent, LOG, Limits())
        app = tree_in(group)
        assert app.pid in group.pids()
        assert os.getpid() not in group.pids()
        group.kill()
        wait_until(lambda: group.pids() in ([], [app.pid]), "killed")
        ended(app)
        group.close()
        assert not os.path.exists(group.path)

    def test_what_a_killed_supervisor_left_is_cleared_by_the_next(parent: str) -> None:
        app = tree_in(Cgroup.made(parent, LOG, Limits()))
        group = Cgroup.made(parent, LOG, Limits())
        assert group.pids() == []
        ended(app)
        group.clear()
        assert not os.path.exists(group.path)
        group.clear()

    def test_a_group_with_processes_is_not_removed_by_closing(parent: str) -> None:
        group = Cgroup.made(parent, LOG, Limits())
        app = tree_in(group)
        group.close()
        assert len(group.pids()) == 4
        group.kill()
        ended(app)

    def test_a_group_that_cannot_be_bounded_is_not_left(parent: str) -> None:
        with pytest.raises(OSError, match=r"memory\.max"):
            Cgroup.made(parent, LOG, Limits(memory_bytes=1 << 30))
        assert not os.path.exists(Cgroup(parent, LOG).path)

    def test_an_app_whose_group_is_gone_is_a_start_error(parent: str) -> None:
        group = Cgroup(parent, "none")
        program = (
            "import sys; sys.path.append(sys.argv[1])\n"
            "from att_server.supervisor.app_process import AppProcess, StartFailed\n"
            "from att_server.supervisor.cgroup import Cgroup\n"
            "try: AppProcess(['true'], '/', {}, cgroup=Cgroup(sys.argv[2], 'none'))\n"
            "except StartFailed as error: print(error.failure)"
        )
        assert not os.path.exists(group.path)
        command = [sys.executable, "-I", "-S", "-c", program, os.getcwd(), parent]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"start_error\n"


# Where groups may be made ---------------------------------------------------


def delegate(directory: Path) -> None:
    """Says that it is delegated, as systemd does, by the name that its file system takes."""
    try:
        os.setxattr(directory, "user.delegate", b"1")
    except OSError:  # a tmpfs before Linux 6.6
        os.setxattr(directory, "trusted.delegate", b"1")


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """What a host looks like whose server is in a subgroup of a delegated group."""
    unit = tmp_path / "cg" / "system.slice" / "att.service"
    (unit / "server").mkdir(parents=True)
    (unit / "cgroup.controllers").write_text("cpu memory pids\n")
    (unit / "cgroup.procs").write_text("")
    delegate(unit)
    (tmp_path / "cgroup").write_text("0::/system.slice/att.service/server\n")
    return tmp_path


def found(system: Path) -> str | None:
    delegated.cache_clear()
    try:
        return delegated(str(system / "cg"), str(system / "cgroup"))
    finally:
        delegated.cache_clear()


UNIT = Path("cg/system.slice/att.service")


def test_groups_are_made_beside_that_of_the_server(system: Path) -> None:
    assert found(system) == str(system / UNIT)


def test_a_group_that_is_not_delegated_is_left_alone(system: Path) -> None:
    for name in os.listxattr(system / UNIT):
        os.removexattr(system / UNIT, name)
    assert found(system) is None


def test_a_group_with_processes_of_its_own_is_left_alone(system: Path) -> None:
    (system / UNIT / "cgroup.procs").write_text("1\n")
    assert found(system) is None


def test_a_group_without_the_controllers_is_of_no_use(system: Path) -> None:
    (system / UNIT / "cgroup.controllers").write_text("cpu pids\n")
    assert found(system) is None


@pytest.mark.parametrize(
    "membership", ["", "0::/\n", "4:memory:/a/b\n1:cpu:/\n", "0::/gone/elsewhere\n"]
)
def test_other_places_have_no_groups_for_us(system: Path, membership: str) -> None:
    (system / "cgroup").write_text(membership)
    assert found(system) is None


def test_without_bounds_on_the_tree_no_group_is_made() -> None:
    assert Cgroup.for_run(LOG, Limits(open_files=100, cpu_time=10)) is None
    cgroup.clear(LOG)  # nothing to do


# What the kernel did --------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ("low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n", ""),
        ("low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\noom_group_kill 1\n", "memory_limit"),
        ("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n", "oom_killed"),
        ("low 0\nhigh 0\nmax 90\noom 0\noom_kill 0\n", ""),
        ("", ""),
    ],
)
def test_the_events_of_a_group_say_why_it_was_killed(events: str, reason: str) -> None:
    assert reason_of_events(events) == reason

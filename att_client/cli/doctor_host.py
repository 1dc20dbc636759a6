"""The part of `att doctor` that looks at what the host allows."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from att_client.cli.checks import Check, Verdict, check

WANTED_PIPE_BYTES = 256 << 10
WANTED_OPEN_FILES = 4096
_PIPES_PER_APP = 2
_CONTROLLERS = frozenset({"memory", "pids"})
_CAP_SYS_ADMIN = 21
_CAP_SYS_RESOURCE = 24
_ENOUGH = 0.8


def host_checks(server_pid: int | None, running_apps: int) -> Iterator[Check]:
    """All findings on the host.

    server_pid: None where no server runs; then what one that is started from here
    would get. running_apps: under supervisors now.
    """
    yield _kernel()
    yield _pipe_size()
    yield _pipe_quota(running_apps)
    yield _open_files(server_pid)
    yield _processes()
    yield _control_groups(server_pid)
    yield _out_of_memory(server_pid)


def _kernel() -> Check:
    advice = "supervisors and `att shutdown` need pidfd_open: Linux 5.3 or later"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return check("kernel", False, f"{os.uname().release}: {error.strerror}", advice)
    return check("kernel", True, f"{os.uname().release}, with pidfd_open", advice)


def _pipe_size() -> Check:
    read, write = os.pipe()
    with closing(os.fdopen(read)), closing(os.fdopen(write, "w")):
        try:
            size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, WANTED_PIPE_BYTES)
        except OSError:
            size = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    return check(
        "pipe size",
        size >= WANTED_PIPE_BYTES,
        f"{size >> 10} KiB",
        f"floods are captured slower; sysctl fs.pipe-max-size={WANTED_PIPE_BYTES} or more",
        Verdict.WARN,
    )


def _pipe_quota(running_apps: int) -> Check:
    name = "fs.pipe-user-pages-soft"
    quota = _number("/proc/sys/" + name.replace(".", "/"))
    pages = _PIPES_PER_APP * WANTED_PIPE_BYTES // resource.getpagesize()
    if not quota or _may(_CAP_SYS_RESOURCE) or _may(_CAP_SYS_ADMIN):
        return check("pipe quota", True, "none for this user", "")
    room = quota // pages
    return check(
        "pipe quota",
        running_apps < room * _ENOUGH,
        f"{quota:,} pages, pipes for {room} apps; {running_apps} run",
        f"apps beyond it get pipes of 8 KiB, which slows what they print; sysctl {name}="
        f"{pages * max(1000, 2 * running_apps)}",
        Verdict.WARN,
    )


def _open_files(server_pid: int | None) -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = 0
    if server_pid is not None:
        with suppress(OSError, ValueError):
            used = len(os.listdir(f"/proc/{server_pid}/fd"))
            soft, hard = resource.prlimit(server_pid, resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    by_server = f"the server has {used} open, " if used else ""
    advice = f"for many apps and followers: ulimit -n {WANTED_OPEN_FILES}, or LimitNOFILE= in "
    return check(
        "open files",
        unlimited or soft >= max(WANTED_OPEN_FILES, used / _ENOUGH),
        f"{by_server}limit {'none' if unlimited else soft}, may be raised to {hard}",
        advice + "its unit",
        Verdict.WARN if unlimited or used < soft * 0.95 else Verdict.FAIL,
    )


def _processes() -> Check:
    """Processes and threads: of this user, and of the control group."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    bounds = [("in the system", _threads(None), _number("/proc/sys/kernel/threads-max"))]
    if soft != resource.RLIM_INFINITY and not _may(_CAP_SYS_RESOURCE):
        bounds.append(("of this user", _threads(os.getuid()), soft))
    group = _group(None)
    if group is not None:
        bounds.append(
            ("in the control group", _number(group / "pids.current"), _number(group / "pids.max"))
        )
    bounds = [bound for bound in bounds if bound[2]]
    tight = [bound for bound in bounds if bound[1] >= bound[2] * _ENOUGH]
    where, used, limit = (tight or bounds or [("in the system", 0, 0)])[-1]
    return check(
        "processes",
        not tight,
        f"{used:,} of {limit:,} {where}",
        "apps will fail to start: end some, or raise the limit (ulimit -u, TasksMax= in the unit, "
        "sysctl kernel.threads-max)",
        Verdict.WARN,
    )


def _control_groups(server_pid: int | None) -> Check:
    watched = "supervisors watch memory and processes themselves, by looking twice a second"
    advice = (
        f"{watched}; for the kernel to do it run the server as a unit with Delegate=yes and "
        "DelegateSubgroup=server (systemd 254)"
    )
    group = _group(server_pid)
    if group is None:
        return check("control groups", False, "no version 2 here", advice, Verdict.WARN)
    parent = group.parent
    if not (_delegated(parent) and os.access(parent, os.W_OK)):
        return check("control groups", False, f"{group}, not delegated", advice, Verdict.WARN)
    with suppress(OSError):
        found = set((parent / "cgroup.controllers").read_text().split())
        empty = not (parent / "cgroup.procs").read_text()
        detail = f"{parent}, delegated with {', '.join(sorted(found)) or 'no controllers'}"
        if not empty:
            detail += ", but the server is in it"
        good = empty and found >= _CONTROLLERS
        return check("control groups", good, detail, advice, Verdict.WARN)
    return check("control groups", False, f"{parent} cannot be read", advice, Verdict.WARN)


def _out_of_memory(server_pid: int | None) -> Check:
    pid = os.getpid() if server_pid is None else server_pid
    whose = "of a server started here" if server_pid is None else "of the server"
    adjust = _number(f"/proc/{pid}/oom_score_adj")
    if _number("/proc/sys/vm/panic_on_oom"):
        return check(
            "out of memory",
            False,
            "the host goes down when memory runs out",
            "sysctl vm.panic_on_oom=0",
            Verdict.WARN,
        )
    if adjust < 0:
        advice = "apps inherit it, so the kernel spares the one that eats the memory; start it at 0"
    else:
        advice = "the kernel takes it and its apps before others; start it at 0 (OOMScoreAdjust=)"
    return check(
        "out of memory", adjust == 0, f"oom_score_adj {whose} is {adjust}", advice, Verdict.WARN
    )


def _group(pid: int | None) -> Path | None:
    """The directory of the process's control group of version 2."""
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        return None
    with suppress(OSError):
        for line in Path(f"/proc/{pid or 'self'}/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return root / line[4:]
    return None


def _delegated(group: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(group, name) == b"1":
                return True
    return False


def _threads(user: int | None) -> int:
    """The threads of a user's processes, or of all."""
    total = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                if user is None or entry.stat().st_uid == user:
                    # Links of the directory: itself, its name, one for each thread.
                    total += max(1, os.stat(f"/proc/{entry.name}/task").st_nlink - 2)
    return total


def _may(capability: int) -> bool:
    """Whether this process has a capability."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def _number(path: str | Path) -> int:
    """The number in a file; 0 if there is none."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return 0

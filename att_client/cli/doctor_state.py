"""The part of `att doctor` that looks at a state directory, also with no server.

Nothing is opened for writing, and no lock is tried: a look must not keep a
server or supervisor that starts at this moment from taking it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from att_client.cli.checks import Check, Verdict, check

MAX_SOCKET_PATH = 107
# A state directory wants locks, atomic renames and syncs that mean what they say.
_REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph"})
_MIN_INODES = 10_000
_ENDED = frozenset({"stopped", "exited", "failed"})
_CLOCK_SLACK = timedelta(seconds=2)
_LOADING = timedelta(seconds=10)
_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The server that holds the state directory. start_time: by its own word."""

    pid: int
    start_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisors:
    """Project ids by what became of their last supervisor."""

    running: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def state_checks(directory: Path) -> Iterator[Check]:
    """All findings on a state directory, which need not exist."""
    existing = directory
    while not existing.exists():
        existing = existing.parent
    usable = check(
        "state directory",
        os.access(existing, os.W_OK | os.X_OK),
        f"{directory} does not exist yet",
        f"make {existing} writable, or choose another with --state-dir or ATT_STATE_DIR",
    )
    if os.path.lexists(directory):
        usable = _directory(directory)
    yield usable
    if os.path.lexists(directory / "settings.toml"):
        yield _server_settings(directory / "settings.toml")
    if os.path.lexists(directory / "refused.json"):
        yield _last_start(directory / "refused.json")
    yield from _disk(directory, existing)
    yield _socket_path(directory)
    if existing == directory and usable.verdict is Verdict.OK:
        holder = find_holder(directory)
        yield _lock(directory, holder)
        yield _supervisors(find_supervisors(directory), holder)
        yield _clock(directory, holder)


def _server_settings(path: Path) -> Check:
    """The server's own settings decide on gates; what they may say, the server checks."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            tomllib.load(file)
        wrong = ""
    except (OSError, ValueError) as error:
        return check("server settings", False, f"{path}: {error}", "correct or remove the file")
    if status.st_uid != os.geteuid():
        wrong = f"belongs to the user {status.st_uid}"
    elif status.st_mode & 0o077:
        wrong = f"has mode {stat.S_IMODE(status.st_mode):04o}"
    return check(
        "server settings",
        not wrong,
        f"{path} {wrong or 'is its owner’s alone'}",
        f"have it belong to the server's user, and `chmod 600 {path}`: cycles fail until then",
    )


def _last_start(path: Path) -> Check:
    """Why the server does not serve, in its own words; the next one that does removes the file."""
    form = _json(path)
    detail = f"refused at {form.get('time')}: {form.get('reason')}: {form.get('message')}"
    return check("last start", False, detail, "do what it says, and run `att serve` again")


def find_holder(directory: Path) -> Holder | None:
    """The process that holds the state directory, as the lock says and the kernel knows.

    /proc/locks would name who locked first: a server hands its lock on.
    """
    path = directory / "att.lock"
    try:
        form = _json(path)
        pid = form.get("pid")
        if not isinstance(pid, int):
            return None
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if descriptor.exists() and descriptor.samefile(path):
                return Holder(pid=pid, start_time=_time(form.get("start_time")))
    except OSError:
        return None
    return None


def find_supervisors(directory: Path) -> Supervisors:
    """What the last supervisor of each project wrote, and whether it is still there."""
    running: list[str] = []
    lost: list[str] = []
    unreadable: list[str] = []
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for project in sorted((directory / "projects").glob("*")):
        states = sorted(project.glob("supervisors/*/state.json"))
        if not states:
            continue
        form = _json(states[-1])
        state, pid, ticks = form.get("state"), form.get("pid"), form.get("start_ticks")
        if not (isinstance(state, str) and isinstance(pid, int)):
            unreadable.append(project.name)
        elif state not in _ENDED:
            alive = form.get("boot_id") == boot and start_ticks(pid) == ticks
            (running if alive else lost).append(project.name)
    return Supervisors(running=tuple(running), lost=tuple(lost), unreadable=tuple(unreadable))


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since the boot; None if there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return int(line.rpartition(")")[2].split()[19])


# Directory and disk ---------------------------------------------------------


def _directory(path: Path) -> Check:
    facts = path.lstat()
    mode = stat.S_IMODE(facts.st_mode)
    detail = f"{path}, mode {mode:04o}, owner {facts.st_uid}"
    if not stat.S_ISDIR(facts.st_mode):
        what = "a symbolic link" if path.is_symlink() else "no directory"
        advice = "the server refuses it; name the directory itself"
        return check("state directory", False, f"{path} is {what}", advice)
    if facts.st_uid != os.geteuid():
        advice = f"it belongs to another user: run as user {facts.st_uid}, or choose another"
        return check("state directory", False, detail, advice)
    if mode & 0o077:
        return check("state directory", False, detail, f"chmod 700 {path}")
    good = os.access(path, os.W_OK | os.X_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY
    return check("state directory", good, detail, "make it writable, or choose another")


def _disk(directory: Path, existing: Path) -> Iterator[Check]:
    kind = _filesystem(existing)
    if kind in _REMOTE_FILESYSTEMS:
        advice = "locks and syncs may not hold there; choose a local disk with --state-dir"
    else:
        advice = "the log is gone after a reboot; choose a disk with --state-dir"
    good = kind not in _REMOTE_FILESYSTEMS | {"tmpfs", "ramfs"}
    yield check("filesystem", good, kind, advice, Verdict.WARN)
    foreign = _on_other_disks(directory)
    yield check(
        "log storage",
        not foreign,
        f"links or other disks: {_names(foreign)}" if foreign else "on the same disk",
        "put them below the state directory itself: what is renamed has to stay on one disk",
        Verdict.WARN,
    )
    space = os.statvfs(existing)
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    yield check(
        "free space",
        free >= total // 10,
        f"{free / (1 << 30):.1f} GiB of {total / (1 << 30):.1f} GiB",
        "under a tenth is free: make room, or choose another disk with --state-dir",
        Verdict.WARN if free > 64 << 20 else Verdict.FAIL,
    )
    # Filesystems that make inodes as they need them say 0 of 0.
    yield check(
        "free inodes",
        not space.f_files or space.f_favail >= _MIN_INODES,
        f"{space.f_favail:,} of {space.f_files:,}" if space.f_files else "as many as are needed",
        "few files can be made there: remove some, or choose another disk with --state-dir",
        Verdict.WARN if space.f_favail > 100 else Verdict.FAIL,
    )


def _on_other_disks(directory: Path) -> list[str]:
    """The projects whose logs lie on another disk, or behind a link."""
    try:
        device = directory.stat().st_dev
        paths = [*directory.glob("projects"), *directory.glob("projects/*")]
        paths += directory.glob("projects/*/logs")
        found = [path for path in paths if path.is_symlink() or path.stat().st_dev != device]
    except OSError:
        return []
    return [str(path.relative_to(directory)) for path in found]


def _filesystem(path: Path) -> str:
    """The type of the filesystem that `path`, which exists, lies on."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    resolved = str(path.resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        number, mount = fields.split()[2], fields.split()[4]
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if (number == wanted or inside) and inside and len(mount) >= len(best):
            best, kind = mount, rest.split()[0]
    return kind


# Sockets and supervisors ----------------------------------------------------


def _socket_path(directory: Path) -> Check:
    length = len(os.fsencode(directory / "att.sock"))
    return check(
        "socket path",
        length <= MAX_SOCKET_PATH,
        f"{length} of at most {MAX_SOCKET_PATH} bytes",
        "choose a shorter --state-dir",
    )


def _lock(directory: Path, holder: Holder | None) -> Check:
    there = (directory / "att.sock").is_socket()
    if holder is None:
        left = ", and the socket of one that was killed; the next one replaces it" if there else ""
        return check("server lock", True, f"no server holds the directory here{left}", "")
    # A server that was told to listen elsewhere has its socket there.
    listens = there or _listens_elsewhere(holder.pid)
    return check(
        "server lock",
        listens,
        f"held by process {holder.pid}" + ("" if listens else ", whose socket is gone"),
        f"nobody can reach it: kill -TERM {holder.pid}, and start it again; apps run on",
    )


def _listens_elsewhere(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.startswith(b"--listen") for word in words)


def _supervisors(found: Supervisors, holder: Holder | None) -> Check:
    detail = f"{len(found.running)} run an app"
    wrong = found.lost + found.unreadable
    if found.lost:
        detail += f", lost: {_names(found.lost)}"
    if found.unreadable:
        detail += f", unreadable: {_names(found.unreadable)}"
    if holder is None:
        advice = "start the server: it ends what they left, and starts what should run"
    else:
        advice = "look at `att status` and the server's log; it tries again every few seconds"
    return check("supervisors", not wrong, detail, advice, Verdict.WARN)


# Clock ----------------------------------------------------------------------


def _clock(directory: Path, holder: Holder | None) -> Check:
    """Against what was recorded by it, and against the time since the boot."""
    now = datetime.now(UTC)
    newest = max((_newest_event(directory), *_newest_records(directory)), default=now)
    step = _step(holder, now)
    detail = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    advice = "let a time service set it (timedatectl set-ntp true)"
    if newest > now + _CLOCK_SLACK:
        return check(
            "clock",
            False,
            f"{detail}, {_rounded(newest - now)} behind the newest record in the directory",
            f"times in logs stand still until then; {advice}",
            Verdict.WARN,
        )
    good = not step
    turned = "forward" if step > timedelta() else "back"
    return check(
        "clock",
        good,
        detail
        if good
        else f"{detail}, set {turned} by {_rounded(abs(step))} since the server started",
        f"times of before and after do not compare; {advice}",
        Verdict.WARN,
    )


def _newest_event(directory: Path) -> datetime:
    query = "SELECT time FROM event ORDER BY sequence DESC LIMIT 1"
    try:
        with closing(sqlite3.connect(f"{(directory / 'att.db').as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(query).fetchall()
        return datetime.fromisoformat(rows[0][0]).replace(tzinfo=UTC)
    except (sqlite3.Error, IndexError, ValueError, TypeError):
        return datetime.min.replace(tzinfo=UTC)


def _newest_records(directory: Path) -> Iterator[datetime]:
    for path in directory.glob("projects/*/logs/head.json"):
        nanoseconds = _json(path).get("time_ns")
        if isinstance(nanoseconds, int) and 0 < nanoseconds < 1 << 62:
            yield datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _step(holder: Holder | None, now: datetime) -> timedelta:
    """By how much the clock was set since the server started; 0 if that cannot be told."""
    ticks = None if holder is None else start_ticks(holder.pid)
    if holder is None or holder.start_time is None or ticks is None:
        return timedelta()
    up = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    step = (now - holder.start_time) - timedelta(seconds=up)
    # It notes its start once it has loaded itself.
    return timedelta() if -_LOADING <= step <= _CLOCK_SLACK else step


def _rounded(duration: timedelta) -> timedelta:
    return timedelta(seconds=round(duration.total_seconds()))


# Files ----------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty if there is none or it is unreadable."""
    try:
        form = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return form if isinstance(form, dict) else {}


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else None


def _names(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"

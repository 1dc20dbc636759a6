"""`att doctor`: what this host and installation have, and what to do about the rest."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import att_client
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, ExitCode
from att_client.cli.output import Output
from att_client.cli.serve import INSTALL_SERVER, missing_server_packages
from att_client.cli.session import Json, Target

MAX_SOCKET_PATH = 107
WANTED_PIPE_BYTES = 256 << 10
WANTED_OPEN_FILES = 4096
# A state directory wants locks, atomic renames and syncs that mean what they say.
_REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph"})


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding; `advice` says what to do, and is empty where all is well."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=EXIT_CODES_HELP, rich_help_panel="First steps")(doctor)


def doctor(
    state_dir: Annotated[
        Path | None,
        typer.Option(help="The server's state directory. Default: as for `att serve`."),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Check what ATT needs on this host. Exits with 1 where a check fails."""
    output = Output(as_json=as_json)
    failed = 0
    rows = []
    for check in checks(state_dir, target):
        failed += check.verdict is Verdict.FAIL
        if as_json:
            output.item(check)
        rows.append((check.verdict.value, check.name, check.detail, check.advice))
    if not as_json:
        output.table(("", "CHECK", "FOUND", "WHAT TO DO"), rows)
    if failed:
        output.error(
            CommandError("CHECKS_FAILED", f"{failed} of {len(rows)} checks failed. See above.")
        )
        raise typer.Exit(ExitCode.FAILED)


def checks(state_dir: Path | None, target: str | None) -> Iterator[Check]:
    """Makes all checks, one after the other.

    state_dir: None for the one of a server that is given none.
    """
    yield _python()
    yield _packages()
    yield _server_packages()
    try:
        directory = _default_state_dir() if state_dir is None else state_dir.absolute()
        yield from _state_directory(directory)
        yield _socket_path(directory)
        yield _server(target)
    except att_client.ConfigInvalidError as error:
        yield _check("settings", False, error.message, "correct the argument or variable")
    yield _tool("git", ["git", "--version"], "release cycles need git 2.34 or later; install it")
    yield _tool("node", ["node", "--version"], "only the Node examples need it")
    yield _pipe_size()
    yield _open_files()


def _check(name: str, good: bool, detail: str, advice: str, bad: Verdict = Verdict.FAIL) -> Check:
    verdict = Verdict.OK if good else bad
    return Check(name=name, verdict=verdict, detail=detail, advice="" if good else advice)


def _default_state_dir() -> Path:
    environment = {name: value for name, value in os.environ.items() if name != "ATT_TARGET"}
    return Path(att_client.Config.from_env(environment).target.removeprefix("unix:")).parent


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.release()}"
    good = sys.version_info >= (3, 11) and sys.platform == "linux"
    return _check("python", good, detail, "ATT runs on Linux with Python 3.11 or later")


def _packages() -> Check:
    found, missing = [], []
    for name in ("att-control", "grpcio", "protobuf", "betterproto2", "typer", "rich"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    detail = ", ".join(found + [f"{name} missing" for name in missing])
    return _check("packages", not missing, detail, "pip install att-control", Verdict.WARN)


def _server_packages() -> Check:
    missing = missing_server_packages()
    detail = f"{', '.join(missing)} missing" if missing else "installed"
    advice = f"to run a server here: {INSTALL_SERVER}"
    return _check("server packages", not missing, detail, advice, Verdict.WARN)


def _state_directory(path: Path) -> Iterator[Check]:
    existing = path
    while not existing.exists():
        existing = existing.parent
    if existing == path:
        yield _permissions(path)
    else:
        yield _check(
            "state directory",
            os.access(existing, os.W_OK | os.X_OK),
            f"{path} does not exist yet",
            f"make {existing} writable, or choose another with --state-dir or ATT_STATE_DIR",
        )
    kind = _filesystem(existing)
    if kind in _REMOTE_FILESYSTEMS:
        advice = "locks and syncs may not hold there; choose a local disk with --state-dir"
    else:
        advice = "the log is gone after a reboot; choose a disk with --state-dir"
    good = kind not in _REMOTE_FILESYSTEMS | {"tmpfs", "ramfs"}
    yield _check("filesystem", good, kind, advice, Verdict.WARN)
    usage = shutil.disk_usage(existing)
    yield _check(
        "free space",
        usage.free >= usage.total // 10,
        f"{usage.free / (1 << 30):.1f} GiB of {usage.total / (1 << 30):.1f} GiB",
        "under a tenth is free: make room, or choose another disk with --state-dir",
        Verdict.WARN,
    )


def _permissions(path: Path) -> Check:
    facts = os.stat(path)
    mode = stat.S_IMODE(facts.st_mode)
    detail = f"{path}, mode {mode:04o}, owner {facts.st_uid}"
    if not stat.S_ISDIR(facts.st_mode):
        return _check("state directory", False, f"{path} is no directory", "choose another")
    if facts.st_uid != os.geteuid():
        advice = f"it belongs to another user: run as user {facts.st_uid}, or choose another"
        return _check("state directory", False, detail, advice)
    if mode & 0o077:
        return _check("state directory", False, detail, f"chmod 700 {path}")
    good = os.access(path, os.W_OK | os.X_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY
    return _check("state directory", good, detail, "make it writable, or choose another")


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


def _socket_path(state_dir: Path) -> Check:
    length = len(os.fsencode(state_dir / "att.sock"))
    return _check(
        "socket path",
        length <= MAX_SOCKET_PATH,
        f"{length} of at most {MAX_SOCKET_PATH} bytes",
        "choose a shorter --state-dir",
    )


def _server(target: str | None) -> Check:
    async def ask() -> str:
        async with asyncio.timeout(5), att_client.connect(target) as att:
            info = await att.server.info()
            return f"version {info.version}, pid {info.pid}, {info.state_dir}"

    advice = "start one with `att serve`"
    try:
        return _check("server", True, asyncio.run(ask()), advice)
    except (att_client.UnavailableError, TimeoutError) as error:
        return _check("server", False, str(error) or "no answer", advice, Verdict.WARN)
    except att_client.ConfigInvalidError:
        raise
    except att_client.AttError as error:
        return _check("server", False, error.message, "look at the server's log")


def _tool(name: str, command: list[str], advice: str) -> Check:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return Check(name=name, verdict=Verdict.WARN, detail="not found", advice=advice)
    return Check(name=name, verdict=Verdict.OK, detail=result.stdout.strip())


def _pipe_size() -> Check:
    read, write = os.pipe()
    with closing(os.fdopen(read)), closing(os.fdopen(write, "w")):
        try:
            size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, WANTED_PIPE_BYTES)
        except OSError:
            size = fcntl.fcntl(write, fcntl.F_GETPIPE_SZ)
    return _check(
        "pipe size",
        size >= WANTED_PIPE_BYTES,
        f"{size >> 10} KiB",
        f"floods are captured slower; sysctl fs.pipe-max-size={WANTED_PIPE_BYTES} or more",
        Verdict.WARN,
    )


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _check(
        "open files",
        soft == resource.RLIM_INFINITY or soft >= WANTED_OPEN_FILES,
        f"limit {soft}, may be raised to {hard}",
        f"for many apps and followers: ulimit -n {WANTED_OPEN_FILES}",
        Verdict.WARN,
    )

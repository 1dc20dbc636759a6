"""The state directory: one server holds it, and nobody else may look into it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused

LOCK_NAME = "att.lock"

_CONTENT_BYTES = 512
_LOOKED_AT = 0.2
"""Seconds in which those who look at the lock have let go of it."""


class Tenure(StrEnum):
    """How far the one who holds the state directory is, as the lock file says."""

    BEGINS = "begins"
    SERVES = "serves"
    ENDED = "ended"
    """It was asked to end, and did: nobody has to start another one for it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The hold of a state directory. descriptor: of the lock, which may be handed on."""

    descriptor: int
    _holder: Mapping[str, object]

    def tell(self, tenure: Tenure) -> None:
        """Says how far the holder is, to whoever reads the lock file. Raises OSError."""
        content = json.dumps({**self._holder, "tenure": tenure}).encode()
        # In place and always as long: a full disk takes it, and no reader sees half of it.
        os.pwrite(self.descriptor, content.ljust(_CONTENT_BYTES), 0)


@contextmanager
def state_directory(
    directory: Path,
    *,
    socket_path: Path,
    instance_id: str,
    start_time: datetime,
    launch: int = 0,
    lock: int | None = None,
) -> Iterator[Hold]:
    """Makes or checks `directory`, and holds it while the context is open.

    directory: absolute. socket_path: where the server will listen; its own
    directory has to be as private. instance_id, start_time, launch: told to whoever
    looks; with a launch, the launcher may answer on the socket until the holder does.
    lock: was handed over by the holder before, and is closed with the context.
    The lock is the process's and ends with it, whatever becomes of
    its file; a fork has to close what it inherits. Raises StartRefused:
    INSECURE_STATE_DIR, STATE_DIR_NOT_WRITABLE, ALREADY_RUNNING.
    """
    make_private(directory)
    _check_writable(directory)
    if socket_path.parent != directory:
        check_private(socket_path.parent)
    descriptor = _lock(directory) if lock is None else lock
    try:
        if not launch:
            _refuse_live_socket(socket_path)
        hold = Hold(
            descriptor,
            {
                "pid": os.getpid(),
                "instance_id": instance_id,
                "start_time": start_time.isoformat(),
                "launch": launch,
            },
        )
        hold.tell(Tenure.BEGINS)
        yield hold
    finally:
        # The file stays: who removed it could remove one that another has just locked.
        os.close(descriptor)


def is_held(directory: Path) -> bool:
    """Whether somebody holds the state directory now."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def make_private(directory: Path) -> None:
    """Makes `directory` where it is missing, and checks it. Raises as `check_private`."""
    _make(directory)
    check_private(directory)


def _make(directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return  # what it is, is checked next
    except OSError as error:
        raise _not_writable(directory, error) from error


def check_private(directory: Path) -> None:
    """Returns if the directory is ours and closed to all others.

    Raises StartRefused: INSECURE_STATE_DIR, STATE_DIR_NOT_WRITABLE.
    """
    try:
        status = directory.lstat()
    except OSError as error:
        raise _not_writable(directory, error) from error
    wrong = ""
    if not stat.S_ISDIR(status.st_mode):
        wrong = "is a symbolic link or no directory. Name the directory itself."
    elif status.st_uid != os.geteuid():
        wrong = f"belongs to user {status.st_uid}, not to {os.geteuid()}. Choose another one."
    elif status.st_mode & 0o077:
        wrong = (
            f"is open to other users (mode {stat.S_IMODE(status.st_mode):04o}). "
            f"Close it: chmod 700 {directory}"
        )
    if wrong:
        raise StartRefused(RefusalReason.INSECURE_STATE_DIR, f"{directory} {wrong}")


def _check_writable(directory: Path) -> None:
    # By writing: modes say nothing of a read-only mount, nor to root.
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"\0")
    except OSError as error:
        raise _not_writable(directory, error) from error


def _lock(directory: Path) -> int:
    path = directory / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        _take(descriptor)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise StartRefused(
            RefusalReason.ALREADY_RUNNING,
            f"{holder} serves {directory} already. Use it, or stop it with `att shutdown`.",
        ) from error
    return descriptor


def _take(descriptor: int) -> None:
    """Locks it. Raises BlockingIOError where it is held, and not only looked at."""
    deadline = time.monotonic() + _LOOKED_AT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            # Whoever looks with `is_held` has it for a moment.
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOKED_AT / 20)


def _holder(descriptor: int) -> str:
    """Who holds the lock, in words. It may have locked and not written yet."""
    try:
        return f"Process {json.loads(os.pread(descriptor, 4096, 0))['pid']}"
    except (ValueError, KeyError, TypeError):
        return "Another process"


def _refuse_live_socket(path: Path) -> None:
    """Raises ALREADY_RUNNING if somebody listens at `path`: gRPC would replace the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # its backlog is full
        except OSError:
            return
    raise StartRefused(
        RefusalReason.ALREADY_RUNNING,
        f"Another process listens on {path}. Choose another --listen, or stop that process.",
    )


def _not_writable(path: Path, error: OSError) -> StartRefused:
    return StartRefused(
        RefusalReason.STATE_DIR_NOT_WRITABLE,
        f"Cannot write to {path}: {error.strerror}. Choose a --state-dir on a writable disk.",
    )

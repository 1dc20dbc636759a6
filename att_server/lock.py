"""The state directory: one server holds it, and nobody else may look into it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from att_server.core.errors import RefusalReason, StartRefused

LOCK_NAME = "att.lock"


@contextmanager
def state_directory(
    directory: Path, *, socket_path: Path, instance_id: str, start_time: datetime
) -> Iterator[None]:
    """Makes or checks `directory`, and holds it while the context is open.

    directory: absolute. socket_path: where the server will listen; its own
    directory has to be as private. instance_id, start_time: told to whoever
    comes second. The lock is the process's and ends with it, whatever becomes of
    its file; a fork has to close what it inherits. Raises StartRefused:
    INSECURE_STATE_DIR, STATE_DIR_NOT_WRITABLE, ALREADY_RUNNING.
    """
    _make(directory)
    _check_private(directory)
    _check_writable(directory)
    if socket_path.parent != directory:
        _check_private(socket_path.parent)
    descriptor = _lock(directory)
    try:
        _refuse_live_socket(socket_path)
        holder = {
            "pid": os.getpid(),
            "instance_id": instance_id,
            "start_time": start_time.isoformat(),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        # The file stays: who removed it could remove one that another has just locked.
        os.close(descriptor)


def _make(directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return  # what it is, is checked next
    except OSError as error:
        raise _not_writable(directory, error) from error


def _check_private(directory: Path) -> None:
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
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise StartRefused(
            RefusalReason.ALREADY_RUNNING,
            f"{holder} serves {directory} already. Use it, or stop it with `att shutdown`.",
        ) from error
    return descriptor


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

"""A place to make something in before it is shown under its name, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft_directory(target: Path, kind: str) -> Iterator[Path]:
    """An empty directory (0700) beside `target`, removed when the context ends.

    kind: a word that its name, `.<target>.<kind>`, ends with. What a process that
    was killed left there is removed first. Raises BlockingIOError while another
    process has it, OSError.
    """
    path = target.with_name(f".{target.name}.{kind}")
    descriptor = _hold(path)
    try:
        _clear(path)
        yield path
    finally:
        try:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Returns when what was made, renamed and removed in the directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Returns when the directory and everything below it is on the disk."""
    for directory, _, names in os.walk(path):
        for name in names:
            if Path(directory, name).is_symlink():
                continue  # it lies in its directory
            descriptor = os.open(Path(directory, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(directory))


def _hold(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            # The target's directory may be one where others write.
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(errno.EPERM, "is not private to this user", str(path))
            if path.exists() and os.path.samestat(status, path.stat(follow_symlinks=False)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its holder has removed it between our two steps.
        os.close(descriptor)


def _clear(path: Path) -> None:
    for entry in list(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

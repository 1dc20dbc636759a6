"""A backup of a state directory, made while it is used. See docs/decisions/0010-backup.md."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from att_server.adapters.file_backup import copy_files
from att_server.adapters.log_backup import log_files
from att_server.adapters.store_backup import StoreUnreadable, copy_store, good_releases
from att_server.archive import (
    FILES_NAME,
    STORE_NAME,
    ArchiveInfo,
    ArchiveWriter,
    BackupError,
    new_archive,
)
from att_server.drafts import draft_directory, sync_directory

SUFFIXES = (".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What was made. log_bytes, file_bytes: of all projects' logs and files, unpacked."""

    state_dir: Path
    archive: Path
    archive_bytes: int
    projects: int
    log_bytes: int
    file_bytes: int
    time: datetime

    def form(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self) | {
            "state_dir": str(self.state_dir),
            "archive": str(self.archive),
            "time": self.time.isoformat(),
        }


def make(state_dir: Path, archive: Path) -> Backup:
    """Writes a backup of `state_dir`, whether a server runs or not.

    archive: must not exist; it appears when it is whole, with mode 0600. The
    database comes as of the beginning, each log and file as of when its turn came.
    Nobody waits for it. Raises BackupError.
    """
    if not archive.name.endswith(SUFFIXES):
        raise BackupError(
            "ARCHIVE_NAME",
            f"{archive} does not end with .tar.gz, which is what a backup is. Name it so.",
        )
    if os.path.lexists(archive):
        raise BackupError(
            "ARCHIVE_EXISTS", f"{archive} exists, and no backup is overwritten. Choose a new name."
        )
    store = state_dir / STORE_NAME
    if not store.is_file():
        raise BackupError(
            "STATE_NOT_FOUND",
            f"There is no {store}. Name the directory of a server with --state-dir.",
        )
    info = ArchiveInfo(time=datetime.now(UTC), release=version("att-control"))
    with storage_errors(archive), draft_directory(archive, "partial") as draft:
        try:
            log_ids = copy_store(store, draft / STORE_NAME)
            good = good_releases(draft / STORE_NAME)
        except StoreUnreadable as error:
            raise BackupError(
                "STATE_UNREADABLE",
                f"{store} cannot be copied: {error}. `att doctor` looks at the directory.",
            ) from error
        log_bytes = file_bytes = 0
        with new_archive(draft / "archive", info) as new:
            with (draft / STORE_NAME).open("rb") as file:
                new.add(STORE_NAME, file, os.fstat(file.fileno()).st_size)
            for project_id, log_id in sorted(log_ids.items()):
                log_bytes += _add_log(new, state_dir, project_id, log_id)
                copy = draft / FILES_NAME
                size = copy_files(
                    state_dir / "projects" / project_id, copy, good.get(project_id, ())
                )
                if size:
                    with copy.open("rb") as file:
                        new.add(f"projects/{project_id}/{FILES_NAME}", file, size)
                    copy.unlink()
                    file_bytes += size
        size = (draft / "archive").stat().st_size
        (draft / "archive").rename(archive)
        sync_directory(archive.parent)
    return Backup(
        state_dir=state_dir,
        archive=archive,
        archive_bytes=size,
        projects=len(log_ids),
        log_bytes=log_bytes,
        file_bytes=file_bytes,
        time=info.time,
    )


def _add_log(new: ArchiveWriter, state_dir: Path, project_id: str, log_id: str) -> int:
    prefix = f"projects/{project_id}/logs"
    size = 0
    for part in log_files(state_dir / prefix, log_id):
        new.add(f"{prefix}/{part.name}", part.content, part.size)
        size += part.size
    return size


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Makes BackupErrors of the OSErrors inside."""
    try:
        yield
    except BlockingIOError as error:
        raise BackupError(
            "BUSY", f"Another process makes {target} at this moment. Wait for it."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise BackupError(
                "STORAGE_FULL",
                f"There is no space left to make {target}; nothing was left behind. Free some "
                "and try again, or choose another disk.",
            ) from error
        raise BackupError(
            "STORAGE_FAILED",
            f"{target} cannot be made: {error}. Nothing was left behind.",
        ) from error

"""A state directory made from a backup. See docs/decisions/0010-backup.md."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.log_backup import renew_log
from att_server.adapters.store_backup import renew_store
from att_server.archive import STORE_NAME, BackupError, unpack
from att_server.backup import storage_errors
from att_server.core.errors import RefusalReason, StartRefused
from att_server.core.model import DesiredState
from att_server.drafts import draft_directory, sync_directory, sync_tree
from att_server.supervisor.processes import boot_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was made. backup_time: of the backup. starting: apps that a server will start.

    ended_runs: that ran at the time of the backup, and have an end marker now.
    """

    state_dir: Path
    backup_time: datetime
    projects: int
    starting: int
    ended_runs: int

    def form(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self) | {
            "state_dir": str(self.state_dir),
            "backup_time": self.backup_time.isoformat(),
        }


def restore(archive: Path, state_dir: Path, *, stopped: bool) -> Restored:
    """Makes `state_dir`, which is absent or empty, from an archive: whole, or not at all.

    stopped: no app is meant to run. Raises BackupError, StartRefused (the database
    is of a later release, or damaged).
    """
    if not archive.is_file():
        raise BackupError("ARCHIVE_NOT_FOUND", f"There is no file {archive}. Name a backup.")
    _check_target(state_dir)
    with storage_errors(state_dir):
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        with draft_directory(state_dir, "restoring") as draft:
            new = draft / "state"
            new.mkdir(mode=0o700)
            info = unpack(archive, new)
            now = datetime.now(UTC)
            projects = asyncio.run(
                renew_store(
                    new / STORE_NAME,
                    new_log_id=SystemClock().new_id,
                    now=now,
                    stopped=stopped,
                    origin={"backup_time": info.time.isoformat(), "release": info.release},
                )
            )
            ended = [
                renew_log(
                    new / "projects" / project.project_id / "logs",
                    log_id=project.log_id,
                    boot_id=boot_id(),
                    time=info.time,
                )
                for project in projects
            ]
            sync_tree(new)
            _show(new, state_dir)
    return Restored(
        state_dir=state_dir,
        backup_time=info.time,
        projects=len(projects),
        starting=sum(project.desired is DesiredState.RUNNING for project in projects),
        ended_runs=sum(bool(run) for run in ended),
    )


def _show(new: Path, state_dir: Path) -> None:
    try:
        # Takes the place of an empty directory and of nothing else, at once.
        new.rename(state_dir)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _not_empty(state_dir) from error
        raise
    sync_directory(state_dir.parent)


def _check_target(state_dir: Path) -> None:
    if not os.path.lexists(state_dir):
        return
    if state_dir.is_symlink() or not state_dir.is_dir():
        raise StartRefused(
            RefusalReason.INSECURE_STATE_DIR,
            f"{state_dir} is a symbolic link or no directory. Name the directory itself.",
        )
    if any(state_dir.iterdir()):
        raise _not_empty(state_dir)


def _not_empty(state_dir: Path) -> BackupError:
    return BackupError(
        "STATE_DIR_NOT_EMPTY",
        f"{state_dir} is not empty, and nothing is overwritten. Stop its server, if it has one, "
        "move the directory away, or choose another with --state-dir.",
    )

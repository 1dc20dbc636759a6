"""A state directory made from a backup. See docs/decisions/0010-backup.md."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.file_backup import FilesInvalid, put_files_back
from att_server.adapters.log_backup import LastRun, renew_log
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.store_backup import end_cycles, note_missing_files, renew_store
from att_server.archive import FILES_NAME, STORE_NAME, ArchiveInfo, BackupError, unpack
from att_server.backup import storage_errors
from att_server.core.errors import AttError, RefusalReason, StartRefused
from att_server.core.model import DesiredState, Event, Project
from att_server.drafts import draft_directory, sync_directory, sync_tree
from att_server.supervisor.processes import boot_id
from att_server.supervisor.segment import SegmentError
from att_server.supervisor.state import (
    EXITED,
    HOST_RESTARTED,
    LOGS,
    STOPPED,
    SUPERVISORS,
    State,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was made. backup_time: of the backup. meant_to_run: apps, by their desired state.

    ended_runs: that ran at the time of the backup, and have an end marker now.
    ended_cycles: that were on their way then, and are over.
    """

    state_dir: Path
    backup_time: datetime
    projects: int
    meant_to_run: int
    ended_runs: int
    ended_cycles: int

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
            try:
                releases = _put_files_back(new)
                renewed = asyncio.run(_renew(new, info, releases, stopped=stopped))
            except AttError as error:
                raise BackupError(error.reason, error.message) from error
            except FilesInvalid as error:
                raise BackupError(
                    "ARCHIVE_INVALID",
                    f"{archive} holds files that cannot be used: {error}. Nothing was restored; "
                    "use another backup.",
                ) from error
            except (SegmentError, ValueError) as error:
                raise BackupError(
                    "ARCHIVE_INVALID",
                    f"{archive} holds a log that cannot be used: {error}. Nothing was restored; "
                    "use another backup.",
                ) from error
            sync_tree(new)
            _show(new, state_dir)
    return Restored(
        state_dir=state_dir,
        backup_time=info.time,
        projects=len(renewed.projects),
        meant_to_run=sum(project.desired is DesiredState.RUNNING for project in renewed.projects),
        ended_runs=renewed.ended_runs,
        ended_cycles=renewed.ended_cycles,
    )


def _put_files_back(directory: Path) -> dict[str, frozenset[str]]:
    """The ids of releases that are there again, by project."""
    kept = {}
    for copy in directory.glob(f"projects/*/{FILES_NAME}"):
        with copy.open("rb") as file:
            kept[copy.parent.name] = put_files_back(file, copy.parent)
        copy.unlink()
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Renewed:
    projects: list[Project]
    ended_runs: int
    ended_cycles: int


async def _renew(
    directory: Path, info: ArchiveInfo, releases: Mapping[str, frozenset[str]], *, stopped: bool
) -> _Renewed:
    """Makes what was unpacked a state of its own. releases: with their files, by project."""
    clock = SystemClock()
    database = await SqliteDatabase.open(directory / STORE_NAME)
    store, journal = SqliteStateStore(database), SqliteJournal(database)
    try:
        cycles = await end_cycles(store, journal, now=clock.now())
        asked = {project.project_id: project.desired for project in await store.projects()}
        projects = await renew_store(
            store, new_log_id=clock.new_id, now=clock.now(), stopped=stopped
        )
        for project in projects:
            known = releases.get(project.project_id, frozenset())
            await note_missing_files(journal, project.project_id, known, now=clock.now())
        await store.append_events(
            Event(
                event_type="server.restored",
                time=clock.now(),
                attributes={"backup_time": info.time.isoformat(), "release": info.release},
            )
        )
    finally:
        await database.aclose()
    ended = 0
    for project in projects:
        place = directory / "projects" / project.project_id
        last = renew_log(place / LOGS, log_id=project.log_id, boot_id=boot_id(), time=info.time)
        if last is not None:
            ended += last.alive
            supervisor_id = clock.new_id()
            state = _last_state(project, last, supervisor_id, asked[project.project_id])
            kept = place / SUPERVISORS / supervisor_id
            kept.mkdir(mode=0o700, parents=True)
            state.save(str(kept))
    return _Renewed(projects=projects, ended_runs=ended, ended_cycles=len(cycles))


def _last_state(project: Project, last: LastRun, supervisor_id: str, asked: DesiredState) -> State:
    """What a supervisor would have left, had the host been restarted at the time of the backup.

    It names no process, and the boot of no host: nothing is looked for or ended.
    """
    assert last.run.end is not None  # a restored log knows the end of every run
    if last.alive:
        name, reason = EXITED, HOST_RESTARTED
    elif asked is DesiredState.STOPPED:
        name, reason = STOPPED, ""
    else:
        name, reason = last.run.end.conclusion
    unknown = State.unknown(supervisor_id, project.project_id, log_id=project.log_id, boot_id="")
    return replace(
        unknown,
        state=name,
        reason=reason,
        run=last.run,
        command=last.command,
        release_id=last.release_id,
        marker_sequence=last.marker_sequence,
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

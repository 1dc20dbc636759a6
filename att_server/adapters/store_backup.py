"""The database of a state directory, copied while it is used, and made one of its own again."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.cycles.model import Cycle, CycleFailure, CycleState, StepState
from att_server.core.failure_class import FailureClass
from att_server.core.model import DesiredState, Event, Project, ProjectMode
from att_server.core.releases import Release, ReleaseState

BUSY_SECONDS = 30.0
RESTORED = "server_restored"
"""The reason of what was on its way when the backup was made: of the cycle's end, of a
release that is BAD for it, of a project's safe mode."""

_OWNER = "restore"
_LEASE = timedelta(minutes=1)
# By primary result code of SQLite.
_ERRORS_OF_THE_DISK = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}


class StoreUnreadable(Exception):
    """The database cannot be copied: it is damaged, of another program, or locked."""


def copy_store(source: Path, target: Path) -> dict[str, str]:
    """Copies the database as of one moment to `target`, and returns log ids by project id.

    By SQLite's online backup: a file that is in use must never be copied, since its
    latest pages lie in another one. Nobody waits for it. `target` is new (0600) and
    one file. Raises StoreUnreadable, OSError.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            closing(_connect(source)) as original,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            return dict(copy.execute("SELECT project_id, log_id FROM project"))
    except sqlite3.Error as error:
        number = _ERRORS_OF_THE_DISK.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if number is not None:
            raise OSError(number, os.strerror(number), str(target)) from error
        raise StoreUnreadable(str(error)) from error


def good_releases(copy: Path) -> dict[str, frozenset[str]]:
    """The ids of releases that a copied database calls GOOD, by project. Raises StoreUnreadable."""
    found: dict[str, set[str]] = {}
    try:
        with closing(_connect(copy)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'release'")
            if tables.fetchone() is None:
                return {}  # of a release that did not know of any
            rows = connection.execute("SELECT project_id, release_id, document FROM release")
            for project_id, release_id, document in rows:
                if json.loads(document).get("state") == ReleaseState.GOOD.value:
                    found.setdefault(project_id, set()).add(release_id)
    except (sqlite3.Error, ValueError) as error:
        raise StoreUnreadable(str(error)) from error
    return {project_id: frozenset(ids) for project_id, ids in found.items()}


async def end_cycles(
    store: SqliteStateStore, journal: SqliteJournal, *, now: datetime
) -> Collection[str]:
    """Ends what was on its way: the original may go on with it, and it must not happen twice.

    Nothing is removed from the remote, for the same reason. A project whose
    release was being switched to is put into safe mode, and the release is BAD: it
    runs, and is not proven. Returns the ids of the cycles.
    """
    projects = {project.project_id: project for project in await store.projects()}
    ended = []
    for listed in await journal.cycles(active_only=True, limit=max(1, 2 * len(projects))):
        cycle = await journal.take(listed.cycle_id, _OWNER, lease=_LEASE, force=True)
        if cycle is None:
            continue  # of a later release, which will know better
        releases = await journal.releases(cycle.project_id)
        tried = [release for release in releases if release.state is ReleaseState.TRYING]
        event = Event(
            event_type="cycle.ended",
            time=now,
            project_id=cycle.project_id,
            cycle_id=cycle.cycle_id,
            phase=cycle.current_step.value,
            reason=RESTORED,
            message="The cycle was on its way when the backup was made. Start it anew.",
        )
        await journal.commit(
            _ended(cycle, now),
            events=[event],
            releases=[release.bad(RESTORED, now) for release in tried],
            drop_change=True,
        )
        project = projects.get(cycle.project_id)
        if cycle.facts.cut_over and project is not None and project.mode is ProjectMode.NORMAL:
            safe = replace(project, mode=ProjectMode.SAFE, mode_reason=RESTORED, update_time=now)
            await store.put_project(safe)
        ended.append(cycle.cycle_id)
    return ended


async def note_missing_files(
    journal: SqliteJournal, project_id: str, kept: Collection[str], *, now: datetime
) -> None:
    """Stores that the files of releases that are not in `kept` are gone."""

    def missing(release: Release) -> bool:
        return release.removed_time is None and release.release_id not in kept

    gone = [
        release.removed(now)
        for release in await journal.releases(project_id)
        if missing(release) and release.state is not ReleaseState.TRYING
    ]
    await journal.put_releases(*gone)


async def renew_store(
    store: SqliteStateStore, *, new_log_id: Callable[[], str], now: datetime, stopped: bool
) -> list[Project]:
    """Makes a restored database one that no client takes for the original.

    Returns its projects. Every project gets a new log id. The numbers that clients
    may hold, of events and revisions, go on above all that the original, or an
    earlier restore of it, can have given. stopped: no app is meant to run. Raises
    AttError.
    """
    projects = [
        replace(
            project,
            log_id=new_log_id(),
            desired=DesiredState.STOPPED if stopped else project.desired,
        )
        for project in await store.projects()
    ]
    for project in projects:
        await store.put_project(project)
    # More than one event each millisecond, or a start of the server each minute,
    # was never written: so the time is above every number given before it.
    seconds = int(now.timestamp())
    await store.raise_number("next_event", seconds * 1000)
    await store.raise_number("epoch", seconds // 60)
    return projects


def _ended(cycle: Cycle, now: datetime) -> Cycle:
    step = cycle.current_step
    failed = cycle.failure or CycleFailure(
        step=step, failure_class=FailureClass.INTERNAL, reason=RESTORED
    )
    steps = tuple(
        status
        if status.state.over
        else replace(
            status,
            state=StepState.FAILED if status.step is step else StepState.SKIPPED,
            reason=RESTORED,
            end_time=now if status.step is step else None,
            waiting_since=None,
        )
        for status in cycle.steps
    )
    return replace(
        cycle,
        state=CycleState.ENDED,
        outcome=failed.failure_class.outcome,
        outcome_reason=RESTORED,
        failure=failed,
        steps=steps,
        facts=replace(cycle.facts, cleaned_up=True),
        approval=None,
        wake_time=None,
        deadline_time=None,
        end_time=now,
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Not read-only: who reads along with writers takes part in their locks. Never made.
    address = f"file:{quote(str(path))}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

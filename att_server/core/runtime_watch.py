"""Watching apps: whole states as they change, however slow the watcher."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from datetime import timedelta

from att_server.core.errors import project_not_found
from att_server.core.model import Project, RuntimeChanges
from att_server.core.run_table import Changes, RunTable


async def watch(
    runs: RunTable,
    projects: Callable[[], Mapping[str, Project]],
    project_ids: Collection[str],
    *,
    within: frozenset[str] | None = None,
    after_revision: int,
    progress_interval: timedelta,
) -> AsyncGenerator[RuntimeChanges, None]:
    """Everything that changed after `after_revision`, at once, then every change.

    project_ids: empty watches all. within: only of these projects, of which
    `project_ids` are; None: of all. after_revision: 0, or one that this server
    does not know, gives all states first, with `complete`. Keeps one number per
    watcher: states that come faster than they are taken merge. Never ends by
    itself. Raises PROJECT_NOT_FOUND for a project that is neither there nor told
    as deleted in the first item.
    """
    watched = frozenset(project_ids) or within
    complete = after_revision == 0 or not runs.knows_since(after_revision)
    since = 0 if complete else after_revision
    with runs.listening(watched or ()) as bell:
        found = _of_interest(runs.changed_since(since), watched)
        gone = frozenset() if complete else frozenset(found.deleted)
        for project_id in project_ids:
            if project_id not in projects() and project_id not in gone:
                raise project_not_found(project_id)
        first = True
        while True:
            seen, revision = bell.count, runs.revision
            if first or found.changed or found.deleted:
                present = projects()
                yield RuntimeChanges(
                    runtimes=tuple(
                        runs.runtime(present[name]) for name in found.changed if name in present
                    ),
                    deleted=() if first and complete else found.deleted,
                    revision=revision,
                    complete=first and complete,
                )
                first = False
            elif not await bell.wait(seen, progress_interval):
                yield RuntimeChanges(runtimes=(), deleted=(), revision=revision)
            since = revision
            found = _of_interest(runs.changed_since(since), watched)


def _of_interest(found: Changes, watched: frozenset[str] | None) -> Changes:
    if watched is None:
        return found
    return Changes(
        changed=tuple(name for name in found.changed if name in watched),
        deleted=tuple(name for name in found.deleted if name in watched),
    )

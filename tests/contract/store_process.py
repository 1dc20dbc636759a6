"""A process that uses a state store, for tests that kill it: `python store_process.py FILE NAME`.

It writes for ever: first, without a sync, an event with a number that counts up, then a
project whose path is that number, with an event that says the same, and after each such
write the number on a line of its own.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.model import DesiredState, Event, Project, ProjectMode
from att_server.core.settings import RuntimeSettings


async def write(path: Path, name: str) -> None:
    store = await SqliteStateStore.open(path)
    print(f"epoch {await store.next_epoch()}", flush=True)
    now = datetime.now(UTC)
    number = 0
    while True:
        number += 1
        project = Project(
            project_id=name,
            path=Path(f"/{number}"),
            runtime=RuntimeSettings(),
            mode=ProjectMode.NORMAL,
            log_id="0" * 26,
            desired=DesiredState.STOPPED,
            desired_runtime=RuntimeSettings(),
            create_time=now,
            update_time=now,
        )
        event = Event(event_type="project.updated", time=now, project_id=name, message=str(number))
        await store.append_events(replace(event, event_type="project.meant"), synced=False)
        await store.put_project(project, event)
        print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))

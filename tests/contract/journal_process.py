"""A process that drives a cycle: `python journal_process.py FILE OWNER CYCLE`.

Takes the cycle as soon as it may and prints its epoch, then counts its revisions up
until it is fenced, printing each that is stored, and at last `fenced`.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.core.cycles.journal import Fenced

LEASE = timedelta(milliseconds=200)


async def drive(path: Path, owner: str, cycle_id: str) -> None:
    journal = SqliteJournal(await SqliteDatabase.open(path))
    while (cycle := await journal.take(cycle_id, owner, lease=LEASE, force=False)) is None:
        await asyncio.sleep(0.01)
    print(f"epoch {cycle.lease_epoch}", flush=True)
    try:
        while True:
            await journal.renew(owner, lease=LEASE)
            cycle = await journal.commit(replace(cycle, outcome_reason=owner))
            print(cycle.revision, flush=True)
    except Fenced:
        print("fenced", flush=True)


if __name__ == "__main__":
    asyncio.run(drive(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))

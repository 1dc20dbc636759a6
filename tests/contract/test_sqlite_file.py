"""What becomes of the file of a state store: kills, other processes, damage, full disks."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from att_server.adapters import sqlite_database
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.state_schema import SCHEMA_VERSION
from att_server.core.errors import AttError, Reason, RefusalReason, StartRefused
from att_server.core.model import Event, EventFilter
from tests.contract.test_state_store import TIME, all_events, claim, event, project

PROGRAM = Path(__file__).with_name("store_process.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "att.db"


@contextmanager
def writing(path: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has opened the store and writes to it."""
    command = [sys.executable, str(PROGRAM), str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def output(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            yield line.strip()


def sql(path: Path, *statements: str) -> None:
    """Changes the file behind the store's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def make(path: Path) -> None:
    """A file with one event, and no process that has it open."""
    store = await SqliteStateStore.open(path)
    await store.append_events(event("first"))
    await store.aclose()


async def refused(path: Path) -> StartRefused:
    with pytest.raises(StartRefused) as caught:
        await SqliteStateStore.open(path)
    return caught.value


async def test_what_was_written_is_there_when_the_file_is_opened_again(path: Path) -> None:
    store = await SqliteStateStore.open(path)
    await store.put_project(project(), event("project.created"))
    await store.claim_request(claim())
    await store.set_request_outcome("r1", "run-7")
    assert await store.next_epoch() == 1
    await store.aclose()

    store = await SqliteStateStore.open(path)
    assert await store.projects() == [project()]
    await store.append_events(event("later"))
    assert [kept.sequence for kept in await all_events(store)] == [0, 1]
    kept = await store.claim_request(claim())
    assert kept is not None
    assert kept.outcome == "run-7"
    assert await store.next_epoch() == 2
    await store.aclose()


async def test_a_number_is_not_given_twice_though_its_event_was_removed(path: Path) -> None:
    await make(path)
    sql(path, "DELETE FROM event")
    store = await SqliteStateStore.open(path)
    await store.append_events(event("second"))
    assert [kept.sequence for kept in await all_events(store)] == [1]
    await store.aclose()


async def test_only_its_owner_may_read_the_file_and_what_lies_beside_it(path: Path) -> None:
    before = os.umask(0)
    try:
        store = await SqliteStateStore.open(path)
    finally:
        os.umask(before)
    await store.append_events(event())
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"att.db": 0o600, "att.db-wal": 0o600, "att.db-shm": 0o600}
    await store.aclose()


def written(count: int) -> list[str]:
    """The first events of a writing process: each number twice, without a sync and with one."""
    return [str(1 + event // 2) for event in range(count)]


async def test_a_killed_writer_leaves_every_write_it_was_told_of_and_no_half(
    path: Path, kills: int
) -> None:
    for kill in range(kills):
        name = f"p{kill}"
        with writing(path, name) as process:
            lines = output(process)
            for _ in range(random.randrange(1, 10)):
                next(lines)
            process.kill()
            told = [int(line) for line in lines if line.isdigit()]
        store = await SqliteStateStore.open(path)
        selected = EventFilter(project_id=name)
        events, _ = await store.list_events(selected, cursor=0, limit=1_000)
        count = len(events)
        assert [kept.message for kept in events] == written(count)
        count //= 2
        assert count >= max(told, default=0)
        paths = [kept.path for kept in await store.projects() if kept.project_id == name]
        assert paths == ([Path(f"/{count}")] if count else [])
        await store.aclose()


async def test_processes_that_write_at_once_share_the_numbers_without_hole(path: Path) -> None:
    await make(path)  # a new file is made by one process, the holder of the state directory
    with ExitStack() as stack:
        processes = [stack.enter_context(writing(path, name)) for name in ("a", "b", "c")]
        outputs = [output(process) for process in processes]
        epochs = {next(lines) for lines in outputs}
        for lines in outputs:
            while next(lines) != "15":
                pass
    assert epochs == {"epoch 1", "epoch 2", "epoch 3"}

    store = await SqliteStateStore.open(path)
    kept = await all_events(store)
    assert [one.sequence for one in kept] == list(range(len(kept)))
    for name in ("a", "b", "c"):
        numbers = [one.message for one in kept if one.project_id == name]
        assert numbers == written(len(numbers))
        assert len(numbers) >= 30
    await store.aclose()


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a transaction that has changed everything."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute('UPDATE meta SET value = 999')\n"
        "connection.execute('DELETE FROM event')\n"
        "print('within', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert next(output(process)) == "within"
            yield process
        finally:
            process.kill()


async def test_a_transaction_of_a_killed_process_is_undone_and_holds_nobody_up(path: Path) -> None:
    await make(path)
    with holding(path):
        pass
    store = await SqliteStateStore.open(path)
    await store.append_events(event("second"))
    assert [(kept.sequence, kept.event_type) for kept in await all_events(store)] == [
        (0, "first"),
        (1, "second"),
    ]
    await store.aclose()


async def test_readers_do_not_wait_for_a_writer_of_another_process(path: Path) -> None:
    await make(path)
    store = await SqliteStateStore.open(path)
    with holding(path):
        assert [kept.event_type for kept in await all_events(store)] == ["first"]
    await store.aclose()


async def test_a_write_that_cannot_have_its_turn_says_so_and_keeps_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_database, "BUSY_TIMEOUT_SECONDS", 0.05)
    await make(path)
    store = await SqliteStateStore.open(path)
    with holding(path), pytest.raises(AttError) as failed:
        await store.append_events(event("second"))
    assert failed.value.reason is Reason.AUDIT_UNAVAILABLE
    await store.append_events(event("third"))
    assert [kept.event_type for kept in await all_events(store)] == ["first", "third"]
    await store.aclose()


async def test_cancelled_writes_leave_all_or_nothing_and_a_store_that_works(path: Path) -> None:
    store = await SqliteStateStore.open(path)
    for steps in range(60):
        changed = replace(project(), path=Path(f"/{steps}"))
        write = asyncio.create_task(store.put_project(changed, event(message=str(steps))))
        for _ in range(steps):
            await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait([write])
        await store.append_events()  # has its turn behind what was cancelled
        kept = await all_events(store)
        paths = [one.path for one in await store.projects()]
        assert paths == [Path(f"/{one.message}") for one in kept][-1:]
    await store.append_events(event("last"))
    kept = await all_events(store)
    assert [one.sequence for one in kept] == list(range(len(kept)))
    await store.aclose()


async def test_cancelled_readers_leave_room_for_others(path: Path) -> None:
    await make(path)
    store = await SqliteStateStore.open(path)
    for steps in range(60):
        read = asyncio.create_task(all_events(store))
        for _ in range(steps):
            await asyncio.sleep(0)
        read.cancel()
    assert len(await all_events(store)) == 1
    await store.aclose()


async def test_closing_waits_for_a_write_whose_caller_is_gone(path: Path) -> None:
    store = await SqliteStateStore.open(path)
    write = asyncio.create_task(store.append_events(event("first")))
    await asyncio.sleep(0)
    write.cancel()
    await asyncio.wait([write])
    await store.aclose()
    store = await SqliteStateStore.open(path)
    assert [kept.event_type for kept in await all_events(store)] == ["first"]
    await store.aclose()


@pytest.fixture
def few_pages() -> Iterator[Callable[[int], None]]:
    """Bounds the file of every connection made from now on, as a full disk would."""
    pages = 1 << 30

    def bound(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count={pages}")
        cursor.close()

    def limit(count: int) -> None:
        nonlocal pages
        pages = count

    sa.event.listen(sa.Engine, "connect", bound)
    yield limit
    sa.event.remove(sa.Engine, "connect", bound)


async def test_without_space_a_write_is_refused_and_nothing_of_it_kept(
    path: Path, few_pages: Callable[[int], None]
) -> None:
    few_pages(60)
    store = await SqliteStateStore.open(path)
    await store.append_events(event("first"))
    large = Event(event_type="second", time=TIME, message="x" * 200_000)
    with pytest.raises(AttError) as full:
        await store.put_project(project(), event("second"), large)
    assert full.value.reason is Reason.STORAGE_FULL
    assert full.value.metadata == {"path": str(path)}
    assert await store.projects() == []
    await store.append_events(event("third"))
    assert [(kept.sequence, kept.event_type) for kept in await all_events(store)] == [
        (0, "first"),
        (1, "third"),
    ]
    await store.aclose()


async def test_without_space_for_a_new_file_the_server_does_not_start(
    path: Path, few_pages: Callable[[int], None]
) -> None:
    few_pages(2)
    assert (await refused(path)).reason is RefusalReason.STATE_DIR_NOT_WRITABLE
    few_pages(60)
    await make(path)


async def test_a_schema_that_only_a_later_release_reads_is_refused_and_kept(path: Path) -> None:
    await make(path)
    sql(
        path,
        "UPDATE meta SET value = 7 WHERE name = 'min_reader'",
        "UPDATE alembic_version SET version_num = '0009'",
        "CREATE TABLE later (a)",
    )
    before = path.read_bytes()
    refusal = await refused(path)
    assert refusal.reason is RefusalReason.SCHEMA_TOO_NEW
    assert f"schema 7; this one knows up to {SCHEMA_VERSION}" in refusal.message
    assert path.read_bytes() == before


async def test_a_later_schema_that_this_release_reads_is_used_as_it_is(path: Path) -> None:
    await make(path)
    sql(
        path,
        "UPDATE alembic_version SET version_num = '0009'",
        "CREATE TABLE later (a)",
        "ALTER TABLE event ADD COLUMN added TEXT NOT NULL DEFAULT 'x'",
    )
    store = await SqliteStateStore.open(path)
    await store.append_events(event("second"))
    assert [kept.event_type for kept in await all_events(store)] == ["first", "second"]
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("0009",)]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1_000])
async def test_a_damaged_file_is_refused_and_kept(path: Path, damage: bytes) -> None:
    await make(path)
    content = damage or path.read_bytes()[:5_000]
    path.write_bytes(content)
    refusal = await refused(path)
    assert refusal.reason is RefusalReason.STATE_DAMAGED
    assert str(path) in refusal.message
    assert path.read_bytes() == content


async def test_a_database_without_its_numbers_is_refused(path: Path) -> None:
    await make(path)
    sql(path, "DELETE FROM meta")
    assert (await refused(path)).reason is RefusalReason.STATE_DAMAGED


async def test_a_database_of_another_program_is_refused_and_kept(path: Path) -> None:
    sql(path, "CREATE TABLE theirs (a)")
    before = path.read_bytes()
    assert (await refused(path)).reason is RefusalReason.STATE_DAMAGED
    assert path.read_bytes() == before


@pytest.mark.parametrize("directory", ["missing", "file", "/proc"])
async def test_a_directory_that_takes_no_file_is_refused(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    refusal = await refused(tmp_path / directory / "att.db")
    assert refusal.reason is RefusalReason.STATE_DIR_NOT_WRITABLE


@pytest.mark.parametrize(("directory_mode", "file_mode"), [(0o555, 0o444), (0o777, 0o444)])
def test_a_file_of_somebody_else_is_refused_and_kept(directory_mode: int, file_mode: int) -> None:
    """Asked in a process without the rights of root, which may write everywhere."""
    code = (
        "import asyncio, os, pathlib, sys\n"
        "from att_server.adapters.sqlite_store import SqliteStateStore\n"
        "from att_server.core.errors import StartRefused\n"
        "async def use(path):\n"
        "    store = await SqliteStateStore.open(path)\n"
        "    await store.aclose()\n"
        "path, directory_mode, file_mode = pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])\n"
        "asyncio.run(use(path))\n"
        "path.chmod(file_mode)\n"
        "path.parent.chmod(directory_mode)\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "before = path.read_bytes()\n"
        "try: asyncio.run(use(path))\n"
        "except StartRefused as error: print(error.reason, path.read_bytes() == before)\n"
    )
    # Not below `tmp_path`, which nobody else may enter.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "att.db"
        command = [sys.executable, "-c", code, str(path), str(directory_mode), str(file_mode)]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert asked.stdout == f"{RefusalReason.STATE_DIR_NOT_WRITABLE} True\n", asked.stderr


def test_opening_imports_nothing_that_only_others_need(path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from att_server.adapters import clock, probes, settings, sqlite_store\n"
        "async def main():\n"
        "    store = await sqlite_store.SqliteStateStore.open(pathlib.Path(sys.argv[1]))\n"
        "    await store.aclose()\n"
        "asyncio.run(main())\n"
        "print(*{'alembic', 'h11', 'psutil', 'pydantic', 're2'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout.split() == []

"""What becomes of a journal's file: other processes, other releases, other boots, kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from att_server.adapters.boot_time import boot_time
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.core.cycles.journal import Fenced
from att_server.core.cycles.model import (
    CycleKind,
    CycleRequest,
    CycleState,
    CycleStep,
    StepStatus,
)
from att_server.core.releases import ReleaseState
from att_server.testing.clock import FakeClock
from tests.contract.test_cycle_journal import (
    LEASE,
    START,
    Kept,
    cancellation,
    cycle,
    decision,
    ended,
    event,
    release,
    sqlite,
)
from tests.contract.test_state_store import project

PROGRAM = Path(__file__).with_name("journal_process.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "att.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
async def kept(path: Path, clock: FakeClock) -> AsyncIterator[Kept]:
    async with sqlite(path, clock) as made:
        yield made


@contextmanager
def driving(path: Path, owner: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(PROGRAM), str(path), owner, "01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop_between_writes(process: subprocess.Popen[str], path: Path) -> None:
    """Stops a process that writes; not within a write, which would keep out all others."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        while True:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
            else:
                connection.execute("ROLLBACK")
                return


def documents(path: Path) -> dict[str, dict[str, object]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT cycle_id, document FROM cycle").fetchall()
    return {cycle_id: json.loads(document) for cycle_id, document in rows}


def sql(path: Path, statement: str, *values: object) -> None:
    """Changes the file as another release would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, values)


def change_document(path: Path, change: dict[str, object]) -> None:
    document = {**documents(path)["01"], **change}
    sql(path, "UPDATE cycle SET document = ?", json.dumps(document))


# Two at once -------------------------------------------------------------------


async def test_a_process_stopped_past_its_lease_is_fenced_by_the_one_that_took_over(
    path: Path,
) -> None:
    database = await SqliteDatabase.open(path)
    journal = SqliteJournal(database)
    await journal.create(cycle(), b"")
    with ExitStack() as stack:
        first = stack.enter_context(driving(path, "first"))
        assert line(first) == "epoch 1"
        for _ in range(3):
            line(first)
        stop_between_writes(first, path)
        second = stack.enter_context(driving(path, "second"))
        assert line(second) == "epoch 2"
        for _ in range(3):
            line(second)
        first.send_signal(signal.SIGCONT)
        assert first.stdout is not None
        assert [*first.stdout][-1] == "fenced\n"
        before = await journal.cycle("01")
        assert int(line(second)) > 0
    after = await journal.cycle("01")
    assert before is not None
    assert after is not None
    assert (before.outcome_reason, after.outcome_reason) == ("second", "second")
    await database.aclose()


async def test_of_those_who_take_at_once_one_gets_the_cycle(path: Path) -> None:
    databases = [await SqliteDatabase.open(path) for _ in range(4)]
    journals = [SqliteJournal(database) for database in databases]
    await journals[0].create(cycle(), b"")
    taken = await asyncio.gather(
        *(
            journal.take("01", f"owner {number}", lease=LEASE, force=False)
            for number, journal in enumerate(journals)
        )
    )
    assert [each.lease_epoch for each in taken if each is not None] == [1]
    for database in databases:
        await database.aclose()


async def test_of_two_that_take_by_force_only_the_last_may_write(
    path: Path, clock: FakeClock
) -> None:
    async with sqlite(path, clock) as one, sqlite(path, clock) as other:
        await one.journal.create(cycle(), b"")
        first = await one.journal.take("01", "a", lease=LEASE, force=True)
        assert first is not None
        first = await one.journal.commit(first)
        second = await other.journal.take("01", "b", lease=LEASE, force=True)
        assert second is not None
        # What `a` remembers of its own writes does not let it pass.
        with pytest.raises(Fenced):
            await one.journal.commit(first)
        third = await one.journal.take("01", "a", lease=LEASE, force=True)
        assert third is not None
        stored = await one.journal.commit(replace(third, outcome_reason="a"))
        with pytest.raises(Fenced):
            await other.journal.commit(second)
        assert await other.journal.cycle("01") == stored


async def test_what_another_epoch_printed_is_replaced_and_not_taken_for_known(
    path: Path, clock: FakeClock
) -> None:
    async with sqlite(path, clock) as one, sqlite(path, clock) as other:

        async def commit(kept: Kept, tail: bytes) -> None:
            taken = await kept.journal.take("01", "x", lease=LEASE, force=True)
            assert taken is not None
            status = StepStatus(step=CycleStep.TEST, log_tail=tail)
            await kept.journal.commit(taken.with_step(status))

        await one.journal.create(cycle(), b"")
        for kept, tail in [(one, b"1"), (other, b"2"), (one, b"1"), (other, b""), (one, b"1")]:
            await commit(kept, tail)
            read = await other.journal.cycle("01")
            assert read is not None
            assert read.step(CycleStep.TEST).log_tail == tail


async def test_a_lease_of_an_earlier_boot_holds_nothing(path: Path, clock: FakeClock) -> None:
    async with sqlite(path, clock, boot="before") as kept:
        await kept.taken(cycle(), "a")
    async with sqlite(path, clock, boot="after") as kept:
        assert await kept.journal.untaken() == ["01"]
        assert await kept.journal.take("01", "b", lease=LEASE, force=False) is not None


def test_the_clock_of_leases_is_that_of_the_host() -> None:
    first, second = boot_time(), boot_time()
    assert first.boot_id == second.boot_id != ""
    assert 0 < first.seconds <= second.seconds


async def test_a_commit_whose_caller_is_gone_is_whole_and_the_next_goes_on(kept: Kept) -> None:
    stored = await kept.taken(cycle())
    for steps in range(40):
        tail = b"%d" % steps
        changed = stored.with_step(StepStatus(step=CycleStep.TEST, log_tail=tail))
        write = asyncio.create_task(kept.journal.commit(changed, events=[event(str(steps))]))
        for _ in range(steps):
            await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait([write])
        await kept.store.append_events()  # has its turn behind what was cancelled
        read = await kept.journal.cycle("01")
        assert read is not None
        told = str(steps) in await kept.events()
        assert (read.step(CycleStep.TEST).log_tail == tail) == told
        stored = read


async def test_cycles_are_there_when_the_file_is_opened_again(path: Path, clock: FakeClock) -> None:
    async with sqlite(path, clock) as kept:
        taken = await kept.taken(cycle())
        status = StepStatus(step=CycleStep.CI, log_tail=b"x" * 65_536)
        stored = await kept.journal.commit(taken.with_step(status), releases=[release()])
    async with sqlite(path, clock) as kept:
        assert await kept.journal.cycle("01") == stored
        assert await kept.journal.releases("web") == [release()]
        again = await kept.journal.take("01", "b", lease=LEASE, force=True)
        assert again == replace(stored, lease_epoch=2)


async def test_what_steps_printed_is_not_written_again_with_every_commit(
    kept: Kept, path: Path
) -> None:
    stored = await kept.taken(cycle())
    for status in stored.steps:
        stored = stored.with_step(replace(status, log_tail=b"x" * 65_536))
    stored = await kept.journal.commit(stored)
    log = path.with_name("att.db-wal")
    before = log.stat().st_size
    for number in range(10):
        stored = await kept.journal.commit(replace(stored, outcome_reason=str(number)))
    assert log.stat().st_size - before < 10 * 65_536


@pytest.mark.parametrize("selected", ["active", "untaken", "project", "page", "rollbacks"])
async def test_lists_of_few_do_not_go_through_all_cycles(kept: Kept, selected: str) -> None:
    """Asked of SQLite: how it means to find the rows."""
    asked: list[str] = []

    def plan(statement: str) -> None:
        asked.append(statement)

    journal = kept.journal
    assert isinstance(journal, SqliteJournal)
    await journal.create(cycle(), b"")
    await journal._database.read(
        lambda connection: connection.connection.driver_connection.set_trace_callback(plan)  # type: ignore[union-attr]  # it is connected
    )
    for _ in range(4):  # each reader in turn
        match selected:
            case "active":
                await journal.cycles(active_only=True, limit=50)
            case "untaken":
                await journal.untaken()
            case "project":
                await journal.cycles(project_id="web", limit=50)
            case "page":
                await journal.cycles(limit=50, before="02")
            case "rollbacks":
                await journal.automatic_rollbacks("web", LEASE)
    [statement] = {each for each in asked if "FROM cycle" in each}
    rows = await journal._database.read(
        lambda connection: connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement).fetchall()
    )
    plans = " / ".join(row[3] for row in rows)
    index = {
        "active": "cycle_active",
        "untaken": "cycle_active",
        "project": "cycle_by_project (project_id=?",
        "page": "sqlite_autoindex_cycle_1 (cycle_id<?",
        "rollbacks": "cycle_rolled_back (project_id=?",
    }
    assert index[selected] in plans


async def test_a_deleted_project_takes_its_cycles_and_releases_with_it(
    path: Path, clock: FakeClock
) -> None:
    async with sqlite(path, clock) as kept:
        await kept.store.put_project(project("web"))
        await kept.store.put_project(project("other"))
        for number, project_id in enumerate(["web", "other"]):
            await kept.journal.create(cycle(f"0{number}", project_id), b"change")
            await kept.journal.put_releases(release("r1", project_id))
        await kept.store.delete_project("web")
        assert [each.cycle_id for each in await kept.journal.cycles(limit=9)] == ["01"]
        assert await kept.journal.change("00") == b""
        assert await kept.journal.releases("web") == []
        assert await kept.journal.releases("other") == [release("r1", "other")]


# What a later release wrote ------------------------------------------------------

KNOWN: dict[str, object] = {
    "kind": CycleKind.CHANGE,
    "failure": None,
    "steps": [{"step": "test"}],
    "request": {"until": "test"},
    "result": {},
}


async def test_fields_of_a_later_release_are_kept_when_this_one_goes_on(
    kept: Kept, path: Path
) -> None:
    probe = {"colour": "red"}
    taken = await kept.taken(cycle())
    steps: list[dict[str, object]] = documents(path)["01"]["steps"]  # type: ignore[assignment]  # as written
    change_document(
        path,
        {
            "mood": "good",
            "facts": {"tree": "t", "phase_of_moon": 3},
            "steps": [{**steps[0], "smell": "x"}, *steps[1:]],
            "request": {"commit_message": "größer", "probe": probe},
        },
    )
    again = await kept.journal.take("01", "a", lease=LEASE, force=True)
    assert again is not None
    assert again.facts.tree == "t"
    stored = await kept.journal.commit(replace(again, outcome_reason="went on"))
    stored = await kept.journal.commit(replace(stored, facts=replace(stored.facts, tree="u")))
    written = documents(path)["01"]
    assert written["mood"] == "good"
    assert written["facts"] == {"tree": "u", "phase_of_moon": 3}
    assert written["steps"][0]["smell"] == "x"  # type: ignore[index]  # a list
    assert written["request"]["probe"] == probe  # type: ignore[index]  # an object
    assert written["outcome_reason"] == "went on"
    assert taken.steps == stored.steps


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rehearsal"},
        {"failure": {"step": "test", "failure_class": "bored", "reason": "x"}},
        {"steps": [{"step": "levitate", "state": "running"}]},
        {"request": {"until": "levitate"}},
        {"result": {"rollback_verdict": {"candidate": None, "gates": []}}},
        {"steps": 3},
        {"request": "?"},
    ],
)
async def test_a_cycle_with_what_only_a_later_release_knows_is_shown_and_left_alone(
    kept: Kept, path: Path, change: dict[str, object]
) -> None:
    await kept.journal.create(cycle(), b"")
    change_document(path, change)
    shown = await kept.journal.cycle("01")
    assert shown is not None
    assert (shown.project_id, shown.create_time) == ("web", START)
    assert [each.cycle_id for each in await kept.journal.cycles(limit=9)] == ["01"]
    assert await kept.journal.untaken() == []
    before = documents(path)
    assert await kept.journal.take("01", "a", lease=LEASE, force=True) is None
    assert await kept.journal.cancel("01", cancellation()) is not None
    assert documents(path) == before
    # The later release, when it is back, goes on with what is there.
    change_document(path, {name: KNOWN[name] for name in change})
    assert await kept.journal.take("01", "a", lease=LEASE, force=True) is not None


async def test_a_state_of_a_later_release_is_shown_as_held(kept: Kept, path: Path) -> None:
    await kept.journal.create(cycle(), b"")
    sql(path, "UPDATE cycle SET state = 'hovering', outcome = 'bored'")
    shown = await kept.journal.cycle("01")
    assert shown is not None
    assert (shown.state, shown.outcome) == (CycleState.HELD, None)
    assert await kept.journal.take("01", "a", lease=LEASE, force=True) is None


async def test_a_damaged_document_hides_no_other_cycle(kept: Kept, path: Path) -> None:
    await kept.journal.create(cycle("01"), b"")
    await kept.journal.create(cycle("02", "other"), b"")
    sql(path, "UPDATE cycle SET document = '{' WHERE cycle_id = '01'")
    shown = await kept.journal.cycles(limit=9)
    assert [each.cycle_id for each in shown] == ["02", "01"]
    assert shown[1].request == CycleRequest()
    assert await kept.journal.untaken() == ["02"]


async def test_a_release_in_a_state_of_a_later_release_is_bad(kept: Kept, path: Path) -> None:
    good = release().trying(1, START).good(START)
    await kept.journal.put_releases(good)
    form = '{"state": "resting", "reason": "tired", "tries_left": 2}'
    sql(path, "UPDATE release SET document = json_patch(document, ?)", form)
    [read] = await kept.journal.releases("web")
    assert (read.state, read.reason) == (ReleaseState.BAD, "state_of_a_later_release")


async def test_decisions_and_cancellations_of_a_later_release_are_read_as_far_as_known(
    kept: Kept, path: Path
) -> None:
    taken = await kept.taken(cycle())
    await kept.journal.decide("01", decision())
    await kept.journal.cancel("01", cancellation())
    sql(path, "UPDATE cycle SET decision = json_set(decision, '$.mood', 'good')")
    stored = await kept.journal.commit(ended(taken))
    assert (stored.decision, stored.cancellation) == (decision(), cancellation())

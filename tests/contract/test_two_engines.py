"""Engines that are stopped, killed and replaced: what is done outside is done once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from att_server.adapters.clock import SystemClock
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.cycles.model import Cycle, CycleRequest, CycleStep, StepStatus
from att_server.core.failure_class import CycleOutcome
from att_server.core.model import Event, EventFilter
from tests.contract import engine_process
from tests.contract.engine_process import Acts
from tests.server_process import wait_until

STORM_ROUNDS = 60


async def stored(directory: Path, messages: Sequence[str]) -> list[str]:
    """Stores a cycle for every message, each of a project of its own."""
    database = await SqliteDatabase.open(directory / "att.db")
    journal, clock = SqliteJournal(database), SystemClock()
    cycles = []
    for number, message in enumerate(messages):
        cycle = Cycle(
            cycle_id=clock.new_id(),
            project_id=f"web-{number}",
            request=CycleRequest(commit_message=message),
            requested_by="local:1000",
            create_time=clock.now(),
            steps=tuple(StepStatus(step=step) for step in CycleStep),
        )
        await journal.create(cycle, b"")
        cycles.append(cycle.cycle_id)
    await database.aclose()
    (directory / "projects").write_text(" ".join(f"web-{n}" for n in range(len(messages))))
    return cycles


async def found(directory: Path, cycle_id: str) -> tuple[Cycle, list[Event]]:
    database = await SqliteDatabase.open(directory / "att.db")
    try:
        cycle = await SqliteJournal(database).cycle(cycle_id)
        assert cycle is not None
        selected = EventFilter(cycle_id=cycle_id)
        events, _ = await SqliteStateStore(database).list_events(selected, cursor=0, limit=1_000)
        return cycle, list(events)
    finally:
        await database.aclose()


@contextmanager
def engine(directory: Path, owner: str, stop: str = "-") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, engine_process.__file__, "serve", str(directory), owner, stop],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def acts_of(directory: Path, cycle_id: str) -> Counter[str]:
    done = [act.split() for act in Acts(directory).done()]
    return Counter(step for step, of in done if of == cycle_id)


def once(*steps: CycleStep) -> Counter[str]:
    return Counter(step.value for step in steps)


FORWARD = once(CycleStep.PUSH, CycleStep.PULL_REQUEST, CycleStep.MERGE, CycleStep.DEPLOY)
BACK = once(CycleStep.ROLLBACK, CycleStep.REVERT)


@pytest.mark.parametrize(
    "step", [CycleStep.PUSH, CycleStep.MERGE, CycleStep.DEPLOY, CycleStep.ROLLBACK]
)
async def test_an_engine_that_was_stopped_past_its_lease_is_fenced(
    tmp_path: Path, step: CycleStep
) -> None:
    (cycle_id,) = await stored(tmp_path, ["bad"])
    stop = tmp_path / "stop"
    stop.touch()
    with engine(tmp_path, "first", step.value) as first:
        assert line(first) == f"in {step}"
        first.send_signal(signal.SIGSTOP)
        stop.unlink()
        with engine(tmp_path, "second") as second:
            assert line(second) == "over"
        ended, _ = await found(tmp_path, cycle_id)
        first.send_signal(signal.SIGCONT)
        # It may learn of its lost lease first, or by being refused.
        assert line(first) in {"fenced", "over"}
        wait_until(lambda: first.poll() is not None, "the first engine ends")
    assert first.returncode == 0
    after, events = await found(tmp_path, cycle_id)
    assert after == ended
    assert after.outcome is CycleOutcome.ROLLED_BACK
    assert acts_of(tmp_path, cycle_id) == FORWARD + BACK
    assert [event.event_type for event in events].count("cycle.ended") == 1


async def test_an_engine_that_waits_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    (cycle_id,) = await stored(tmp_path, ["good"])
    (tmp_path / "stop").touch()
    with engine(tmp_path, "first", "merge") as first:
        assert line(first) == "in merge"
        with engine(tmp_path, "second") as second:
            first.kill()
            assert line(second) == "over"
    cycle, _ = await found(tmp_path, cycle_id)
    assert cycle.outcome is CycleOutcome.SUCCEEDED
    assert cycle.step(CycleStep.MERGE).attempt == 2
    assert acts_of(tmp_path, cycle_id) == FORWARD


@pytest.mark.parametrize("seed", [1, 2])
async def test_engines_that_are_killed_at_any_moment_double_and_lose_nothing(
    tmp_path: Path, seed: int
) -> None:
    messages = ["good", "bad"] * 4
    cycles = await stored(tmp_path, messages)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        engine_process.__file__,
        *("storm", str(tmp_path), str(seed), str(STORM_ROUNDS)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    killed, _ = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0
    assert int(killed) > len(cycles)
    for cycle_id, message in zip(cycles, messages, strict=True):
        cycle, events = await found(tmp_path, cycle_id)
        good = message == "good"
        assert cycle.outcome is (CycleOutcome.SUCCEEDED if good else CycleOutcome.ROLLED_BACK)
        assert acts_of(tmp_path, cycle_id) == (FORWARD if good else FORWARD + BACK)
        # What a step tells is stored with its end: neither without the other, nor twice.
        told = Counter(event.phase for event in events if event.event_type == "test.acted")
        assert set(told.values()) == {1}
        assert [event.event_type for event in events].count("cycle.ended") == 1

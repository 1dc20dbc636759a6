"""What the engine of cycles costs by itself: steps that have nothing to do, on the real store."""

from __future__ import annotations

import os
import time
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.model import (
    FORWARD,
    Cycle,
    CycleRequest,
    CycleStep,
    StepStatus,
)
from att_server.core.cycles.step import Asked, Done, StepEnd, StepWork
from att_server.core.failure_class import FailureClass
from att_server.core.model import Project
from att_server.testing.deployments import FakeDeployments
from benchmarks.figures import Figure

FSYNCS = "2 fsyncs"


class Nothing:
    """Implements `Step`: is done at once."""

    failure_class = FailureClass.INTERNAL
    interruptible = True

    def __init__(self, step: CycleStep) -> None:
        self.step = step

    def skip_reason(self, asked: Asked) -> str:
        return ""

    async def run(self, work: StepWork) -> StepEnd:
        return Done()


class NoCleanup:
    """Implements `CleansUp`: there is nothing."""

    async def run(self, cycle: Cycle, project: Project) -> None:
        pass


async def measure(directory: Path, *, cycles: int) -> Figure:
    """Milliseconds a step, over whole cycles; by turns with two durable writes of 4 KiB."""
    figure = Figure(
        name="cycle engine, a step without its work",
        unit="ms",
        mark="≤ 2 fsyncs + 1 ms",
        limit=1,
        limit_of=FSYNCS,
        allowance=1,
    )
    clock, deployments = SystemClock(), FakeDeployments()
    deployments.add("bench")
    database = await SqliteDatabase.open(directory / "engine.db")
    journal = SqliteJournal(database)
    try:
        async with Background() as background:
            engine = CycleEngine(
                journal=journal,
                steps=[Nothing(step) for step in CycleStep],
                deployments=deployments,
                cleanup=NoCleanup(),
                leftovers=None,
                clock=clock,
                background=background,
                stored=Bell(),
                owner="bench",
            )
            await engine.open()
            engine.resume()
            for _ in range(cycles):
                cycle = Cycle(
                    cycle_id=clock.new_id(),
                    project_id="bench",
                    request=CycleRequest(edited_paths=("app.py",), commit_message="Change"),
                    requested_by="local:0",
                    create_time=clock.now(),
                    steps=tuple(StepStatus(step=step) for step in CycleStep),
                )
                changed = engine.changed(cycle.cycle_id)
                await journal.create(cycle, b"")
                began = time.perf_counter()
                await engine.begin(cycle.cycle_id)
                # Not asked after each change, which would be measured too.
                while changed.count < len(FORWARD):
                    await changed.wait(changed.count)
                seen = changed.count
                while not (found := await journal.cycle(cycle.cycle_id)) or not found.ended:
                    await changed.wait(seen)
                    seen = changed.count
                figure.samples.append((time.perf_counter() - began) * 1e3 / len(FORWARD))
                figure.add(FSYNCS, 2 * fsync(directory))
    finally:
        await database.aclose()
    return figure


def fsync(directory: Path) -> float:
    """Milliseconds of one durable write of 4 KiB, beside the store."""
    with open(directory / "fsync", "ab") as file:
        file.write(bytes(4096))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return (time.perf_counter() - began) * 1e3

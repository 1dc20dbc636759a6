"""Processes with an engine on one database, whose steps act on files.

`python engine_process.py serve DIRECTORY OWNER STOP` carries all cycles that it may
take; STOP: the step at whose beginning it prints `in STEP` and, while the file `stop`
is there, waits. It prints `fenced` when a step of its own is not let act.

`python engine_process.py storm DIRECTORY SEED ROUNDS` carries the cycles with engines that
are killed one after the other, the last one not, and prints how often.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.cycles.engine import CycleEngine
from att_server.core.cycles.journal import Fenced
from att_server.core.cycles.model import Cycle, CycleStep
from att_server.core.cycles.step import Asked, Done, Failed, Leaves, StepEnd, StepWork
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event, Project
from att_server.core.rollback_verdict import PolicyStatus
from att_server.testing.deployments import FakeDeployments

LEASE = timedelta(seconds=1)
ACTS = (
    CycleStep.PUSH,
    CycleStep.PULL_REQUEST,
    CycleStep.MERGE,
    CycleStep.DEPLOY,
    CycleStep.ROLLBACK,
    CycleStep.REVERT,
)
"""The steps that do something outside: a line in the file of acts each."""


class Acts:
    """What was done outside, once a line, by whoever did it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "acts"

    def done(self) -> list[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def do(self, act: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{act}\n".encode())
        os.close(descriptor)


class KillPoints:
    """Kills its own process at the point with this number, of all that it passes."""

    def __init__(self, at: int = 0) -> None:
        self._left = at

    def pass_(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class FileStep:
    """Looks into the file of acts first, and acts at most once by it."""

    interruptible = True
    failure_class = FailureClass.INTERNAL

    def __init__(self, step: CycleStep, directory: Path, points: KillPoints, stop: str) -> None:
        self.step = step
        self._acts = Acts(directory)
        self._points = points
        self._stop = directory / "stop" if step.value == stop else None

    def skip_reason(self, asked: Asked) -> str:
        return "not_configured" if self.step is CycleStep.APPROVAL else ""

    async def run(self, work: StepWork) -> StepEnd:
        self._points.pass_()
        if self._stop is not None:
            print(f"in {self.step}", flush=True)
            while self._stop.exists():
                await asyncio.sleep(0.01)
        facts, result = work.cycle.facts, work.cycle.result
        if self.step is CycleStep.HEALTH and work.cycle.request.commit_message == "bad":
            return Failed(failure_class=FailureClass.HEALTH_FAILURE, reason="http_status")
        if self.step is CycleStep.MERGE:
            facts = replace(facts, merged_here=True, merged_commit="a" * 40)
        if self.step is CycleStep.DEPLOY:
            facts = replace(facts, cut_over=True)
        if self.step is CycleStep.ROLLBACK:
            result = replace(
                result,
                rollback_performed=True,
                rollback_succeeded=True,
                rollback_policy_status=PolicyStatus.ALLOWED,
            )
        act = f"{self.step} {work.cycle.cycle_id}"
        if self.step in ACTS and act not in self._acts.done():
            try:
                await work.note(Leaves(facts=facts if self.step is CycleStep.DEPLOY else None))
            except Fenced:
                print("fenced", flush=True)
                raise
            self._points.pass_()
            self._acts.do(act)
            self._points.pass_()
        event = Event(event_type="test.acted", time=work.now)
        return Done(leaves=Leaves(facts=facts, result=result, events=(event,)))


class NoCleanup:
    async def run(self, cycle: Cycle, project: Project) -> None:
        """There is nothing to remove."""


async def serve(
    directory: Path,
    owner: str,
    *,
    alone: bool,
    projects: Sequence[str],
    points: KillPoints | None = None,
    stop: str = "",
) -> None:
    """Carries cycles until none is active."""
    database = await SqliteDatabase.open(directory / "att.db")
    journal = SqliteJournal(database)
    deployments = FakeDeployments()
    for project_id in projects:
        deployments.add(project_id)
    async with Background() as background:
        engine = CycleEngine(
            journal=journal,
            steps=[FileStep(step, directory, points or KillPoints(), stop) for step in CycleStep],
            deployments=deployments,
            cleanup=NoCleanup(),
            leftovers=None,
            clock=SystemClock(),
            background=background,
            stored=Bell(),
            owner=owner,
            lease=LEASE,
        )
        await engine.open(alone=alone)
        engine.resume()
        while await journal.cycles(active_only=True, limit=1):
            await asyncio.sleep(0.005)
    await database.aclose()


# A storm ----------------------------------------------------------------------


def storm(directory: Path, projects: Sequence[str], seed: int, rounds: int) -> int:
    """Kills engines at a point or after a time, and returns how many; the last one lives."""
    drawn = random.Random(seed)
    killed = 0
    for life in range(rounds):
        at_point = drawn.random() < 0.5
        point = drawn.randint(1, 12) if at_point else 0
        child = os.fork()
        if child == 0:
            code = 1
            try:
                points = KillPoints(point)
                asyncio.run(
                    serve(directory, f"life-{life}", alone=True, projects=projects, points=points)
                )
                code = 0
            finally:
                os._exit(code)
        if not at_point:
            signal.sigtimedwait([signal.SIGCHLD], drawn.uniform(0.005, 0.15))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    asyncio.run(serve(directory, "last", alone=True, projects=projects))
    return killed


def main(words: Sequence[str]) -> None:
    kind, directory = words[0], Path(words[1])
    projects = (directory / "projects").read_text().split()
    if kind == "serve":
        asyncio.run(serve(directory, words[2], alone=False, projects=projects, stop=words[3]))
        print("over", flush=True)
    else:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        print(storm(directory, projects, int(words[2]), int(words[3])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

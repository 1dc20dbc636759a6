"""Cycles: a change end to end, a bad one back, fifty at once, and the list of ten thousand."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import att_client
from att_client import CycleOutcome
from benchmarks import cycle_engine
from benchmarks.figures import Figure, percentile
from benchmarks.stage import PATIENCE, Stage, serve

SETTINGS = """
[runtime]
command = ["{python}", "-S", "app.py", "{port}"]
stop_grace = "500ms"

[runtime.readiness]
http = "http://127.0.0.1:{port}/"
interval = "50ms"

[bootstrap]
restart_watchdog_retries = 1
restart_watchdog_interval = "50ms"
health_check_interval = "50ms"
health_timeout = "10s"

[bootstrap.test]
command = ["true"]

[bootstrap.ci]
command = ["true"]

[bootstrap.rollback]
max_attempts = 1000
"""
APP = """
import http.server, sys
STATUS = int(open("status").read())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(STATUS)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
LISTED = 10_000


async def measure(stage: Stage, *, rounds: int, together: int) -> list[Figure]:
    """One after the other, then `together` projects at once."""
    await project(stage, "cycle-one")
    return [
        await trivial(stage, rounds),
        *await bad(stage, rounds),
        *await at_once(stage, together),
        await listing(rounds),
        await cycle_engine.measure(stage.directory, cycles=20 * rounds),
    ]


async def project(stage: Stage, name: str) -> None:
    """A project with a repository and a remote of its own."""
    checkout, remote = stage.directory / name, stage.directory / f"{name}.git"
    checkout.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (checkout / "att.toml").write_text(SETTINGS.format(python=sys.executable, port=port))
    (checkout / "app.py").write_text(APP)
    (checkout / "status").write_text("200\n")
    who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    for command in (
        ("init", "-q", "--bare", "-b", "main", str(remote)),
        ("init", "-q", "-b", "main"),
        ("add", "."),
        (*who, "commit", "-q", "-m", "Begin"),
        ("remote", "add", "origin", str(remote)),
        ("push", "-q", "origin", "main"),
    ):
        await asyncio.to_thread(subprocess.run, ["git", *command], cwd=checkout, check=True)
    await stage.client.projects.create(name, path=str(checkout))


async def cycle(client: att_client.Client, name: str, **files: str) -> att_client.Cycle:
    """Carries a change to its end."""
    started = await client.bootstrap.start(name, edits=files, message="Change")
    async with asyncio.timeout(PATIENCE.total_seconds() * 5):
        return await client.bootstrap.wait(started.cycle_id)


async def trivial(stage: Stage, rounds: int) -> Figure:
    """Seconds from the call until a change runs and is healthy; tests and checks are `true`."""
    figure = Figure(name="cycle of trivial steps, end to end", unit="s", mark="< 3 s", limit=3)
    for number in range(rounds + 1):  # the first one fetches and has nothing to replace
        began = time.perf_counter()
        ended = await cycle(stage.client, "cycle-one", note=f"{number}\n")
        require(ended, CycleOutcome.SUCCEEDED)
        if number:
            figure.samples.append(time.perf_counter() - began)
    return figure


async def bad(stage: Stage, rounds: int) -> list[Figure]:
    """Seconds from the verdict of a rollback until the release before is healthy again."""
    samples = []
    for number in range(3 * rounds):
        ended = await cycle(stage.client, "cycle-one", status="503\n", note=f"bad {number}\n")
        require(ended, CycleOutcome.ROLLED_BACK)
        page = await stage.client.events.list(
            project_id="cycle-one", event_types=["rollback."], page_size=1000
        )
        times = {
            event.event_type: event.time
            for event in page.events
            if event.cycle_id == ended.cycle_id and event.time is not None
        }
        samples.append((times["rollback.completed"] - times["rollback.policy"]).total_seconds())
    name = "bad release: verdict → old one healthy"
    return [
        Figure(name=f"{name}, p50", unit="s", samples=[percentile(samples, 0.50)]),
        Figure(
            name=f"{name}, p99",
            unit="s",
            mark="< 5 s",
            limit=5,
            samples=[percentile(samples, 0.99)],
        ),
    ]


async def at_once(stage: Stage, together: int) -> list[Figure]:
    """Seconds until the first and the last of many projects that begin at once are done."""
    names = [f"cycle-{number:02}" for number in range(together)]
    for name in names:
        await project(stage, name)
    began = time.perf_counter()

    async def one(name: str) -> float:
        require(await cycle(stage.client, name, note="1\n"), CycleOutcome.SUCCEEDED)
        return time.perf_counter() - began

    took = await asyncio.gather(*map(one, names))
    return [
        Figure(name=f"{together} cycles at once: the first", unit="s", samples=[min(took)]),
        Figure(name=f"{together} cycles at once: the last", unit="s", samples=[max(took)]),
    ]


async def listing(rounds: int) -> Figure:
    """Milliseconds of a page of 50 cycles out of ten thousand, by a server of their own."""
    figure = Figure(
        name=f"ListCycles, a page of 50 of {LISTED:,}", unit="ms", mark="< 50 ms", limit=50
    )
    directory = Path(tempfile.mkdtemp(prefix="att-bench-"))
    try:
        state = directory / "state"
        state.mkdir(mode=0o700)
        await fill(state / "att.db")
        async with serve(state), att_client.connect(f"unix:{state}/att.sock") as client:
            for _ in range(10 * rounds):
                began = time.perf_counter()
                async for page in client.bootstrap.list().pages():
                    assert len(page.cycles) == 50
                    break
                figure.samples.append((time.perf_counter() - began) * 1e3)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return figure


async def fill(path: Path) -> None:
    """Stores ten thousand cycles that have ended, of fifty projects."""
    from dataclasses import replace

    from att_server.adapters.sqlite_database import SqliteDatabase
    from att_server.adapters.sqlite_journal import SqliteJournal
    from att_server.core.cycles.model import (
        Cycle,
        CycleRequest,
        CycleState,
        CycleStep,
        StepState,
        StepStatus,
    )
    from att_server.core.failure_class import CycleOutcome as Outcome

    now = datetime.now(UTC)
    database = await SqliteDatabase.open(path)
    journal = SqliteJournal(database)
    for number in range(LISTED):
        steps = tuple(
            StepStatus(step=step, state=StepState.SUCCEEDED, attempt=1, log_tail=b"x" * 100)
            for step in CycleStep
        )
        made = Cycle(
            cycle_id=f"{number:026}",
            project_id=f"p-{number % 50:02}",
            request=CycleRequest(edited_paths=("a",), commit_message="Change"),
            requested_by="local:0",
            create_time=now,
            steps=steps,
        )
        await journal.create(made, b"")
        taken = await journal.take(made.cycle_id, "bench", lease=PATIENCE, force=True)
        assert taken is not None
        ended = replace(
            taken, state=CycleState.ENDED, outcome=Outcome.SUCCEEDED, end_time=now, steps=steps
        )
        await journal.commit(ended)
    await database.aclose()


def require(ended: att_client.Cycle, outcome: CycleOutcome) -> None:
    """Raises RuntimeError for a cycle that ended otherwise; its figure would mean nothing."""
    if ended.outcome is not outcome:
        raise RuntimeError(
            f"{ended.cycle_id} of {ended.project_id} ended {ended.outcome.name}: "
            f"{ended.outcome_reason}; pid {os.getpid()}"
        )

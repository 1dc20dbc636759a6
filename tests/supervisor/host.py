"""A state directory with real supervisors, for tests that look at what they leave."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import FileIO
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.control_client import connect
from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.bell import Bell
from att_server.core.model import RunSpec, RunStatus
from att_server.core.settings import ResourceLimits, RestartCondition, RestartPolicy
from att_server.supervisor import hunt, processes
from att_server.supervisor.segment import (
    SEGMENT_HEADER_BYTES,
    Frame,
    FrameKind,
    frames_in,
    run_to_text,
    segment_sequences,
)
from att_server.supervisor.state import State, supervisor_directories
from tests.server_process import PATIENCE


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Returns once the condition holds; for what no event tells."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.005)


async def until(condition: Callable[[], object], what: str) -> None:
    """As `wait_until`, while the event loop goes on."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Record:
    """A frame of a log and its payload."""

    frame: Frame
    payload: bytes


class Listener:
    """Keeps what a driver told."""

    def __init__(self) -> None:
        self.statuses: dict[str, list[RunStatus]] = {}
        self.growths: dict[str, int] = {}
        self.changed = Bell()

    def run_changed(self, project_id: str, status: RunStatus) -> None:
        self.statuses.setdefault(project_id, []).append(status)
        self.changed.ring()

    def log_grew(self, project_id: str) -> None:
        self.growths[project_id] = self.growths.get(project_id, 0) + 1
        self.changed.ring()

    async def until(self, project_id: str, holds: Callable[[RunStatus], bool]) -> RunStatus:
        """The newest status, once it holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                count = self.changed.count
                known = self.statuses.get(project_id)
                if known and holds(known[-1]):
                    return known[-1]
                await self.changed.wait(count)


class Host:
    """Drivers over one state directory. `python` is an app's command."""

    def __init__(self, state_dir: Path, log_id: str) -> None:
        self.state_dir = state_dir
        self.clock = SystemClock()
        self.log_id = log_id
        self.epoch = 0
        self.work = state_dir / "work"
        self.work.mkdir(parents=True)

    def driver(self, **options: object) -> SupervisorDriver:
        """The driver of a server that comes after all before."""
        self.epoch += 1
        return SupervisorDriver(
            self.state_dir,
            epoch=self.epoch,
            clock=self.clock,
            **options,  # type: ignore[arg-type]  # a test names options of SupervisorDriver
        )

    async def opened(
        self, *projects: str, listener: Listener | None = None, **options: object
    ) -> SupervisorDriver:
        """A driver that has adopted these projects."""
        driver = self.driver(**options)
        for project in projects:
            self.project(project).mkdir(parents=True, exist_ok=True)
        await driver.adopt(dict.fromkeys(projects, self.log_id), listener or Listener())
        return driver

    def project(self, project_id: str) -> Path:
        return self.state_dir / "projects" / project_id

    def spec(
        self,
        *command: str,
        project: str = "app",
        grace: float = 10.0,
        probed: bool = False,
        directory: Path | None = None,
        env: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
        restart: RestartPolicy | None = None,
        limits: ResourceLimits | None = None,
    ) -> RunSpec:
        own = {} if env is None else env
        return RunSpec(
            project_id=project,
            log_id=self.log_id,
            command=command,
            directory=directory or self.work,
            env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **own},
            own_env=own,
            secrets=secrets or {},
            stop_grace=timedelta(seconds=grace),
            probed=probed,
            restart=restart or RestartPolicy(),
            limits=limits or ResourceLimits(),
        )

    def python(self, program: str, *arguments: str, **options: object) -> RunSpec:
        """A program in Python."""
        return self.spec(sys.executable, "-S", "-c", program, *arguments, **options)  # type: ignore[arg-type]  # options of `spec`

    def states(self, project: str = "app") -> list[State]:
        found = (State.load(name) for name in supervisor_directories(str(self.project(project))))
        return [state for state in found if state is not None]

    def state(self, project: str = "app") -> State:
        return self.states(project)[-1]

    def supervisor(self, project: str = "app") -> Path:
        """The newest supervisor's directory."""
        return Path(supervisor_directories(str(self.project(project)))[-1])

    def connect(self, project: str = "app") -> socket.socket:
        connection = connect(self.supervisor(project))
        connection.settimeout(PATIENCE)
        return connection

    def pipe(self, project: str = "app") -> FileIO:
        """The writing end of the app's standard output."""
        run = self.state(project).run
        assert run is not None
        return FileIO(f"/proc/{run.pid}/fd/1", "w")

    def kill_supervisor(self, project: str = "app") -> None:
        """SIGKILL, and returns when it is gone."""
        pid = self.state(project).pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "supervisor gone")

    # The log ----------------------------------------------------------------

    def records(self, project: str = "app") -> list[Record]:
        """All intact frames, checked for holes in their sequence numbers."""
        logs = self.project(project) / "logs"
        found: list[Record] = []
        sequence = 0
        for first in segment_sequences(os.listdir(logs)) if logs.exists() else ():
            assert first == sequence
            data = (logs / f"{first:020d}.seg").read_bytes()
            for offset, frame in frames_in(data, SEGMENT_HEADER_BYTES, sequence):
                end = offset + frame.total_size
                found.append(Record(frame, data[end - frame.size : end]))
                sequence = frame.next_sequence
        return found

    def output(self, project: str = "app", stream: int = 1) -> bytes:
        """All bytes of a stream, less the newlines that are ours."""
        parts = []
        for record in self.records(project):
            if record.frame.kind == FrameKind.LINES and record.frame.stream == stream:
                parts.append(record.payload[:-1] if record.frame.flags else record.payload)
        return b"".join(parts)

    def kinds(self, project: str = "app") -> list[int]:
        return [record.frame.kind for record in self.records(project)]

    def runs(self, project: str = "app") -> list[str]:
        """The ids of all runs in the log, each checked to be whole and apart from the others."""
        found: list[str] = []
        open_run: bytes | None = None
        for record in self.records(project):
            kind, run = record.frame.kind, record.frame.run
            if kind == FrameKind.RUN_STARTED:
                assert open_run is None
                open_run = run
                found.append(run_to_text(run))
            else:
                assert run == open_run
                if kind == FrameKind.RUN_ENDED:
                    open_run = None
        assert len(found) == len(set(found))
        return found

    def ends(self, project: str = "app") -> list[Record]:
        return [r for r in self.records(project) if r.frame.kind == FrameKind.RUN_ENDED]

    def clear(self) -> None:
        """Ends what a failed test has left."""
        projects = self.state_dir / "projects"
        for project in projects.iterdir() if projects.exists() else ():
            for state in self.states(project.name):
                process = processes.find(state.pid)
                if process is not None and process.ticks == state.start_ticks:
                    processes.send(process, signal.SIGKILL)
                if state.run is not None:
                    hunt.end_run(state.run.run_id, None, within=PATIENCE)


def policy(
    condition: str = "on-failure",
    *,
    wait: float = 0.01,
    factor: float = 1.0,
    jitter: float = 0.0,
    max_restarts: int = 10,
    stable_after: float = 60.0,
) -> RestartPolicy:
    """A restart policy whose waits are short and known."""
    return RestartPolicy(
        condition=RestartCondition(condition),
        initial_backoff=timedelta(seconds=wait),
        max_backoff=timedelta(hours=1),
        backoff_factor=factor,
        backoff_jitter=jitter,
        max_restarts=max_restarts,
        stable_after=timedelta(seconds=stable_after),
    )


def alive(pid: int) -> bool:
    """Whether a process runs, zombies apart."""
    process = processes.find(pid)
    return process is not None and not process.zombie


@contextmanager
def new_host() -> Iterator[Host]:
    """A host in a directory of its own, cleared at the end."""
    directory = Path(tempfile.mkdtemp(prefix="att-"))
    host = Host(directory / "s", SystemClock().new_id())
    try:
        yield host
    finally:
        host.clear()
        shutil.rmtree(directory, ignore_errors=True)

"""The core of a server on fakes, without its wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from att_server.core.app_users import ANYBODY
from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.deployment import ReleaseDeployments
from att_server.core.model import Event, EventFilter, Runtime, RuntimeState
from att_server.core.project_roots import ANYWHERE
from att_server.core.projects import ProjectManager
from att_server.core.run_events import RunEvents
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager
from att_server.core.settings import HttpProbe, Probe, RuntimeSettings
from att_server.core.templates import Templates
from att_server.runtime_parts import RuntimePorts, runtime_parts
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.clock import FakeClock
from att_server.testing.commands import FakeCommandFinder
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore
from tests.server_process import PATIENCE

NONE = RuntimeSettings()
RUN = RuntimeSettings(command=("serve",))
HEALTH = "http://127.0.0.1:9/health"
PROBED = RuntimeSettings(command=("serve",), readiness=Probe(kind=HttpProbe(url=HEALTH)))
SOON = timedelta(seconds=5)


class Server:
    """The managers of one server; `again` is the next server on the same state."""

    projects: ProjectManager
    runtimes: RuntimeManager
    runs: RunTable
    deployments: ReleaseDeployments

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStateStore()
        self.driver = FakeRuntimeDriver(clock=self.clock)
        self.prober = FakeProber(self.clock)
        self.settings = FakeSettingsReader()
        self.logs = MemoryLogStore()
        self.artifacts = MemoryArtifacts()
        self.held_at_start: tuple[str, ...] = ()
        self.grew: list[str] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        stored = Bell()
        async with Background() as background:
            self.runs = RunTable(
                events=RunEvents(store=self.store, clock=self.clock, stored=stored),
                first_revision=0,
                log_grew=self.grew.append,
                lost=lambda project_id: parts.recoverer.look_after(project_id),
            )
            self.projects = ProjectManager(
                store=self.store,
                logs=self.logs,
                settings=self.settings,
                directories=self.artifacts,
                templates=Templates(store=FakeTemplateStore(), events=self.store),
                clock=self.clock,
                stored=stored,
                roots=ANYWHERE,
                users=ANYBODY,
                is_directory=lambda _: True,
                released=lambda project_id: self.runtimes.released(project_id),
                forget=self.artifacts.forget_project,
                desired_changed=self.runs.project_changed,
            )
            parts = runtime_parts(
                RuntimePorts(
                    store=self.store,
                    driver=self.driver,
                    prober=self.prober,
                    commands=FakeCommandFinder(missing=frozenset({"gone"})),
                    users=ANYBODY,
                    artifacts=self.artifacts,
                    logs=self.logs,
                    clock=self.clock,
                    inherited_env={"PATH": "/bin"},
                ),
                projects=self.projects,
                runs=self.runs,
                background=background,
                last_lines=self.last_lines,
            )
            self.runtimes, self.deployments = parts.manager, parts.deployments
            await self.projects.open()
            for project_id in self.held_at_start:
                await self.deployments.hold(project_id)
            await self.runtimes.open()
            yield
        await self.runs.events.flush()

    async def last_lines(self, project_id: str, run_id: str, lines: int) -> list[str]:
        return [f"{run_id} said", "this"][:lines]

    async def create(self, runtime: RuntimeSettings = RUN, *, project_id: str = "web") -> None:
        await self.projects.create(project_id, str(Path("/web")), runtime, principal="")

    async def start(
        self,
        overrides: RuntimeSettings = NONE,
        *,
        wait_ready: bool = False,
        request_id: str = "",
        timeout: timedelta = SOON,
    ) -> Runtime:
        return await self.runtimes.start(
            "web",
            overrides,
            wait_ready=wait_ready,
            timeout=timeout,
            request_id=request_id,
            principal="local:7",
        )

    async def restart(self, *, request_id: str = "") -> Runtime:
        return await self.runtimes.restart(
            "web",
            NONE,
            wait_ready=False,
            timeout=SOON,
            grace=None,
            request_id=request_id,
            principal="local:7",
        )

    async def stop(self) -> Runtime:
        return await self.runtimes.stop("web", grace=None, principal="local:7")

    async def until(self, state: RuntimeState) -> Runtime:
        async with asyncio.timeout(PATIENCE):
            while True:
                entry = self.runs.entry("web")
                seen = entry.changed.count
                if self.runtimes.get("web").state is state:
                    return self.runtimes.get("web")
                await entry.changed.wait(seen)

    async def events(self, prefix: str = "runtime.") -> list[str]:
        """The types of all events, less their prefix."""
        return [event.event_type.removeprefix(prefix) for event in await self.told(prefix)]

    async def told(self, event_type: str = "runtime.") -> Sequence[Event]:
        """All events of a type."""
        await self.runs.events.flush()
        events, _ = await self.store.list_events(
            EventFilter(event_types=(event_type,)), cursor=0, limit=1000
        )
        return events


def run_id(runtime: Runtime) -> str:
    """The id of the app's present run."""
    assert runtime.status is not None
    return runtime.status.run_id

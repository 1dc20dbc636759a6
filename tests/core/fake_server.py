"""The core of a server on fakes, without its wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.health import HealthMonitor
from att_server.core.intents import Intents
from att_server.core.launch import Launcher
from att_server.core.model import Event, EventFilter, Runtime, RuntimeState
from att_server.core.operations import Operations
from att_server.core.projects import ProjectManager
from att_server.core.recovery import Recoverer
from att_server.core.run_events import RunEvents
from att_server.core.run_table import RunTable
from att_server.core.runtimes import RuntimeManager
from att_server.core.settings import HttpProbe, Probe, RuntimeSettings
from att_server.core.templates import Templates
from att_server.testing.clock import FakeClock
from att_server.testing.commands import FakeCommandFinder
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore

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

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStateStore()
        self.driver = FakeRuntimeDriver(clock=self.clock)
        self.prober = FakeProber(self.clock)
        self.settings = FakeSettingsReader()
        self.grew: list[str] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        stored = Bell()
        async with Background() as background:
            self.runs = RunTable(
                events=RunEvents(store=self.store, clock=self.clock, stored=stored),
                first_revision=0,
                log_grew=self.grew.append,
                lost=lambda project_id: recoverer.look_after(project_id),
            )
            self.projects = ProjectManager(
                store=self.store,
                logs=MemoryLogStore(),
                settings=self.settings,
                templates=Templates(store=FakeTemplateStore(), events=self.store),
                clock=self.clock,
                stored=stored,
                is_directory=lambda _: True,
                released=lambda project_id: self.runtimes.released(project_id),
                desired_changed=self.runs.project_changed,
            )
            health = HealthMonitor(
                runs=self.runs,
                driver=self.driver,
                prober=self.prober,
                clock=self.clock,
                background=background,
            )
            launcher = Launcher(
                projects=self.projects,
                commands=FakeCommandFinder(missing=frozenset({"gone"})),
                inherited_env={"PATH": "/bin"},
            )
            operations = Operations(background)
            recoverer = Recoverer(
                projects=self.projects,
                runs=self.runs,
                store=self.store,
                driver=self.driver,
                health=health,
                launcher=launcher,
                operations=operations,
                clock=self.clock,
                background=background,
            )
            self.runtimes = RuntimeManager(
                projects=self.projects,
                runs=self.runs,
                store=self.store,
                driver=self.driver,
                health=health,
                launcher=launcher,
                intents=Intents(
                    projects=self.projects, runs=self.runs, store=self.store, clock=self.clock
                ),
                operations=operations,
                recoverer=recoverer,
                clock=self.clock,
                background=background,
                last_lines=self.last_lines,
            )
            await self.projects.open()
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
        async with asyncio.timeout(10):
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

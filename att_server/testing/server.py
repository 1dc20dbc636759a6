"""A whole server in the test's own process, on a real socket."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from att_server.adapters.forge_local import LocalForges
from att_server.adapters.junit import JUnitDirectory
from att_server.app import Adapters, serving
from att_server.core.cycles.project_commands import ProjectCommands
from att_server.core.cycles.slots import Slots
from att_server.core.cycles.step import Hooks
from att_server.core.repository import Repositories
from att_server.rpc.limits import Limits
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.clock import FakeClock
from att_server.testing.commands import FakeCommandFinder, FakeCommandRunner
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.journal import MemoryJournal
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from att_server.testing.repositories import NoRepositories
from att_server.testing.settings import FakeBootstrapSettings, FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore
from att_server.testing.tokens import MemoryTokens


def fake_adapters(*, repositories: Repositories | None = None, **given: object) -> Adapters:
    """Fakes for all ports but those that are given, such as `driver=…`.

    The forge is the real local one, on the fake journal and the fake commands.
    """
    clock = FakeClock()
    store = given.get("store") or MemoryStateStore()
    if not isinstance(store, MemoryStateStore):
        raise TypeError("beside another store, another journal has to be given")
    journal = MemoryJournal(store, clock)
    helpers = FakeCommandRunner()
    commands = ProjectCommands(runner=helpers, slots=Slots(2), clock=clock)
    repositories = repositories or NoRepositories()
    fakes = Adapters(
        store=store,
        journal=journal,
        tokens=MemoryTokens(),
        logs=MemoryLogStore(),
        driver=FakeRuntimeDriver(clock=clock),
        prober=FakeProber(clock),
        commands=FakeCommandFinder(),
        helpers=helpers,
        settings=FakeSettingsReader(),
        artifacts=MemoryArtifacts(),
        repositories=repositories,
        forges=LocalForges(
            journal=journal, repositories=repositories, commands=commands, inherited_env={}
        ),
        junit=JUnitDirectory(Path(tempfile.gettempdir()) / "att-junit"),
        bootstrap_settings=FakeBootstrapSettings(),
        project_commands=commands,
        templates=FakeTemplateStore(),
        clock=clock,
    )
    return replace(fakes, **given)  # type: ignore[arg-type]  # checked by the dataclass's users


@asynccontextmanager
async def serve_in_process(
    adapters: Adapters | None = None, *, hooks: Hooks | None = None, limits: Limits | None = None
) -> AsyncIterator[str]:
    """Serves `adapters` (default: fakes) and yields the target, such as `unix:/tmp/x/att.sock`.

    The real wire and the real rules; what the adapters fake is up to the test.
    hooks: what an embedder brings along. limits: of each caller.
    """
    with tempfile.TemporaryDirectory(prefix="att-") as directory:
        socket_path = Path(directory) / "att.sock"
        async with serving(
            adapters or fake_adapters(),
            socket_path=socket_path,
            state_dir=Path(directory),
            epoch=1,
            instance_id="in-process",
            environ={},
            hooks=hooks,
            limits=limits,
        ):
            yield f"unix:{socket_path}"

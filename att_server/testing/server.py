"""A whole server in the test's own process, on a real socket."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from att_server.app import Adapters, serving
from att_server.testing.clock import FakeClock
from att_server.testing.commands import FakeCommandFinder, FakeCommandRunner
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore
from att_server.testing.templates import FakeTemplateStore


def fake_adapters(**given: object) -> Adapters:
    """Fakes for all ports but those that are given, such as `driver=…`."""
    clock = FakeClock()
    fakes = Adapters(
        store=MemoryStateStore(),
        logs=MemoryLogStore(),
        driver=FakeRuntimeDriver(clock=clock),
        prober=FakeProber(clock),
        commands=FakeCommandFinder(),
        helpers=FakeCommandRunner(),
        settings=FakeSettingsReader(),
        templates=FakeTemplateStore(),
        clock=clock,
    )
    return replace(fakes, **given)  # type: ignore[arg-type]  # checked by the dataclass's users


@asynccontextmanager
async def serve_in_process(adapters: Adapters | None = None) -> AsyncIterator[str]:
    """Serves `adapters` (default: fakes) and yields the target, such as `unix:/tmp/x/att.sock`.

    The real wire and the real rules; what the adapters fake is up to the test.
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
        ):
            yield f"unix:{socket_path}"

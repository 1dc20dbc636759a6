"""For tests of ATT and of what is built on it: a server in process, and a fake of every port."""

from att_server.testing.clock import FakeClock
from att_server.testing.commands import FakeCommandFinder, FakeCommandRunner
from att_server.testing.driver import FakeRuntimeDriver
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from att_server.testing.server import fake_adapters, serve_in_process
from att_server.testing.settings import FakeSettingsReader
from att_server.testing.state_store import MemoryStateStore

__all__ = [
    "FakeClock",
    "FakeCommandFinder",
    "FakeCommandRunner",
    "FakeProber",
    "FakeRuntimeDriver",
    "FakeSettingsReader",
    "MemoryLogStore",
    "MemoryStateStore",
    "fake_adapters",
    "serve_in_process",
]

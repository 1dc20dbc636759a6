"""What the core needs from outside, one protocol a concern.

Adapters implement these; `testing.py` ships a fake of each. A contract suite
per port (`tests/contract`) runs on both.
"""

from att_server.core.ports.clock import Clock
from att_server.core.ports.commands import CommandFinder, CommandRunner
from att_server.core.ports.log_store import LogStore
from att_server.core.ports.prober import Prober
from att_server.core.ports.project_files import (
    RunDirectories,
    SettingsReader,
    TemplateStore,
)
from att_server.core.ports.runtime_driver import RuntimeDriver, RuntimeListener
from att_server.core.ports.state_store import StateStore

__all__ = [
    "Clock",
    "CommandFinder",
    "CommandRunner",
    "LogStore",
    "Prober",
    "RunDirectories",
    "RuntimeDriver",
    "RuntimeListener",
    "SettingsReader",
    "StateStore",
    "TemplateStore",
]

"""What the core talks about: projects, runs, log records, events."""

from att_server.core.model.events import Event, EventFilter
from att_server.core.model.log import (
    GapReason,
    LogBounds,
    LogChunk,
    LogGap,
    LogPage,
    LogRecord,
    LogStream,
    RunEnded,
    RunStarted,
)
from att_server.core.model.projects import DesiredState, Project, ProjectMode
from att_server.core.model.runs import (
    CommandResult,
    PastRun,
    ProbeResult,
    ProbeTarget,
    RunExit,
    RunSpec,
    RunStatus,
    Runtime,
    RuntimeChanges,
    RuntimeState,
    Usage,
)

__all__ = [
    "CommandResult",
    "DesiredState",
    "Event",
    "EventFilter",
    "GapReason",
    "LogBounds",
    "LogChunk",
    "LogGap",
    "LogPage",
    "LogRecord",
    "LogStream",
    "PastRun",
    "ProbeResult",
    "ProbeTarget",
    "Project",
    "ProjectMode",
    "RunEnded",
    "RunExit",
    "RunSpec",
    "RunStarted",
    "RunStatus",
    "Runtime",
    "RuntimeChanges",
    "RuntimeState",
    "Usage",
]

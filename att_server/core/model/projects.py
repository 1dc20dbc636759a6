"""A project: one app, its directory, its settings, and the life of its log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from att_server.core.settings import RuntimeSettings


class ProjectMode(StrEnum):
    """What a project lets happen."""

    NORMAL = "normal"
    SAFE = "safe"
    FROZEN = "frozen"


class DesiredState(StrEnum):
    """What a project's app is meant to be, also after a restart of the host."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One app: its directory, its settings, and the life of its log.

    runtime: what was given over `att.toml`.
    desired: what the app is meant to be, with the settings of the last start
    (`desired_runtime`, given over the project's) to bring it back.
    mode_reason: why it is not NORMAL. release_id: what the app runs from; empty: `path`.
    """

    project_id: str
    path: Path
    runtime: RuntimeSettings
    mode: ProjectMode
    log_id: str
    desired: DesiredState
    desired_runtime: RuntimeSettings
    create_time: datetime
    update_time: datetime
    mode_reason: str = ""
    release_id: str = ""

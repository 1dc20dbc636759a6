"""An entry of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the audit log; `sequence` is -1 until it is stored."""

    event_type: str
    time: datetime
    project_id: str = ""
    cycle_id: str = ""
    run_id: str = ""
    principal: str = ""
    phase: str = ""
    reason: str = ""
    message: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    sequence: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Selects events; empty fields select all. A type that ends with `.` is a prefix.

    projects: None: all. audit: the audit records, which are left out otherwise."""

    project_id: str = ""
    cycle_id: str = ""
    event_types: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    projects: frozenset[str] | None = None
    audit: bool = False

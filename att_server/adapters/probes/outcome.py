"""What a kind of check says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """reason: one of HealthCheck.health_reason in `runtime.proto`."""

    reason: str
    http_status: int | None = None
    exit_code: int | None = None

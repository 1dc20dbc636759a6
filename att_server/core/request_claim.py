"""What is kept of a call that has a request id."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClaim:
    """A call with a request id: what was asked (digest) and what it began (outcome)."""

    request_id: str
    method: str
    digest: str
    project_id: str
    time: datetime
    outcome: str = ""

"""What is repeated by itself, and how long it waits in between.

Only UNAVAILABLE is, and CANCELLED, by which a server that goes resets what it
has not begun; and only where a repetition is harmless: the call reads, is
idempotent by contract, or carries a `request_id`. Streams are not in the
service config; they resume at their cursor (`resume.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

SERVICE_CONFIG = """
{
  "methodConfig": [{
    "name": [
      {"service": "att.v1.ProjectService", "method": "CreateProject"},
      {"service": "att.v1.ProjectService", "method": "GetProject"},
      {"service": "att.v1.ProjectService", "method": "ListProjects"},
      {"service": "att.v1.ProjectService", "method": "UpdateProject"},
      {"service": "att.v1.ProjectService", "method": "DeleteProject"},
      {"service": "att.v1.ProjectService", "method": "SetProjectMode"},
      {"service": "att.v1.RuntimeService", "method": "StartRuntime"},
      {"service": "att.v1.RuntimeService", "method": "StopRuntime"},
      {"service": "att.v1.RuntimeService", "method": "RestartRuntime"},
      {"service": "att.v1.RuntimeService", "method": "GetRuntime"},
      {"service": "att.v1.RuntimeService", "method": "ListRuntimes"},
      {"service": "att.v1.RuntimeService", "method": "ProbeHealth"},
      {"service": "att.v1.RuntimeService", "method": "SignalRuntime"},
      {"service": "att.v1.LogService", "method": "ReadLogs"},
      {"service": "att.v1.LogService", "method": "GetLogInfo"},
      {"service": "att.v1.LogService", "method": "TrimLogs"},
      {"service": "att.v1.BootstrapService", "method": "PlanCycle"},
      {"service": "att.v1.BootstrapService", "method": "StartCycle"},
      {"service": "att.v1.BootstrapService", "method": "GetCycle"},
      {"service": "att.v1.BootstrapService", "method": "ListCycles"},
      {"service": "att.v1.BootstrapService", "method": "CancelCycle"},
      {"service": "att.v1.BootstrapService", "method": "DecideCycle"},
      {"service": "att.v1.BootstrapService", "method": "ListReleases"},
      {"service": "att.v1.BootstrapService", "method": "GetRelease"},
      {"service": "att.v1.BootstrapService", "method": "EvaluateRollback"},
      {"service": "att.v1.BootstrapService", "method": "RollbackRelease"},
      {"service": "att.v1.CodeService", "method": "ListFiles"},
      {"service": "att.v1.CodeService", "method": "ReadFile"},
      {"service": "att.v1.CodeService", "method": "SearchFiles"},
      {"service": "att.v1.CodeService", "method": "DiffFiles"},
      {"service": "att.v1.CodeService", "method": "GetTestReport"},
      {"service": "att.v1.EventService", "method": "ListEvents"},
      {"service": "att.v1.ServerService", "method": "GetServerInfo"}
    ],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
    }
  }]
}
"""

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 0.5


class Backoff:
    """The waits of one outage: 0.05 s, doubled up to 0.5 s, each cut by up to half.

    random: a number in [0, 1) a call, so that many clients do not come at once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._delay = _FIRST_DELAY

    def next(self) -> timedelta:
        """The next wait."""
        delay = self._delay * (1 - self._random() / 2)
        self._delay = min(self._delay * 2, _LONGEST_DELAY)
        return timedelta(seconds=delay)

    def reset(self) -> None:
        """Begins anew: the server was heard."""
        self._delay = _FIRST_DELAY

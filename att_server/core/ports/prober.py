"""What checks apps from outside."""

from __future__ import annotations

from typing import Protocol

from att_server.core.model import (
    ProbeResult,
    ProbeTarget,
)
from att_server.core.settings import Probe


class Prober(Protocol):
    """Checks apps from outside."""

    async def probe(self, probe: Probe, target: ProbeTarget) -> ProbeResult:
        """Checks once, within the probe's timeout. Never raises for a failed check.

        An answer on a local port from a socket that no process of the target's
        tree owns is `port_owned_by_other_process`.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...

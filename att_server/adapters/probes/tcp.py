"""Checks of apps that accept connections."""

from __future__ import annotations

from att_server.adapters.probes.endpoints import Endpoints
from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.settings import TcpProbe


async def check_tcp(probe: TcpProbe, target: ProbeTarget, endpoints: Endpoints) -> Outcome:
    """tcp_ok, or tcp_refused. Raises OSError, TimeoutError, PortNotOwned."""
    try:
        (await endpoints.connect(probe.host, probe.port, target)).close()
    except ConnectionRefusedError:
        return Outcome(reason="tcp_refused")
    return Outcome(reason="tcp_ok")

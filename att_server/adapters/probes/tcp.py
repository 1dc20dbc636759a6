"""Checks of apps that accept connections."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from att_server.adapters.probes.endpoints import Endpoints
from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.settings import TcpProbe


async def check_tcp(probe: TcpProbe, target: ProbeTarget, endpoints: Endpoints) -> Outcome:
    """tcp_ok, or tcp_refused. Raises OSError, TimeoutError, PortNotOwned."""
    try:
        addresses = await endpoints.find(probe.host, probe.port, target)
        await _connect(addresses, probe.port)
    except ConnectionRefusedError:
        return Outcome(reason="tcp_refused")
    return Outcome(reason="tcp_ok")


async def _connect(addresses: tuple[str, ...], port: int) -> None:
    """Connects to the first address that accepts, and closes. Raises OSError of the last."""
    *others, last = addresses
    for address in others:
        with suppress(OSError):
            return await _connect_to(address, port)
    return await _connect_to(last, port)


async def _connect_to(address: str, port: int) -> None:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))

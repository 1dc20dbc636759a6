"""Where a probe may connect to: addresses of this host that the app itself listens on."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address

from att_server.adapters.probes.ownership import Owned, PortOwners
from att_server.core.model import ProbeTarget
from att_server.core.settings_rules import host_rule

_LOCALHOST = ("127.0.0.1", "::1")
_PROC_THREADS = 2
_LOOKUP_THREADS = 4


class PortNotOwned(Exception):
    """Another process than the app's listens on the port."""


class Endpoints:
    """Finds the addresses of probes.

    A loopback address is only given where the app listens on it: nothing is
    sent to a stranger, and no connection is made to a port that nobody listens
    on, which could become a connection to itself and keep the app from it.
    """

    def __init__(self, allowed_hosts: frozenset[str]) -> None:
        """allowed_hosts: what may be asked beside loopback addresses."""
        self._allowed_hosts = allowed_hosts
        self._owners = PortOwners()
        # Threads of their own: a look at /proc keeps no other work waiting, and
        # a name server that does not answer holds a thread for long.
        self._looks = ThreadPoolExecutor(_PROC_THREADS, thread_name_prefix="att-port")
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="att-lookup")

    async def find(self, host: str, port: int, target: ProbeTarget) -> tuple[str, ...]:
        """The addresses at which the host's port may be asked, at least one, best first.

        Raises ConnectionRefusedError if nobody listens, PortNotOwned, or OSError
        for a host that is not known or not allowed.
        """
        addresses = await self._addresses(host)
        loop = asyncio.get_running_loop()
        found = []
        foreign = False
        for address in addresses:
            if not _is_loopback(address):
                found.append(address)
                continue
            if self._owners.remembered(target.pid, address, port):
                found.append(address)
                continue
            owned = await loop.run_in_executor(
                self._looks, self._owners.owned, target.pid, target.run_id, address, port
            )
            foreign = foreign or owned is Owned.BY_OTHER
            if owned is Owned.BY_APP:
                found.append(address)
        if found:
            return tuple(found)
        if foreign:
            raise PortNotOwned
        raise ConnectionRefusedError(f"nobody listens on port {port} of {host}")

    async def connect(self, host: str, port: int, target: ProbeTarget) -> socket.socket:
        """A connection to the first of these addresses that accepts one, not blocking.

        Raises as `find`, else the OSError of the last address.
        """
        *others, last = await self.find(host, port, target)
        for address in others:
            with suppress(OSError):
                return await _connect(address, port)
        return await _connect(last, port)

    def close(self) -> None:
        """Ends the threads, those that still wait for a name server once they are answered."""
        self._looks.shutdown(wait=False, cancel_futures=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _addresses(self, host: str) -> tuple[str, ...]:
        """Raises OSError."""
        if host_rule(host, self._allowed_hosts):
            raise PermissionError(f"{host} is not a host that probes may ask")
        if host.lower() == "localhost":
            return _LOCALHOST
        try:
            return (str(ip_address(host)),)
        except ValueError:
            found = await asyncio.get_running_loop().run_in_executor(self._lookups, _look_up, host)
            return tuple(dict.fromkeys(found))


async def _connect(address: str, port: int) -> socket.socket:
    """Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _look_up(host: str) -> list[str]:
    return [
        str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    ]


def _is_loopback(address: str) -> bool:
    return ip_address(address).is_loopback

"""HttpProber: checks of apps over HTTP, on loopback."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any

import psutil

from att_server.core.model import HttpProbe, ProbeResult
from att_server.core.ports import Clock

if TYPE_CHECKING:
    import httpx2

_USER_AGENT = "att-probe"
_MAX_REMEMBERED = 1_000


class HttpProber:
    """Implements `Prober`.

    Each check has a connection of its own, as a new client of the app would. No
    redirect is followed, no proxy is used, and the body of an answer is not read.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._client: httpx2.AsyncClient | None = None
        self._listeners = _Listeners()

    async def probe(self, probe: HttpProbe, *, pid: int) -> ProbeResult:
        """Checks once, within the probe's timeout. Never raises for a failed check.

        The reason is http_ok, http_status (outside of 200 to 399), http_timeout,
        http_error (no answer), or port_owned_by_other_process.
        """
        status: int | None = None
        try:
            async with asyncio.timeout(probe.timeout.total_seconds()):
                status, host, port = await self._get(probe.url)
                owned = await asyncio.to_thread(self._listeners.owned, pid, host, port)
        except TimeoutError:
            reason = "http_timeout"
        except OSError:
            reason = "http_error"
        else:
            if not owned:
                reason = "port_owned_by_other_process"
            else:
                reason = "http_ok" if 200 <= status <= 399 else "http_status"
        return ProbeResult(
            healthy=reason == "http_ok",
            probe="http",
            reason=reason,
            checked_at=self._clock.now(),
            http_status=status,
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _get(self, url: str) -> tuple[int, str, int]:
        """The status of the answer, and the address and port that gave it. Raises OSError."""
        # Costs 8 MB, which a server without probes does not need.
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(
                # Probes do not use TLS; reading the host's certificates would cost memory.
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                timeout=None,
                trust_env=False,
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
                headers={"User-Agent": _USER_AGENT, "Connection": "close"},
            )
        try:
            async with self._client.stream("GET", url) as response:
                address = response.extensions["network_stream"].get_extra_info("server_addr")
                return response.status_code, address[0], address[1]
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise OSError(str(error)) from error


class _Listeners:
    """Knows which processes listen where.

    Finding a listening socket costs milliseconds, so it is remembered by the
    file that it is; to see that it is still there costs next to nothing.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[psutil.Process, str, int], tuple[str, str]] = {}

    def owned(self, pid: int, host: str, port: int) -> bool:
        """Whether a process of the tree of `pid` listens on the port, reachable at `host`."""
        try:
            key = (psutil.Process(pid), host, port)
            found = self._found.pop(key, None)
            if found is None or not _is_socket(*found):
                found = _find(key[0], _reaching(host), port)
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            # A process that hides its files, such as one with capabilities, can
            # be proven neither owner nor stranger.
            return True
        if found is None:
            return False
        if len(self._found) >= _MAX_REMEMBERED:
            self._found.clear()
        self._found[key] = found
        return True


def _is_socket(file: str, socket: str) -> bool:
    try:
        return os.readlink(file) == socket
    except OSError:
        return False


def _find(main: psutil.Process, addresses: frozenset[str], port: int) -> tuple[str, str] | None:
    """A listening socket of the tree: its file below /proc, and the socket's name."""
    for process in _tree(main):
        for connection in _connections(process):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and connection.laddr.ip in addresses
            ):
                file = f"/proc/{process.pid}/fd/{connection.fd}"
                with suppress(OSError):
                    return file, os.readlink(file)
    return None


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return []


def _reaching(host: str) -> frozenset[str]:
    """The local addresses under which a listener is reached at `host`.

    Two listeners of which one has a wildcard cannot share a port unless both
    say so, so there is no need to look which one is the closer match.
    """
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return frozenset({host, f"::ffff:{host}", "0.0.0.0", "::"})
    return frozenset({str(address), "::"})


def _tree(main: psutil.Process) -> Iterator[psutil.Process]:
    """The process and its descendants, those that left it for the supervisor too."""
    yield main
    children = main.children(recursive=True)
    yield from children
    run_id = main.environ().get("ATT_RUN_ID")
    if not run_id:
        return
    for process in psutil.process_iter():
        if process != main and process not in children and _run_id(process) == run_id:
            yield process


def _run_id(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("ATT_RUN_ID")
    except psutil.Error:
        return None

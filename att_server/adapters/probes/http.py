"""Checks of apps over HTTP."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from att_server.adapters.probes.endpoints import Endpoints
from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.settings import HttpProbe

if TYPE_CHECKING:
    import httpx2

_USER_AGENT = "att-probe"
_DEFAULT_PORT = 80


class HttpCheck:
    """Asks for one page at a time.

    No redirect is followed, no proxy is used, and the body of an answer is not
    read. A head of more than 100 KiB is refused by the HTTP parser.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._client: httpx2.AsyncClient | None = None

    async def check(self, probe: HttpProbe, target: ProbeTarget) -> Outcome:
        """http_ok, or http_status (outside of 200 to 399).

        Raises OSError without an answer, TimeoutError, PortNotOwned.
        """
        # Costs 8 MB, which a server without such probes does not need.
        import httpx2

        try:
            url = httpx2.URL(probe.url)
            addresses = await self._endpoints.find(url.host, url.port or _DEFAULT_PORT, target)
            status = await self._get(url, addresses)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise OSError(str(error)) from error
        return Outcome(
            reason="http_ok" if 200 <= status <= 399 else "http_status", http_status=status
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _get(self, url: httpx2.URL, addresses: tuple[str, ...]) -> int:
        """The status of the answer of the first address that accepts. Raises HTTPError."""
        import httpx2

        client = self._opened()
        *others, last = addresses
        for address in others:
            try:
                return await _status(client, url, address)
            except httpx2.ConnectError:
                continue
        return await _status(client, url, last)

    def _opened(self) -> httpx2.AsyncClient:
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
        return self._client


async def _status(client: httpx2.AsyncClient, url: httpx2.URL, address: str) -> int:
    """The name is looked up by us alone: it must not be another address when it is asked."""
    host = url.netloc.decode("ascii")
    async with client.stream(
        "GET", url.copy_with(host=address), headers={"Host": host}
    ) as response:
        return response.status_code

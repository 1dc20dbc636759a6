"""Checks of apps over HTTP."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from att_server.adapters.probes.endpoints import Endpoints
from att_server.adapters.probes.outcome import Outcome
from att_server.core.model import ProbeTarget
from att_server.core.settings import HttpProbe

_USER_AGENT = "att-probe"
_DEFAULT_PORT = 80
_MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024


async def check_http(probe: HttpProbe, target: ProbeTarget, endpoints: Endpoints) -> Outcome:
    """http_ok, or http_status (outside of 200 to 399).

    One request over a connection of its own: no redirect is followed, and of
    the answer no more is read than its head, of up to 64 KiB. Raises OSError
    without an answer, TimeoutError, PortNotOwned.
    """
    # Costs memory that a server without such probes does not need. A client
    # that can do more takes five times as long for a check.
    import h11

    url = urlsplit(probe.url)
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    headers = [("Host", url.netloc), ("User-Agent", _USER_AGENT), ("Connection", "close")]
    loop = asyncio.get_running_loop()
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    try:
        asked = http.send(h11.Request(method="GET", target=path, headers=headers))
        with await endpoints.connect(url.hostname or "", url.port or _DEFAULT_PORT, target) as app:
            await loop.sock_sendall(app, asked or b"")
            while not isinstance(event := http.next_event(), h11.Response):
                if event is h11.NEED_DATA:
                    http.receive_data(await loop.sock_recv(app, _READ_BYTES))
    except h11.ProtocolError as error:
        raise OSError(f"not an answer over HTTP: {error}") from error
    status = event.status_code
    return Outcome(reason="http_ok" if 200 <= status <= 399 else "http_status", http_status=status)

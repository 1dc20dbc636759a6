"""The connections of a bridge: one for each caller, as that caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import att_client

MOST = 32
"""Connections that are kept open while nobody uses them."""


class Callers:
    """Connections by token. What a caller may do is for the server to say, at each call.

    Open inside `async with`. A connection is made with its first call, and one that
    nobody uses is closed when there are more than `MOST`.
    """

    def __init__(self, config: att_client.Config, *, named: bool = False) -> None:
        """config: names the server, and the caller of requests that name none.

        named: there are no such requests: one that comes all the same is refused.
        """
        self._config = config
        self._named = named
        self._open: OrderedDict[str, _Connection] = OrderedDict()

    @property
    def target(self) -> str:
        """The server's target."""
        return self._config.target

    @asynccontextmanager
    async def connection(self, token: str | None = None) -> AsyncIterator[att_client.Client]:
        """The connection of the caller with `token`, None for the config's own caller.

        Raises UnauthenticatedError where callers have to be named, and ConfigInvalidError.
        """
        if self._named and not token:
            raise att_client.UnauthenticatedError(
                "The request names no caller.", reason="UNAUTHENTICATED"
            )
        key = token or ""
        connection = self._open.get(key)
        if connection is None:
            config = replace(self._config, token=key, token_file=None) if key else self._config
            connection = _Connection(att_client.connect(config=config, lazy=True))
            self._open[key] = connection
            await connection.client.__aenter__()
        self._open.move_to_end(key)
        connection.users += 1
        try:
            yield connection.client
        finally:
            connection.users -= 1
            await self._close_idle()

    async def forget(self, token: str) -> None:
        """Closes the connection of a caller whom the server refuses, if nobody uses it."""
        connection = self._open.get(token)
        if connection is not None and not connection.users:
            del self._open[token]
            await connection.client.aclose()

    async def aclose(self) -> None:
        """Closes all connections; calls that are on their way fail."""
        while self._open:
            _, connection = self._open.popitem()
            await connection.client.aclose()

    async def _close_idle(self) -> None:
        surplus = len(self._open) - MOST
        idle = [key for key, connection in self._open.items() if not connection.users]
        for key in idle[: max(surplus, 0)]:
            await self._open.pop(key).client.aclose()


class _Connection:
    def __init__(self, client: att_client.Client) -> None:
        self.client = client
        self.users = 0

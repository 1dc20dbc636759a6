"""Asks the server about itself."""

from __future__ import annotations

from datetime import timedelta

from att_client._proto.att.v1 import GetServerInfoRequest, GetServerInfoResponse
from att_client.transport import Service, Transport


class Server:
    """The server itself."""

    def __init__(self, transport: Transport, timeout: timedelta) -> None:
        self._service = Service(transport, "ServerService", timeout)

    async def info(self) -> GetServerInfoResponse:
        """Its version, what it can do, and who it takes the caller for."""
        return await self._service.call(GetServerInfoRequest(), GetServerInfoResponse)

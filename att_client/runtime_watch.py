"""Watches the states of apps over every interruption: the latest is never missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from att_client._proto.att.v1 import WatchRuntimesRequest, WatchRuntimesResponse
from att_client.decode import decoder
from att_client.errors import ProtocolError
from att_client.resume import Watch
from att_client.transport import Transport


class RuntimeWatch(Watch[WatchRuntimesResponse, WatchRuntimesResponse]):
    """States as they change: `async for change in watch`. Resumes itself.

    A change holds whole states (`runtimes`) and the ids of projects that were
    deleted (`deleted_project_ids`); the first one holds every state. States in
    between may be passed over, the latest never is. Leaving the loop closes the
    call; a later loop goes on behind the last change that was given out.
    """

    def __init__(
        self, transport: Transport, asked: WatchRuntimesRequest, max_elapsed: timedelta | None
    ) -> None:
        super().__init__(
            transport,
            "/att.v1.RuntimeService/WatchRuntimes",
            parse=decoder(WatchRuntimesResponse),
            progress_interval=asked.progress_interval,
            max_elapsed=max_elapsed,
        )
        self._asked = asked
        self._known: set[str] = set()
        self.revision = asked.after_revision
        """Where to go on."""

    def _request(self) -> WatchRuntimesRequest:
        return replace(self._asked, after_revision=self.revision)

    def _accept(self, message: WatchRuntimesResponse) -> WatchRuntimesResponse | None:
        """The change in a message of the server; None if it only reports progress."""
        if message.revision < self.revision and not message.complete:
            raise ProtocolError(
                f"The server's revision fell from {self.revision} to {message.revision}."
            )
        self.revision = message.revision
        deleted = set(message.deleted_project_ids)
        told = {runtime.project_id for runtime in message.runtimes}
        if message.complete:
            deleted |= self._known - told
        self._known = (self._known | told) - deleted
        if not told and not deleted and not message.complete:
            return None
        return replace(message, deleted_project_ids=sorted(deleted))

"""Watches the states of apps over every interruption: the latest is never missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

from att_client._proto.att.v1 import WatchRuntimesRequest, WatchRuntimesResponse
from att_client.errors import ClosedError, ProtocolError
from att_client.resume import ResumingStream
from att_client.transport import Transport

_METHOD = "/att.v1.RuntimeService/WatchRuntimes"


class RuntimeWatch:
    """States as they change: `async for change in watch`. Resumes itself.

    A change holds whole states (`runtimes`) and the ids of projects that were
    deleted (`deleted_project_ids`); the first one holds every state. States in
    between may be passed over, the latest never is. Leaving the loop closes the
    call; a later loop goes on behind the last change that was given out.
    """

    def __init__(
        self, transport: Transport, asked: WatchRuntimesRequest, max_elapsed: timedelta | None
    ) -> None:
        self._transport = transport
        self._asked = asked
        self._max_elapsed = max_elapsed
        self._stream: ResumingStream[WatchRuntimesResponse] | None = None
        self._known: set[str] = set()
        self._closed = False
        self.revision = asked.after_revision
        """Where to go on."""

    def __aiter__(self) -> AsyncIterator[WatchRuntimesResponse]:
        if self._closed:
            raise ClosedError("The watch was closed.")
        if self._stream is not None:
            self._stream.close()
        self._stream = ResumingStream(
            self._transport,
            _METHOD,
            request=self._request,
            parse=WatchRuntimesResponse.parse,
            progress_interval=self._asked.progress_interval,
            max_elapsed=self._max_elapsed,
        )
        return _Changes(self, self._stream)

    async def aclose(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

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


class _Changes:
    """The changes of one loop. Dropping it closes the call."""

    def __init__(self, watch: RuntimeWatch, stream: ResumingStream[WatchRuntimesResponse]) -> None:
        self._watch = watch
        self._stream = stream

    def __aiter__(self) -> _Changes:
        return self

    async def __anext__(self) -> WatchRuntimesResponse:
        while True:
            message = await self._stream.read()
            if message is None:
                raise StopAsyncIteration
            change = self._watch._accept(message)
            if change is not None:
                return change

    def __del__(self) -> None:
        self._stream.close()

"""Reads a stream that may break as if it never did."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from att_client.errors import AttError, ClosedError, UnavailableError
from att_client.retry import Backoff
from att_client.transport import Message, ServerStream, Transport

_log = logging.getLogger("att_client")

M = TypeVar("M")

_PROGRESS_INTERVAL = timedelta(seconds=15)
_SILENT_INTERVALS = 3


class ResumingStream(Generic[M]):
    """The messages of a server stream, over any number of calls.

    request: the request for the next call, from where the last one broke off;
        None if there is nothing left to ask for.
    parse: the message in the bytes.
    progress_interval: how often the server was asked to report progress; None
        is its default. A server that misses three reports is taken for dead.
    max_elapsed: bounds one outage; None is for ever.
    """

    def __init__(
        self,
        transport: Transport,
        method: str,
        *,
        request: Callable[[], Message | None],
        parse: Callable[[bytes], M],
        progress_interval: timedelta | None,
        max_elapsed: timedelta | None,
    ) -> None:
        self._transport = transport
        self._method = method
        self._name = method.rpartition("/")[2]
        self._request = request
        self._parse = parse
        interval = _PROGRESS_INTERVAL if progress_interval is None else progress_interval
        self._longest_silence = interval * _SILENT_INTERVALS
        self._max_elapsed = max_elapsed
        self._backoff = Backoff(random.random)
        self._outage_start: float | None = None
        self._call: ServerStream[M] | None = None
        self._closing = asyncio.Event()
        self._ended = False

    async def read(self) -> M | None:
        """The next message; None when the server said that none will come.

        Raises AttError: UnavailableError only after `max_elapsed`, every other
        kind at once. Cancelling loses nothing: the next read goes on.
        """
        while not self._ended:
            if self._closing.is_set():
                raise ClosedError("The stream was closed.")
            try:
                call = self._call or self._open_call()
                message = None if call is None else await call.read()
            except UnavailableError as error:
                self._drop_call()
                await self._pause(error)
                continue
            except AttError:
                self.close()
                raise
            except BaseException:
                self._drop_call()
                raise
            if self._outage_start is not None:
                self._note_outage_end(self._outage_start)
            if message is not None:
                return message
            self._ended = True
            self.close()
        return None

    def close(self) -> None:
        """Ends the call. A read that waits, and every later one, raises ClosedError."""
        self._closing.set()
        self._drop_call()

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _open_call(self) -> ServerStream[M] | None:
        """The next call; None if there is nothing left to ask for."""
        request = self._request()
        if request is not None:
            self._call = self._transport.stream(
                self._method, request, self._parse, self._longest_silence
            )
        return self._call

    async def _pause(self, error: UnavailableError) -> None:
        now = time.monotonic()
        if self._outage_start is None:
            self._outage_start = now
            _log.warning("%s broke off and is resumed: %s", self._name, error)
        delay = self._backoff.next()
        if self._max_elapsed is not None:
            elapsed = timedelta(seconds=now - self._outage_start)
            if elapsed + delay > self._max_elapsed:
                self.close()
                raise error
        try:
            async with asyncio.timeout(delay.total_seconds()):
                await self._closing.wait()
        except TimeoutError:
            pass

    def _note_outage_end(self, start: float) -> None:
        _log.info("%s goes on after %.1f s.", self._name, time.monotonic() - start)
        self._outage_start = None
        self._backoff.reset()

"""Reads a stream that may break as if it never did."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Generic, TypeVar

from att_client.errors import AttError, ClosedError, UnauthenticatedError, UnavailableError
from att_client.retry import Backoff
from att_client.transport import Message, ServerStream, Transport

_log = logging.getLogger("att_client")

M = TypeVar("M")
T = TypeVar("T")

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
        kind at once, but for a token that was renewed since. Cancelling loses
        nothing: the next read goes on.
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
            except AttError as error:
                if isinstance(error, UnauthenticatedError) and self._has_outdated_call():
                    self._drop_call()
                    continue
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

    def _has_outdated_call(self) -> bool:
        """Whether it was opened with a token that was renewed since."""
        return self._call is not None and self._call.outdated

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


class Watch(ABC, Generic[M, T]):
    """Changes as they come, one loop at a time: `async for change in watch`. Resumes itself.

    Leaving the loop closes the call; a later loop goes on where this one was.
    """

    def __init__(
        self,
        transport: Transport,
        method: str,
        *,
        parse: Callable[[bytes], M],
        progress_interval: timedelta | None,
        max_elapsed: timedelta | None,
    ) -> None:
        """method, parse, progress_interval, max_elapsed: see `ResumingStream`."""
        self._transport = transport
        self._method = method
        self._parse = parse
        self._progress_interval = progress_interval
        self._max_elapsed = max_elapsed
        self._stream: ResumingStream[M] | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[T]:
        if self._closed:
            raise ClosedError("The watch was closed.")
        if self._stream is not None:
            self._stream.close()
        self._stream = ResumingStream(
            self._transport,
            self._method,
            request=self._request,
            parse=self._parse,
            progress_interval=self._progress_interval,
            max_elapsed=self._max_elapsed,
        )
        return _Changes(self._stream, self._accept)

    async def aclose(self) -> None:
        """Closes the call. A loop that still waits raises ClosedError."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    @abstractmethod
    def _request(self) -> Message | None:
        """The request for the next call; None if there is nothing left to ask for."""

    @abstractmethod
    def _accept(self, message: M) -> T | None:
        """The change in a message; None if it only reports progress."""


class _Changes(Generic[M, T]):
    """The changes that one loop is given of a stream's messages. Dropping it closes the call."""

    def __init__(self, stream: ResumingStream[M], accept: Callable[[M], T | None]) -> None:
        self._stream = stream
        self._accept = accept

    def __aiter__(self) -> _Changes[M, T]:
        return self

    async def __anext__(self) -> T:
        while (message := await self._stream.read()) is not None:
            if (change := self._accept(message)) is not None:
                return change
        raise StopAsyncIteration

    def __del__(self) -> None:
        self._stream.close()

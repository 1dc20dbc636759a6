"""The boundary between gRPC and our code: malformed requests, errors, the end of the server."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast
from weakref import WeakSet

import grpc
from google.protobuf.message import DecodeError, Message

from att_server.core.errors import AttError, Reason
from att_server.rpc.call import Answer
from att_server.rpc.hang_up import hang_up
from att_server.rpc.request_sizes import too_large
from att_server.rpc.status import wire_error

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]

WRITE_WITHIN = timedelta(seconds=30)
"""How long a reader may take for a message that the kernel and gRPC have no room for."""

ABORT_WITHIN = timedelta(seconds=10)
"""How long the end of a call waits for its caller to take it."""

LAST_WRITE_WITHIN = timedelta(seconds=1)
"""How long a stream that is to end may take for the message that is under way: gRPC refuses a
status while the first one, and with it the metadata, is."""

_LOOKS = 4

_log = logging.getLogger(__name__)
_M = TypeVar("_M", bound=Message)


class _Refused:
    """Stands for a request that is not taken, until the boundary can say why."""

    def __init__(self, error: AttError) -> None:
        self.error = error


def parser(message_class: type[_M], *, max_bytes: int) -> Callable[[bytes], _M | _Refused]:
    """A request deserializer that never raises: gRPC would answer with the parser's text.

    max_bytes: what has more is not even parsed.
    """

    def parse(data: bytes) -> _M | _Refused:
        if len(data) > max_bytes:
            return _Refused(too_large(len(data), max_bytes))
        try:
            return message_class.FromString(data)
        except DecodeError:
            return _Refused(
                AttError(
                    Reason.MALFORMED_MESSAGE,
                    "The request is not a message of its type. Generate the client from att.v1.",
                )
            )

    return parse


def serialize(answer: Answer) -> bytes:
    """The response serializer: bytes are encoded already."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class Boundary:
    """Makes handlers that end with an answer, a rich status, or their cancellation.

    Nothing of an exception other than AttError leaves the server: the caller
    gets an error id, the log has the traceback under it.
    """

    def __init__(
        self,
        *,
        new_error_id: Callable[[], str],
        write_within: timedelta = WRITE_WITHIN,
        abort_within: timedelta = ABORT_WITHIN,
        abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        """write_within: how long a stream waits for its reader to take a message.
        abort_within: how long the end of a call waits for its caller to take it.
        abandoned: called for each call whose end was not taken, and whose connection
        cannot be told from others."""
        self._new_error_id = new_error_id
        self._abandoned = abandoned
        self._abort_within = abort_within
        self._write_within = write_within.total_seconds()
        self._unary: set[asyncio.Timeout] = set()
        self._streams: set[asyncio.Timeout] = set()
        self._writers: set[_Writer] = set()
        self._stalled: WeakSet[asyncio.Timeout] = WeakSet()
        self._look: asyncio.TimerHandle | None = None
        self._acting: set[asyncio.Future[Any]] = set()
        self._draining = False
        self._empty = asyncio.Event()

    def unary(self, name: str, handler: Handler, *, acts: bool = False) -> Handler:
        """The handler of an rpc that answers one message; the inner one returns it.

        acts: the rpc changes something, so the inner handler comes to its end
        when the caller leaves: what is stored is always shown too.
        """

        async def handle(request: Any, context: Context) -> Any:
            async with self._call(name, context, self._unary):
                answer = handler(_checked(request), context)
                return await (self._to_its_end(answer) if acts else answer)

        return handle

    def streaming(self, name: str, handler: Handler) -> Handler:
        """The handler of an rpc that answers a stream; the inner one writes to the context."""

        async def handle(request: Any, context: Context) -> None:
            async with self._call(name, context, self._streams) as scope:
                writer = _Writer(context, scope)
                self._writers.add(writer)
                self._look_later()
                try:
                    await handler(_checked(request), cast("Context", writer))
                finally:
                    self._writers.discard(writer)

        return handle

    def end_streams(self) -> None:
        """Ends every stream with SHUTTING_DOWN, and later calls too; others go on."""
        self._draining = True
        writing = {writer.end_after_write() for writer in self._writers if writer.is_writing}
        _expire(self._streams - writing)
        asyncio.get_running_loop().call_later(
            LAST_WRITE_WITHIN.total_seconds(), lambda: _expire(self._streams & writing)
        )

    async def drain(self, grace: timedelta) -> None:
        """Ends every call with SHUTTING_DOWN: streams at once, others after `grace`.

        A message that is on its way has a second to be out. Returns when none is left; later
        calls are refused.
        """
        self.end_streams()
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await self._emptied()
                while self._acting:
                    await asyncio.wait(self._acting)
        except TimeoutError:
            _expire(self._unary)
            await self._emptied()
            for action in self._acting:
                action.cancel()
            await asyncio.gather(*self._acting, return_exceptions=True)

    def _look_later(self) -> None:
        if self._look is None and self._writers:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(self._write_within / _LOOKS, self._look_at_writers)

    def _look_at_writers(self) -> None:
        """Ends the streams that nobody reads. One look for all: every message passes here."""
        self._look = None
        now = asyncio.get_running_loop().time()
        for writer in self._writers:
            if now - writer.since > self._write_within:
                self._stalled.add(writer.scope)
                _expire({writer.scope})
        self._look_later()

    async def _to_its_end(self, work: Awaitable[Any]) -> Any:
        action = asyncio.ensure_future(work)
        self._acting.add(action)
        action.add_done_callback(self._acted)
        return await asyncio.shield(action)

    def _acted(self, action: asyncio.Future[Any]) -> None:
        self._acting.discard(action)
        if not action.cancelled():
            action.exception()  # Marks it as seen: the caller may have left.

    async def _emptied(self) -> None:
        while self._unary or self._streams:
            self._empty.clear()
            await self._empty.wait()

    @asynccontextmanager
    async def _call(
        self, name: str, context: Context, calls: set[asyncio.Timeout]
    ) -> AsyncIterator[asyncio.Timeout]:
        scope = asyncio.timeout(None)
        try:
            if self._draining:
                raise _shutting_down()
            async with scope:
                calls.add(scope)
                try:
                    yield scope
                finally:
                    calls.discard(scope)
                    if not calls:
                        self._empty.set()
        except AttError as error:
            await self._abort(context, error)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError:
            # gRPC could not write: the connection went at that moment.
            raise asyncio.CancelledError from None
        except TimeoutError as error:
            # The scope has no deadline: `drain` makes it expire, or a reader that takes nothing.
            if not scope.expired():
                ended = self._defect(name, error)
            else:
                ended = _stalled() if scope in self._stalled else _shutting_down()
            await self._abort(context, ended)
        except Exception as error:  # noqa: BLE001 - the boundary: nothing else may leave
            await self._abort(context, self._defect(name, error))

    async def _abort(self, context: Context, error: AttError) -> None:
        wire = wire_error(error)
        try:
            async with asyncio.timeout(self._abort_within.total_seconds()):
                await context.abort(wire.code, wire.message, wire.trailers)
        except (TimeoutError, grpc.aio.InternalError):
            # Who takes no message may not take the status either, and holds all that
            # waits before it; or gRPC does not even queue it. The call is let go of; its
            # end is in the connection's queue, which is ended where it can be told from
            # others.
            if not hang_up(context.peer()):
                self._abandoned()
            raise asyncio.CancelledError from None

    def _defect(self, name: str, error: Exception) -> AttError:
        error_id = self._new_error_id()
        _log.error("call of %s failed, error id %s", name, error_id, exc_info=error)
        return AttError(
            Reason.INTERNAL,
            f"The server failed on this call (error id {error_id}). "
            "Its log holds the details under this id.",
            error_id=error_id,
        )


class _Writer:
    """The context of a stream, which notes since when it waits for its reader.

    since: in the loop's seconds; for ever from now while it does not. scope: of the call.
    """

    __slots__ = ("_context", "_is_to_end", "_now", "scope", "since")

    def __init__(self, context: Context, scope: asyncio.Timeout) -> None:
        self._context = context
        self._now = asyncio.get_running_loop().time
        self.scope = scope
        self.since = math.inf
        self._is_to_end = False

    @property
    def is_writing(self) -> bool:
        return self.since != math.inf

    def end_after_write(self) -> asyncio.Timeout:
        """Makes the scope, which it returns, expire as soon as the present write is over."""
        self._is_to_end = True
        return self.scope

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """As the context's."""
        self.since = self._now()
        await self._context.write(message)
        self.since = math.inf
        if self._is_to_end:
            _expire({self.scope})
            await asyncio.sleep(0)  # Where the scope ends the call, before the next write.


def _checked(request: Any) -> Any:
    """The request, or for a stream of requests the stream, once they are messages."""
    if isinstance(request, Message):
        return request
    if isinstance(request, _Refused):
        raise request.error
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _stalled() -> AttError:
    return AttError(
        Reason.STREAM_STALLED,
        "The stream was not read for so long that the server has ended it. Call again, from its "
        "last cursor.",
    )


def _shutting_down() -> AttError:
    return AttError(
        Reason.SHUTTING_DOWN,
        "The server is shutting down. Call again, a stream from its last cursor.",
    )


def _expire(scopes: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for scope in scopes:
        if not scope.expired():
            scope.reschedule(now)

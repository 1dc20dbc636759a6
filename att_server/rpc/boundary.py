"""The boundary between gRPC and our code: malformed requests, errors, the end of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from att_server.core.errors import AttError, Reason
from att_server.rpc.call import Answer
from att_server.rpc.status import wire_error

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]

_log = logging.getLogger(__name__)
_M = TypeVar("_M", bound=Message)


class _Malformed:
    """Stands for a request whose bytes are no message, until the boundary can say so."""


_MALFORMED: Final = _Malformed()


def parser(message_class: type[_M]) -> Callable[[bytes], _M | _Malformed]:
    """A request deserializer that never raises: gRPC would answer with the parser's text."""

    def parse(data: bytes) -> _M | _Malformed:
        try:
            return message_class.FromString(data)
        except DecodeError:
            return _MALFORMED

    return parse


def serialize(answer: Answer) -> bytes:
    """The response serializer: bytes are encoded already."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class Boundary:
    """Makes handlers that end with an answer, a rich status, or their cancellation.

    Nothing of an exception other than AttError leaves the server: the caller
    gets an error id, the log has the traceback under it.
    """

    def __init__(self, *, new_error_id: Callable[[], str]) -> None:
        self._new_error_id = new_error_id
        self._unary: set[asyncio.Timeout] = set()
        self._streams: set[asyncio.Timeout] = set()
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
            async with self._call(name, context, self._streams):
                await handler(_checked(request), context)

        return handle

    async def drain(self, grace: timedelta) -> None:
        """Ends every call with SHUTTING_DOWN: streams at once, others after `grace`.

        Returns when none is left; later calls are refused.
        """
        self._draining = True
        _expire(self._streams)
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
    ) -> AsyncIterator[None]:
        scope = asyncio.timeout(None)
        try:
            if self._draining:
                raise _shutting_down()
            async with scope:
                calls.add(scope)
                try:
                    yield
                finally:
                    calls.discard(scope)
                    if not calls:
                        self._empty.set()
        except AttError as error:
            await _abort(context, error)
        except grpc.aio.AbortError:
            raise
        except TimeoutError as error:
            # The scope has no deadline: only `drain` makes it expire.
            await _abort(
                context, _shutting_down() if scope.expired() else self._defect(name, error)
            )
        except Exception as error:  # noqa: BLE001 - the boundary: nothing else may leave
            await _abort(context, self._defect(name, error))

    def _defect(self, name: str, error: Exception) -> AttError:
        error_id = self._new_error_id()
        _log.error("call of %s failed, error id %s", name, error_id, exc_info=error)
        return AttError(
            Reason.INTERNAL,
            f"The server failed on this call (error id {error_id}). "
            "Its log holds the details under this id.",
            error_id=error_id,
        )


def _checked(request: Any) -> Any:
    """The request, or for a stream of requests the stream, once they are messages."""
    if isinstance(request, Message):
        return request
    if request is _MALFORMED:
        raise AttError(
            Reason.MALFORMED_MESSAGE,
            "The request is not a message of its type. Generate the client from att.v1.",
        )
    return _checked_stream(request)


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


async def _abort(context: Context, error: AttError) -> None:
    wire = wire_error(error)
    await context.abort(wire.code, wire.message, wire.trailers)


def _shutting_down() -> AttError:
    return AttError(
        Reason.SHUTTING_DOWN,
        "The server is shutting down. Call again, a stream from its last cursor.",
    )


def _expire(scopes: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for scope in scopes:
        scope.reschedule(now)

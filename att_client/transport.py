"""The wire: one channel, and the only place where calls are made.

Messages cross it as bytes, so that what cannot be written or read is an error
of its own and never silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar
from urllib.parse import quote

import grpc.aio

from att_client.errors import ClosedError, ProtocolError
from att_client.retry import SERVICE_CONFIG
from att_client.status import from_rpc

_log = logging.getLogger("att_client")

# A page of 3 MiB of lines may hold 100,000 chunks of some 90 bytes beside them.
_LONGEST_MESSAGE = 32 << 20

_CHANNEL_OPTIONS = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
    # A server that was restarted is found soon: the default waits up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Another client's failed connection must not make this one wait.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


R = TypeVar("R")


class Message(Protocol):
    """A request, as far as the wire is concerned."""

    def __bytes__(self) -> bytes: ...


class Transport:
    """A channel to the server at `target`, `unix:/path`. Not open until `open`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._channel: grpc.aio.Channel | None = None

    def open(self) -> None:
        """Makes the channel. It connects with the first call."""
        # gRPC reads a target as a URI, where a space or % is not itself.
        path = self.target.removeprefix("unix:")
        self._channel = grpc.aio.insecure_channel("unix:" + quote(path), options=_CHANNEL_OPTIONS)

    async def aclose(self) -> None:
        """Ends all calls; later ones raise ClosedError."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    @property
    def closed(self) -> bool:
        """Whether calls are impossible: before `open` and after `aclose`."""
        return self._channel is None

    async def unary(
        self, method: str, request: Message, parse: Callable[[bytes], R], timeout: timedelta
    ) -> R:
        """Calls `method`, `/package.Service/Method`.

        parse: the message in the bytes of the answer.
        timeout: bounds the call with all its repetitions. Raises AttError.
        Cancelling gives the call up; the server may have acted.
        """
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = self._open_channel().unary_unary(method)
        try:
            answer = await call(bytes(request), timeout=timeout.total_seconds())
        except grpc.aio.AioRpcError as error:
            failure = from_rpc(error, method=method, target=self.target)
            _log.debug("%s failed: %s", method, failure)
            raise failure from error
        except asyncio.CancelledError as error:
            raise _cancelled_or_closed(error) from None
        _log.debug("%s done", method)
        try:
            return parse(answer)
        except Exception as error:
            raise unreadable(method, error) from error

    def stream(self, method: str, request: Message) -> ServerStream:
        """Opens a server stream of `method`, without a deadline."""
        _log.debug("%s opened", method)
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        call = self._open_channel().unary_stream(method)
        return ServerStream(self, method, call(bytes(request)))

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise ClosedError("The client is not open. Use it inside `async with`.")
        return self._channel


class ServerStream:
    """The messages of one call, as bytes. Closed by `cancel`."""

    def __init__(
        self,
        transport: Transport,
        method: str,
        call: grpc.aio.UnaryStreamCall[bytes, bytes],
    ) -> None:
        self._transport = transport
        self._method = method
        self._call = call
        # Not `call.read()`: it asks first whether the call is done, and would
        # pass over messages that arrived before the end.
        self._messages = aiter(call)

    async def read(self) -> bytes | None:
        """The next message; None after the last, if the server ended with OK.

        Raises AttError for any other end. Cancelling ends the stream.
        """
        try:
            return await anext(self._messages, None)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, method=self._method, target=self._transport.target) from error
        except asyncio.CancelledError as error:
            raise _cancelled_or_closed(error) from None

    def cancel(self) -> None:
        """Ends the call, in whatever state. Does not wait."""
        if not self._transport.closed:
            self._call.cancel()


def present(value: R | None) -> R:
    """The part that every answer of its kind has; raises ProtocolError without it."""
    if value is None:
        raise ProtocolError("The server's answer lacks what it is about.")
    return value


def unreadable(method: str, error: Exception) -> ProtocolError:
    """The error for an answer that is not the message it should be."""
    return ProtocolError(
        f"{method.rpartition('/')[2]}: the server's answer cannot be read: {error!r}."
    )


def _cancelled_or_closed(error: asyncio.CancelledError) -> BaseException:
    # gRPC reports a call that was ended on this side like the cancellation of
    # the task that waits for it.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    return ClosedError("The client or the stream was closed during the call.")

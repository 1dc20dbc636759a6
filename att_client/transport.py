"""The wire: one channel, and the only place where calls are made.

Messages cross it as bytes, so that what cannot be written or read is an error
of its own and never silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

import grpc.aio

from att_client.errors import AttError, ClosedError, ProtocolError, UnavailableError
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
    ("grpc.max_reconnect_backoff_ms", 500),
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
            raise _unless_task_is_cancelled(error, _closed()) from None
        _log.debug("%s done", method)
        try:
            return parse(answer)
        except Exception as error:
            raise _unreadable(method, error) from error

    def stream(
        self,
        method: str,
        request: Message,
        parse: Callable[[bytes], R],
        longest_silence: timedelta,
    ) -> ServerStream[R]:
        """Opens a server stream of `method`, without a deadline.

        parse: the message in its bytes.
        longest_silence: how long a read waits before the server is taken for dead.
        """
        _log.debug("%s opened", method)
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        call = self._open_channel().unary_stream(method)
        return ServerStream(self, method, call(bytes(request)), parse, longest_silence)

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise ClosedError("The client is not open. Use it inside `async with`.")
        return self._channel


class ServerStream(Generic[R]):
    """The messages of one call. Closed by `cancel`, which has to be called."""

    def __init__(
        self,
        transport: Transport,
        method: str,
        call: grpc.aio.UnaryStreamCall[bytes, bytes],
        parse: Callable[[bytes], R],
        longest_silence: timedelta,
    ) -> None:
        self._transport = transport
        self._method = method
        self._call = call
        # Not `call.read()`: it asks first whether the call is done, and would
        # pass over messages that arrived before the end.
        self._messages = aiter(call)
        self._parse = parse
        self._loop = asyncio.get_running_loop()
        self._longest_silence = longest_silence.total_seconds()
        self._waiting_since: float | None = None
        self._is_silent = False
        # One timer for all reads: it costs nothing when a message arrives.
        self._watchdog = self._loop.call_later(self._longest_silence, self._check_silence)

    async def read(self) -> R | None:
        """The next message; None after the last, if the server ended with OK.

        Raises AttError for any other end, UnavailableError after too long a
        silence. Cancelling ends the stream.
        """
        self._waiting_since = self._loop.time()
        try:
            data = await anext(self._messages)
        except StopAsyncIteration:
            return None
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, method=self._method, target=self._transport.target) from error
        except asyncio.CancelledError as error:
            failure = self._silence() if self._is_silent else _closed()
            raise _unless_task_is_cancelled(error, failure) from None
        finally:
            self._waiting_since = None
        try:
            return self._parse(data)
        except Exception as error:
            raise _unreadable(self._method, error) from error

    def cancel(self) -> None:
        """Ends the call, in whatever state. Does not wait."""
        self._watchdog.cancel()
        if not self._transport.closed:
            self._call.cancel()

    def _check_silence(self) -> None:
        # A user who takes long with a message is no silence of the server.
        since = self._waiting_since
        left = self._longest_silence
        if since is not None:
            left -= self._loop.time() - since
        if left > 0:
            self._watchdog = self._loop.call_later(left, self._check_silence)
        else:
            self._is_silent = True
            self.cancel()

    def _silence(self) -> UnavailableError:
        name = self._method.rpartition("/")[2]
        return UnavailableError(f"{name}: nothing was heard for {self._longest_silence} s.")


def present(value: R | None) -> R:
    """The part that every answer of its kind has; raises ProtocolError without it."""
    if value is None:
        raise ProtocolError("The server's answer lacks what it is about.")
    return value


def _unreadable(method: str, error: Exception) -> ProtocolError:
    """The error for an answer that is not the message it should be."""
    return ProtocolError(
        f"{method.rpartition('/')[2]}: the server's answer cannot be read: {error!r}."
    )


def _closed() -> ClosedError:
    return ClosedError("The client or the stream was closed during the call.")


def _unless_task_is_cancelled(error: asyncio.CancelledError, failure: AttError) -> BaseException:
    # gRPC reports a call that was ended on this side like the cancellation of
    # the task that waits for it.
    task = asyncio.current_task()
    return error if task is not None and task.cancelling() else failure

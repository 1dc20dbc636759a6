"""The wire: one channel, and the only place where calls are made.

Messages cross it as bytes, so that what cannot be written or read is an error
of its own and never silence.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

import betterproto2
import grpc.aio

from att_client.config import Config
from att_client.decode import decoder
from att_client.errors import (
    AttError,
    ClosedError,
    ConfigInvalidError,
    ProtocolError,
    UnauthenticatedError,
    UnavailableError,
)
from att_client.retry import SERVICE_CONFIG
from att_client.status import from_rpc, unreachable
from att_client.tls import TlsFiles
from att_client.token_file import TokenFile

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


_STREAMS_OF_A_CHANNEL = 80
"""A server may take no more than 100 calls at once on a connection; gRPC has those above it
wait without a word."""

R = TypeVar("R")
A = TypeVar("A", bound=betterproto2.Message)


class Message(Protocol):
    """A request, as far as the wire is concerned."""

    def __bytes__(self) -> bytes: ...


class Transport:
    """A channel to the server that `config` names. Not open until `open`.

    Its token goes with every call and is in no log and no error.
    """

    def __init__(self, config: Config) -> None:
        self.target = config.target
        self._config = config
        self._token_file = None if config.token_file is None else TokenFile(config.token_file)
        self._was_answered = False
        self._tls = TlsFiles(config) if config.address.encrypted else None
        # The first is for calls too, the others are opened as streams need them.
        self._channels: list[_Channel] = []
        # Of files that were renewed since; what goes on there comes to its end.
        self._outdated: list[_Channel] = []

    def open(self) -> None:
        """Makes the channel. It connects with the first call. Raises ConfigInvalidError."""
        self._channels = [self._new_channel()]

    async def aclose(self) -> None:
        """Ends all calls; later ones raise ClosedError."""
        channels = [*self._channels, *self._outdated]
        self._channels, self._outdated = [], []
        for channel in channels:
            await channel.channel.close()

    @property
    def closed(self) -> bool:
        """Whether calls are impossible: before `open` and after `aclose`."""
        return not self._channels

    async def unary(
        self, method: str, request: Message, parse: Callable[[bytes], R], timeout: timedelta
    ) -> R:
        """Calls `method`, `/package.Service/Method`.

        parse: the message in the bytes of the answer.
        timeout: bounds the call with all its repetitions. Raises AttError.
        Cancelling gives the call up; the server may have acted.

        A server that answered before may be about to come back, so calls are repeated;
        where none ever did and nobody listens at its socket, that is said at once.
        """
        if not self._was_answered and (why := _nobody_listens(self._config.address.socket)):
            raise unreachable(why, method=method, target=self.target)
        answer = await self._answer(method, bytes(request), timeout)
        _log.debug("%s done", method)
        self._was_answered = True
        try:
            return parse(answer)
        except Exception as error:
            raise _unreadable(method, error) from error

    async def _answer(self, method: str, request: bytes, timeout: timedelta) -> bytes:
        """Raises AttError."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = self._open_channels()[0].channel.unary_unary(method)
        token = self.token()
        try:
            return await call(request, timeout=timeout.total_seconds(), metadata=_metadata(token))
        except grpc.aio.AioRpcError as error:
            failure = from_rpc(error, method=method, target=self.target)
            _log.debug("%s failed: %s", method, failure)
            self._was_answered = self._was_answered or bool(failure.reason)
            if not isinstance(failure, UnauthenticatedError) or token == self.token():
                raise failure from error
        except asyncio.CancelledError as error:
            raise _unless_task_is_cancelled(error, _closed()) from None
        # Renewed while the call was on its way, which was not let in: nothing was done.
        return await self._answer(method, request, timeout)

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
        channel = self._channel_with_room()
        call = channel.channel.unary_stream(method)
        token = self.token()
        opened = call(bytes(request), metadata=_metadata(token))
        channel.streams += 1
        return ServerStream(self, channel, method, opened, parse, longest_silence, token)

    def token(self) -> str:
        """The token that says who calls, as its file holds it now; empty: there is none.

        Raises ConfigInvalidError if the file never held one.
        """
        return self._config.token if self._token_file is None else self._token_file.token()

    def _channel_with_room(self) -> _Channel:
        channels = self._open_channels()
        for channel in channels:
            if channel.streams < _STREAMS_OF_A_CHANNEL:
                return channel
        channels.append(self._new_channel())
        return channels[-1]

    def _open_channels(self) -> list[_Channel]:
        if not self._channels:
            raise ClosedError("The client is not open. Use it inside `async with`.")
        if self._tls is not None and self._tls.renewed():
            try:
                renewed = self._new_channel()
            except ConfigInvalidError as error:
                _log.warning("the new TLS files are not used: %s", error.message)
            else:
                _log.info("the TLS files were renewed")
                self._outdated += self._channels
                self._channels = [renewed]
        return self._channels

    def _new_channel(self) -> _Channel:
        name = self._config.address.name
        if self._tls is None:
            return _Channel(grpc.aio.insecure_channel(name, options=_CHANNEL_OPTIONS))
        credentials = self._tls.credentials()
        return _Channel(grpc.aio.secure_channel(name, credentials, options=_CHANNEL_OPTIONS))


class Service:
    """One service of the contract. An rpc is named by its request: `GetCycleRequest`."""

    def __init__(self, transport: Transport, name: str, timeout: timedelta) -> None:
        """name: such as `RuntimeService`. timeout: of calls that are given none."""
        self._transport = transport
        self._name = name
        self._timeout = timeout

    async def call(
        self, request: Message, answer: type[A], *, timeout: timedelta | None = None
    ) -> A:
        """The answer to the request. As `Transport.unary`."""
        rpc = type(request).__name__.removesuffix("Request")
        return await self._transport.unary(
            f"/att.v1.{self._name}/{rpc}",
            request,
            decoder(answer),
            self._timeout if timeout is None else timeout,
        )


class _Channel:
    """A channel and how many streams are open on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.streams = 0


class ServerStream(Generic[R]):
    """The messages of one call. Closed by `cancel`, which has to be called."""

    def __init__(
        self,
        transport: Transport,
        channel: _Channel,
        method: str,
        call: grpc.aio.UnaryStreamCall[bytes, bytes],
        parse: Callable[[bytes], R],
        longest_silence: timedelta,
        token: str,
    ) -> None:
        self._transport = transport
        self._token = token
        self._channel: _Channel | None = channel
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

    @property
    def outdated(self) -> bool:
        """Whether it was opened with another token than the one that there is now."""
        return self._token != self._transport.token()

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
        if self._channel is not None:
            self._channel.streams -= 1
            self._channel = None
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


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def _nobody_listens(path: str) -> str:
    """Why no server is at a socket's path; empty: one may be, or the path is."""
    if path:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                return error.strerror or ""
            except OSError:
                pass  # whatever it is, the call finds it too
    return ""


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

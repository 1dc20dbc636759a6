"""What an rpc's implementation sees of its call, and the two forms it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from att_server.core.identity import Caller

_ANSWER_SHARE = 0.1
_ENDING_SHARE = 0.5
_ANSWER_MARGIN = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an rpc.

    caller: who calls; that one has the role that the rpc declares.
    time_remaining: until the caller's deadline; None: it has none. The call is
    cancelled at the deadline, whatever the implementation does. remote: it came from
    the network, and not by the socket.
    """

    caller: Caller
    time_remaining: timedelta | None
    remote: bool = False

    @property
    def principal(self) -> str:
        """The name of who calls, such as `local:1000`."""
        return self.caller.principal

    def bound(self, wait: timedelta, *, ending: timedelta = timedelta()) -> timedelta:
        """`wait`, or less where the caller's deadline is sooner: the answer has to arrive.

        ending: what it may take to end what is waited for.
        """
        if self.time_remaining is None:
            return wait
        margin = min(self.time_remaining * _ANSWER_SHARE, _ANSWER_MARGIN)
        margin += min(self.time_remaining * _ENDING_SHARE, ending)
        return max(timedelta(), min(wait, self.time_remaining - margin))


Answer = Message | bytes
"""A message, or its encoded bytes, which are sent as they are."""

Unary = Callable[[Any, Call], Awaitable[Answer]]
"""Answers a request with one message; raises AttError."""

Streaming = Callable[[Any, Call], AsyncIterator[Answer]]
"""Answers a request with messages; ends, or raises AttError. It is closed when the call ends."""


class Service(Protocol):
    """The implementation of some or all rpcs of one service."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """The service in the contract."""
        ...

    def methods(self) -> Mapping[str, Unary | Streaming]:
        """What is implemented, by the rpc's name: a Streaming where it answers a stream."""
        ...

"""Makes blocking methods of the client's own: same arguments, same answers, same words.

A type checker and `inspect.signature` see of each the signature of its original, and
`help` its docstring.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from att_client.sync.background_loop import BackgroundLoop

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Group(Generic[A]):
    """The blocking twin of `group`, whose calls run in `loop`."""

    def __init__(self, loop: BackgroundLoop, group: A) -> None:
        self._loop = loop
        self._group = group


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Group[A], P], R]:
    """The method that returns what `method` has to be awaited for."""

    @functools.wraps(method)
    def call(self: Group[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.call(method(self._group, *args, **kwargs))

    return call


def giving(
    twin: Callable[[BackgroundLoop, S], R], method: Callable[Concatenate[A, P], S]
) -> Callable[Concatenate[Group[A], P], R]:
    """The method that gives the blocking `twin` of what `method` gives without waiting."""

    @functools.wraps(method)
    def call(self: Group[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return twin(self._loop, method(self._group, *args, **kwargs))

    return _returning(twin, call)


def blocking_giving(
    twin: Callable[[BackgroundLoop, S], R],
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, S]],
) -> Callable[Concatenate[Group[A], P], R]:
    """The method that returns the blocking `twin` of what `method` has to be awaited for."""

    @functools.wraps(method)
    def call(self: Group[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return twin(self._loop, self._loop.call(method(self._group, *args, **kwargs)))

    return _returning(twin, call)


def _returning(twin: object, call: Callable[P, R]) -> Callable[P, R]:
    """`call`, which has the annotations of an original that returns something else."""
    call.__annotations__ = {**call.__annotations__, "return": twin}
    return call

"""Who is told of changes: `subscriptions/listen`, and `resources/subscribe` before it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import mcp_types as types
from mcp import MCPError
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    ResourcesListChanged,
    ResourceUpdated,
)
from mcp_types import INVALID_PARAMS

import att_client
from att_client.mcp.callers import Callers
from att_client.mcp.options import Options
from att_client.mcp.resources import Address, address
from att_client.mcp.runner import Request, caller_token
from att_client.mcp.watching import changes, list_changes

_log = logging.getLogger(__name__)

MOST = 100
"""Resources that one client may watch at once."""
_MOST_SESSIONS = 1_000

_MOMENT = 2.0  # seconds

Tell = Callable[[], Awaitable[None]]
Source = Callable[[att_client.Client], AsyncIterator[None]]


class Subscriptions:
    """Watches resources as the caller, for as long as the caller's connection is open."""

    def __init__(self, callers: Callers, options: Options) -> None:
        self._callers = callers
        self._options = options
        self._sessions: dict[str, _Session] = {}

    async def listen(
        self, request: Request, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Serves one stream of notifications, until its client goes."""
        wanted = params.notifications
        uris = list(dict.fromkeys(wanted.resource_subscriptions or ()))
        _check_count(len(uris))
        # A bus of its own: nobody hears of what others may see.
        bus = InMemorySubscriptionBus()
        token = caller_token()
        watches = [
            self._watch(token, uri, partial(bus.publish, ResourceUpdated(uri=uri))) for uri in uris
        ]
        if wanted.resources_list_changed and not self._options.projects:
            watches.append(
                _Watch(
                    self._callers, token, list_changes, partial(bus.publish, ResourcesListChanged())
                )
            )
        try:
            await _begun(watches)
            return await ListenHandler(bus)(request, params)
        finally:
            await _ended(watches)

    async def subscribe(
        self, request: Request, params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        """Watches one resource for a client of the earlier era."""
        name = session_id(request)
        session = self._sessions.get(name)
        if session is None:
            if len(self._sessions) >= _MOST_SESSIONS:
                await self.close(next(iter(self._sessions)), forget=True)
            # A pipe is always open; over HTTP a stream of its own has to be.
            session = self._sessions[name] = _Session(streams=0 if name else 1)
        _check_count(len(session.wanted.keys() | {params.uri}))
        told = request.session
        uri, token = params.uri, caller_token()

        def watch(missed: bool) -> _Watch:
            tell = partial(told.send_resource_updated, uri)
            return self._watch(token, uri, tell, missed=missed)

        await session.add(uri, watch)
        return types.EmptyResult()

    async def unsubscribe(
        self, request: Request, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """Ends what `subscribe` began; nothing where nothing was begun."""
        session = self._sessions.get(session_id(request))
        if session is not None:
            await session.remove(params.uri)
        return types.EmptyResult()

    async def open(self, session: str) -> None:
        """A stream on which the session is told of changes has been opened."""
        self._sessions.setdefault(session, _Session(streams=0)).start()

    async def close(self, session: str, *, forget: bool = False) -> None:
        """That stream has been closed; with `forget` the session is over."""
        known = self._sessions.get(session)
        if known is None:
            return
        await known.stop(wholly=forget)
        if forget or not (known.wanted or known.streams):
            self._sessions.pop(session, None)

    async def aclose(self) -> None:
        """Ends all watching."""
        while self._sessions:
            await self.close(next(iter(self._sessions)), forget=True)

    def _watch(self, token: str | None, uri: str, tell: Tell, *, missed: bool = False) -> _Watch:
        where = address(uri)

        async def source(att: att_client.Client) -> AsyncIterator[None]:
            if where is not None and await self._may_be_watched(att, where):
                async for _ in changes(att, where):
                    yield

        return _Watch(self._callers, token, source, tell, missed=missed)

    async def _may_be_watched(self, att: att_client.Client, where: Address) -> bool:
        name = where.variables.get("id", "")
        if not self._options.projects or not name:
            return True
        if where.family.kind == "cycle":
            name = (await att.bootstrap.get(name)).project_id
        return self._options.serves(name)


class _Watch:
    """Tells of every change of one resource, as one caller. It begins at once."""

    def __init__(
        self,
        callers: Callers,
        token: str | None,
        source: Source,
        tell: Tell,
        *,
        missed: bool = False,
    ) -> None:
        """source: yields once it watches, and then after each change.

        missed: something may have changed before, which is told too.
        """
        self._callers = callers
        self._token = token
        self._source = source
        self._tell = tell
        self._missed = missed
        self.begun = asyncio.Event()
        """Whether every change is told from now on, or never one."""
        self.task = asyncio.create_task(self._run(), name="watch of a resource")

    async def _run(self) -> None:
        try:
            async with self._callers.connection(self._token) as att:
                async for _ in self._source(att):
                    if self.begun.is_set() or self._missed:
                        await self._tell()
                    self.begun.set()
        except att_client.AttError as error:
            # What is not there never changes.
            _log.info("a subscription ends: %s", error)
        finally:
            self.begun.set()


@dataclass(slots=True, kw_only=True)
class _Session:
    """What one client of the earlier era wants to hear of, and what watches it now.

    streams: how many are open on which it can be told.
    """

    streams: int
    wanted: dict[str, Callable[[bool], _Watch]] = field(default_factory=dict)
    running: dict[str, _Watch] = field(default_factory=dict)

    async def add(self, uri: str, watch: Callable[[bool], _Watch]) -> None:
        await self.remove(uri)
        self.wanted[uri] = watch
        if self.streams:
            self.running[uri] = watch(False)
            await _begun([self.running[uri]])

    async def remove(self, uri: str) -> None:
        self.wanted.pop(uri, None)
        if (watch := self.running.pop(uri, None)) is not None:
            await _ended([watch])

    def start(self) -> None:
        self.streams += 1
        for uri, watch in self.wanted.items():
            if uri not in self.running:
                self.running[uri] = watch(True)

    async def stop(self, *, wholly: bool) -> None:
        self.streams = 0 if wholly else max(self.streams - 1, 0)
        if not self.streams:
            watches, self.running = [*self.running.values()], {}
            await _ended(watches)


def session_id(request: Request) -> str:
    """Names the client's session; empty on a pipe, which has one client."""
    headers = getattr(request.request, "headers", None)
    return "" if headers is None else headers.get("mcp-session-id", "")


def _check_count(count: int) -> None:
    if count > MOST:
        raise MCPError(INVALID_PARAMS, f"At most {MOST} resources are watched at once.")


async def _begun(watches: Sequence[_Watch]) -> None:
    """Returns when they watch, or a moment later where no server answers."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_MOMENT):
            for watch in watches:
                await watch.begun.wait()


async def _ended(watches: Sequence[_Watch]) -> None:
    tasks = [watch.task for watch in watches]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""The bridge over Streamable HTTP: on loopback, for callers with a token of their own.

Browsers and rebound names are kept out by exact `Host` and `Origin`; the token is
verified by the ATT server, and passed on to it with every call.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import att_client
from att_client.mcp.bridge import Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.options import OptionInvalid
from att_client.mcp.runner import GONE
from att_client.mcp.subscriptions import Subscriptions

PATH = "/mcp"
_SESSION = b"mcp-session-id"
_TOKEN = re.compile(r"[!-~]{1,1024}")
_GRACE = 2  # seconds that open streams have when the bridge ends
_MOST_SESSIONS = 200
_VERIFICATION = 1  # seconds, after which the server is taken to be away

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where the bridge listens: a loopback address and a port, 0 for any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Listener:
        """The listener of `127.0.0.1:8765` or `[::1]:8765`. Raises OptionInvalid."""
        host, _, port = text.rpartition(":")
        host = "127.0.0.1" if host == "localhost" else host.strip("[]")
        try:
            is_loopback = ip_address(host).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            raise OptionInvalid(
                f"{text!r} is no address on loopback with a port, and the bridge listens on no "
                "other. Give 127.0.0.1:8765, and reach it from afar over ssh."
            )
        if not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise OptionInvalid(f"{text!r} has no port from 0 to 65535. Give 127.0.0.1:8765.")
        return cls(host=host, port=int(port))

    def bound(self) -> socket.socket:
        """A socket that listens there. Raises OSError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named, asyncio sends small answers at once (TCP_NODELAY).
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.host, self.port))
            listening.listen(128)
        except OSError:
            listening.close()
            raise
        return listening


def app(port: int, *, bridge: Bridge, callers: Callers) -> ASGIApp:
    """The bridge as an ASGI application that is served on `port` of loopback."""
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    security = TransportSecuritySettings(
        allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
    )
    inner = bridge.server.streamable_http_app(
        streamable_http_path=PATH,
        transport_security=security,
        max_sessions=_MOST_SESSIONS,
        token_verifier=Verifier(callers),
        # Without a resource server's URL nothing of it is published: tokens are made by
        # `att token create`, and there is no OAuth.
        auth=AuthSettings(issuer_url=AnyHttpUrl(f"http://{hosts[0]}"), resource_server_url=None),
    )
    return _Guard(inner, security, bridge.subscriptions)


class Verifier:
    """Asks the ATT server whose token it is."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def verify_token(self, token: str) -> AccessToken | None:
        """The caller; None for a token that the server refuses.

        While no server answers nobody can be refused, and nobody gets anything but that.
        """
        if not _TOKEN.fullmatch(token):
            return None
        try:
            async with self._callers.connection(token) as att, asyncio.timeout(_VERIFICATION):
                await att.server.info()
        except att_client.UnauthenticatedError:
            await self._callers.forget(token)
            return None
        except (att_client.AttError, TimeoutError) as error:
            _log.info("a token could not be verified: %r", error)
        # A session is of who began it, also while the server is away.
        whose = hashlib.sha256(token.encode()).hexdigest()
        return AccessToken(token=token, client_id=whose, scopes=[])


class _Guard:
    """Refuses foreign hosts and origins before anything else, and follows sessions' streams."""

    def __init__(
        self, inner: ASGIApp, security: TransportSecuritySettings, subscriptions: Subscriptions
    ) -> None:
        self._inner = inner
        self._security = TransportSecurityMiddleware(security)
        self._subscriptions = subscriptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        refusal = await self._security.validate_request(Request(scope), is_post=False)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        session = dict(scope["headers"]).get(_SESSION, b"").decode("latin-1")
        if session and scope["method"] in ("GET", "DELETE"):
            await self._of_session(session, scope, receive, send)
            return
        gone = scope[GONE] = asyncio.Event()
        try:
            await self._inner(scope, receive, send)
        finally:
            gone.set()

    async def _of_session(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the stream on which a session is told of changes, or the session's end."""
        is_granted = False

        async def answering(message: Message) -> None:
            nonlocal is_granted
            if message["type"] == "http.response.start" and message["status"] == 200:
                is_granted = True
                if scope["method"] == "GET":
                    await self._subscriptions.open(session)
            await send(message)

        try:
            await self._inner(scope, receive, answering)
        finally:
            if is_granted:
                await self._subscriptions.close(session, forget=scope["method"] == "DELETE")


@contextlib.asynccontextmanager
async def serving(listener: Listener, app_on: Callable[[int], ASGIApp]) -> AsyncIterator[str]:
    """Serves while the context lasts; yields the URL.

    app_on: the application for a port, such as `app`. Raises OSError where the address
    cannot be listened on.
    """
    listening = listener.bound()
    port = listening.getsockname()[1]
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    server = _Server(
        uvicorn.Config(
            app_on(port),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            lifespan="on",
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        yield f"http://{host}:{port}{PATH}"
    finally:
        server.should_exit = True
        await task
        listening.close()


class _Server(uvicorn.Server):
    """Signals are for who runs it to take."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # as uvicorn has it
        yield

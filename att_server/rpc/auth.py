"""Says who makes a call: by its token, its certificate, or the socket it came by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor

from att.v1 import access_pb2
from att_server.core.errors import AttError, Reason
from att_server.core.identity import Caller, Role
from att_server.rpc.boundary import Context

HEADER = "authorization"
SCHEME = "bearer"

_SSL = b"ssl"
_CHECK_EVERY = timedelta(seconds=0.5)

_ROLES: Mapping[int, Role] = MappingProxyType(
    {
        access_pb2.ROLE_VIEWER: Role.VIEWER,
        access_pb2.ROLE_OPERATOR: Role.OPERATOR,
        access_pb2.ROLE_APPROVER: Role.APPROVER,
        access_pb2.ROLE_ADMIN: Role.ADMIN,
    }
)


class Tokens(Protocol):
    """Knows tokens by their text."""

    async def caller(self, text: str) -> Caller:
        """Who stands behind the text. Raises UNAUTHENTICATED."""
        ...


class Certificates(Protocol):
    """Knows certificates by the URI in their subject alternative names."""

    async def caller(self, uri: str) -> Caller | None:
        """Who calls with it; None: nobody that is known. Raises AttError."""
        ...


class Authentication:
    """Finds the caller of each call, and watches that of a stream."""

    def __init__(
        self,
        *,
        local: Caller,
        tokens: Tokens,
        certificates: Certificates | None = None,
        anonymous: Caller | None = None,
    ) -> None:
        """local: who calls on the socket without a token.

        certificates: knows those of clients, where listeners ask for one. anonymous: who
        calls in clear text on the loopback without a token; None: nobody may.
        """
        self._local = local
        self._tokens = tokens
        self._certificates = certificates
        self._anonymous = anonymous

    async def caller(self, context: Context) -> Caller:
        """Who calls. Raises UNAUTHENTICATED, and PERMISSION_DENIED for a certificate that
        is not known.

        A token says who it is; with a certificate that is known, it may do no more than
        that one may.
        """
        text = _token(context)
        if text is None and on_socket(context):
            return self._local
        certified = await self._certified(context)
        if text is not None:
            caller = await self._tokens.caller(text)
            return caller if certified is None else caller.within(certified)
        if certified is not None:
            return certified
        if _uris(context):
            raise AttError(
                Reason.PERMISSION_DENIED,
                "The certificate is valid, and its URI is nobody's that is known here. Have it "
                "added to `settings.toml` of the server under `identities`, or send a token.",
            )
        if self._anonymous is not None and not _is_encrypted(context):
            return self._anonymous
        raise AttError(
            Reason.UNAUTHENTICATED,
            "The call says not who makes it. Send one header `authorization: Bearer TOKEN`; "
            "ATT_TOKEN_FILE names the file of a token to `att` and to the SDK.",
        )

    @asynccontextmanager
    async def watched(self, context: Context, caller: Caller) -> AsyncIterator[None]:
        """Ends what is inside once `caller`, who opened the stream, would not be its caller.

        That is within a second of a revocation or expiry, with UNAUTHENTICATED or
        PERMISSION_DENIED.
        """
        if caller is self._local or caller is self._anonymous:
            yield
            return
        scope = asyncio.timeout(None)

        async def watch() -> None:
            try:
                while True:
                    await asyncio.sleep(_CHECK_EVERY.total_seconds())
                    if await self.caller(context) != caller:
                        raise AttError(
                            Reason.UNAUTHENTICATED,
                            "What the caller may do has changed. Open the stream again.",
                        )
            except Exception:
                scope.reschedule(asyncio.get_running_loop().time())
                raise

        async with _ended_with(asyncio.create_task(watch())) as watching:
            try:
                async with scope:
                    yield
            except TimeoutError:
                if not scope.expired():
                    raise
                await watching  # it raises why

    async def _certified(self, context: Context) -> Caller | None:
        if self._certificates is None or on_socket(context):
            return None
        for uri in _uris(context):
            caller = await self._certificates.caller(uri)
            if caller is not None:
                return caller
        return None


def on_socket(context: Context) -> bool:
    """Whether the call came by a unix socket, which only its owner can open."""
    return context.peer().startswith("unix:")


def peer(context: Context) -> str:
    """Where the call came from, without the port: `unix`, `ipv4:127.0.0.1`."""
    name: str = context.peer()
    return "unix" if name.startswith("unix:") else name.rpartition(":")[0]


def _is_encrypted(context: Context) -> bool:
    return _SSL in context.auth_context().get("transport_security_type", ())


def _uris(context: Context) -> list[str]:
    """The URIs that the client's certificate, which was checked, has as names."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return [name.decode("ascii", "replace") for name in names if b"://" in name]


@asynccontextmanager
async def _ended_with(task: asyncio.Task[None]) -> AsyncIterator[asyncio.Task[None]]:
    """Has the task end when the context does."""
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def required_role(method: MethodDescriptor) -> Role:
    """The role that the rpc declares. Raises TypeError when it declares none."""
    declared = method.GetOptions().Extensions[access_pb2.required_role]
    role = _ROLES.get(declared)
    if role is None:
        raise TypeError(f"{method.full_name} declares no required_role")
    return role


def _token(context: Context) -> str | None:
    """The text of the token that came with the call; None: none came."""
    metadata: Any = context.invocation_metadata() or ()
    given = [value for key, value in metadata if key == HEADER]
    if not given:
        return None
    scheme, _, text = str(given[0]).partition(" ")
    if len(given) > 1 or scheme.lower() != SCHEME:
        raise AttError(
            Reason.UNAUTHENTICATED,
            "The call has no token that can be read. Send one header `authorization: Bearer "
            "TOKEN`, or none at all on the local socket.",
        )
    return text

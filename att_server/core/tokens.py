"""TokenManager: makes, lists, replaces and revokes tokens, and says who stands behind one.

A token is the text `att_<id>_<secret>_<crc>`: 26 characters that name it, 256 bits
in hex that only its owner knows, and a checksum that tells a slip of the hand. It
is shown once; kept is the SHA-256 of the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from att_server.core.errors import AttError, Reason, field_invalid
from att_server.core.identity import Caller, Role, Token, TokenStore
from att_server.core.model import Event
from att_server.core.ports import Clock, StateStore

PREFIX = "att_"
DEFAULT_LIFETIME = timedelta(days=90)
MAX_LIFETIME = timedelta(days=366)
DEFAULT_OVERLAP = timedelta(minutes=10)
MAX_OVERLAP = timedelta(days=7)
MAX_PROJECTS = 100

_TEXT = re.compile(r"(att_([0-9A-Z]{26})_([0-9a-f]{64}))_([0-9a-f]{8})")
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_PROJECT = re.compile(r"[a-z][a-z0-9-]{0,61}[a-z0-9]")
_SECRET_BYTES = 32
_KNOWN_FOR = 0.5  # seconds; a token that was revoked works no longer than that
_USES_KEPT_EVERY = timedelta(minutes=1)
_NEVER_WITHOUT_END = (Role.APPROVER, Role.ADMIN)

log = logging.getLogger(__name__)


_SECRET = re.compile(r"att_[0-9A-Z]{26}_[0-9a-f]+(_[0-9a-f]+)?")


def masked(text: str) -> str:
    """The text with every token in it masked, for what is kept or shown to others."""
    return _SECRET.sub("att_***", text)


class Secret:
    """The text of a token, which is shown only where `reveal` is called."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for the one who asked for the token."""
        return self._text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    token: Token
    read_at: float


class TokenManager:
    """Keeps the tokens in the store, with an event for each that is made, replaced or revoked."""

    def __init__(self, *, tokens: TokenStore, events: StateStore, clock: Clock) -> None:
        self._tokens = tokens
        self._events = events
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._used: dict[str, datetime] = {}

    async def create(
        self,
        name: str,
        role: Role,
        *,
        lifetime: timedelta | None = DEFAULT_LIFETIME,
        owner: str = "",
        projects: Collection[str] | None = None,
        principal: str,
    ) -> tuple[Token, Secret]:
        """Makes a token, and returns it with the text that is never shown again.

        name: `[a-z0-9][a-z0-9._@-]{0,63}`, unlike those of all tokens that are neither
        revoked nor replaced. lifetime: None: until it is revoked, which no approver's
        and no admin's is. owner: of the person or agent behind it, as a name; empty: the
        name says it. projects: up to 100 ids that it is limited to; None: to none.
        Raises FIELD_INVALID.
        """
        _check(name, role, lifetime, owner, projects)
        for other in await self._tokens.tokens():
            if other.name == name and other.current:
                raise field_invalid(
                    "name", f"is that of the token {other.token_id}; rotate or revoke that one"
                )
        token, secret = self._minted(
            Token(
                token_id="",
                name=name,
                role=role,
                digest=b"",
                create_time=self._clock.now(),
                owner=owner,
                projects=None if projects is None else frozenset(projects),
            ),
            lifetime,
        )
        await self._put(token, "token.created", principal)
        return token, secret

    async def list(self) -> list[Token]:
        """All tokens, the oldest first."""
        return await self._tokens.tokens()

    async def rotate(
        self,
        named: str,
        *,
        overlap: timedelta = DEFAULT_OVERLAP,
        lifetime: timedelta | None = None,
        principal: str,
    ) -> tuple[Token, Secret]:
        """Makes a token in the place of another: with its name, owner, role and projects.

        named: as in `revoke`. overlap: how long the old one works on, 0 to 7 days.
        lifetime: None: as long as the old one's. Returns the new one with its text.
        Raises FIELD_INVALID.
        """
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise field_invalid("overlap", f"must be 0 to {MAX_OVERLAP.days} days")
        old = (await self._named(named))[-1]
        if not old.current:
            raise field_invalid("token", "is revoked or replaced already; create another one")
        if lifetime is None and old.expire_time is not None:
            lifetime = old.expire_time - old.create_time
        _check(old.name, old.role, lifetime, old.owner, old.projects)
        now = self._clock.now()
        token, secret = self._minted(
            replace(old, create_time=now, expire_time=None, last_use_time=None), lifetime
        )
        until = now + overlap
        if old.expire_time is not None:
            until = min(until, old.expire_time)
        await self._put(token, "token.rotated", principal, replaces=old.token_id)
        await self._tokens.put_token(replace(old, successor_id=token.token_id, expire_time=until))
        self._known.pop(old.token_id, None)
        return token, secret

    async def revoke(self, named: str, *, principal: str) -> Sequence[Token]:
        """Makes tokens worthless within a second; without effect on those that are already.

        named: the id of one, or the name of all that bear it, those that were replaced
        and still work among them. Raises FIELD_INVALID.
        """
        revoked = []
        for found in await self._named(named):
            token = found
            if token.revoke_time is None:
                token = replace(token, revoke_time=self._clock.now())
                self._known.pop(token.token_id, None)
                await self._put(token, "token.revoked", principal)
            revoked.append(token)
        return revoked

    async def any_valid(self) -> bool:
        """Whether there is a token that somebody could call with."""
        return any(self._is_valid(token) for token in await self._tokens.tokens())

    async def caller(self, text: str) -> Caller:
        """Who stands behind the text of a token. Raises UNAUTHENTICATED.

        The error is one for all tokens that are not valid: it does not say which there are.
        """
        match = _TEXT.fullmatch(text)
        if match is None or _with_checksum(match[1]) != text:
            raise AttError(
                Reason.UNAUTHENTICATED,
                "What was given is not the text of a token of ATT. Copy it whole, as "
                "`att token create` showed it.",
            )
        token = await self._token(match[2])
        # Compared in any case, in a time that tells nothing.
        kept = b"" if token is None else token.digest
        is_secret = hmac.compare_digest(_digest(match[3]), kept)
        if token is None or not is_secret or not self._is_valid(token):
            raise AttError(
                Reason.UNAUTHENTICATED,
                "The token is not valid: it is unknown, has expired, or was revoked. Use another "
                "one (`att token create` makes it).",
            )
        self._used[token.token_id] = self._clock.now()
        return token.caller

    async def keep_uses(self) -> None:
        """Stores when tokens were used last, every minute, for ever."""
        while True:
            await self._clock.sleep(_USES_KEPT_EVERY)
            await self.flush_uses()

    async def flush_uses(self) -> None:
        """Stores when tokens were used last; what cannot be stored is left out."""
        used, self._used = self._used, {}
        if used:
            try:
                await self._tokens.note_token_uses(used)
            except AttError as error:
                log.warning("the last use of tokens is not kept: %s", error.message)

    async def _named(self, named: str) -> Sequence[Token]:
        found = [
            token
            for token in await self._tokens.tokens()
            if token.token_id == named or (token.name == named and token.revoke_time is None)
        ]
        if not found:
            raise field_invalid(
                "token", "is neither the id of a token nor the name of one that is not revoked"
            )
        return found

    def _minted(self, wanted: Token, lifetime: timedelta | None) -> tuple[Token, Secret]:
        """`wanted` with an id, a digest and an expiry of its own, and its text."""
        secret = secrets.token_hex(_SECRET_BYTES)
        token = replace(
            wanted,
            token_id=self._clock.new_id(),
            digest=_digest(secret),
            expire_time=None if lifetime is None else wanted.create_time + lifetime,
        )
        return token, Secret(_with_checksum(f"{PREFIX}{token.token_id}_{secret}"))

    async def _token(self, token_id: str) -> Token | None:
        now = self._clock.monotonic()
        known = self._known.get(token_id)
        if known is not None and now - known.read_at < _KNOWN_FOR:
            return known.token
        self._known = {
            other: found for other, found in self._known.items() if now - found.read_at < _KNOWN_FOR
        }
        token = await self._tokens.token(token_id)
        if token is not None:
            # The time before it was read: what changed meanwhile is not known longer.
            self._known[token_id] = _Known(token=token, read_at=now)
        return token

    def _is_valid(self, token: Token) -> bool:
        if token.revoke_time is not None:
            return False
        return token.expire_time is None or self._clock.now() < token.expire_time

    async def _put(self, token: Token, event_type: str, principal: str, **attributes: str) -> None:
        # The token first: one whose secret was shown has its event, and one that is
        # revoked is worthless whatever becomes of the event.
        await self._tokens.put_token(token)
        if token.expire_time is not None:
            attributes["expire_time"] = token.expire_time.isoformat()
        if token.owner:
            attributes["owner"] = token.owner
        if token.projects is not None:
            attributes["projects"] = " ".join(sorted(token.projects))
        await self._events.append_events(
            Event(
                event_type=event_type,
                time=self._clock.now(),
                principal=principal,
                attributes={
                    "token_id": token.token_id,
                    "name": token.name,
                    "role": token.role.value,
                    **attributes,
                },
            )
        )


def _check(
    name: str,
    role: Role,
    lifetime: timedelta | None,
    owner: str,
    projects: Collection[str] | None,
) -> None:
    """Raises FIELD_INVALID for what no token may have."""
    for field, value in (("name", name), ("owner", owner or name)):
        if _NAME.fullmatch(value) is None:
            raise field_invalid(
                field,
                "must have 1 to 64 characters a-z, 0-9 and . _ @ -, and begin with a letter "
                "or digit",
            )
    if lifetime is None and role in _NEVER_WITHOUT_END:
        raise field_invalid("expires", f"must be given: a token of the role {role} has an end")
    if lifetime is not None and not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise field_invalid("expires", f"must be above 0 and at most {MAX_LIFETIME.days} days")
    if projects is not None and not 0 < len(projects) <= MAX_PROJECTS:
        raise field_invalid("projects", f"must be 1 to {MAX_PROJECTS}, or not given at all")
    for project_id in projects or ():
        if _PROJECT.fullmatch(project_id) is None:
            raise field_invalid("projects", f"{project_id!r} is not the id of a project")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _with_checksum(text: str) -> str:
    return f"{text}_{zlib.crc32(text.encode()):08x}"

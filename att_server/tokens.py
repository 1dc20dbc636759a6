"""Tokens of a state directory, made and revoked by whoever owns it, also while its server runs.

Written into the store directly: that the files are ours is the proof, so nobody is
ever locked out, and no call of the API leads from one role to another.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from att_server.adapters.clock import SystemClock
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.adapters.sqlite_tokens import SqliteTokens
from att_server.archive import STORE_NAME
from att_server.command_failed import CommandFailed
from att_server.core.identity import Role, Token
from att_server.core.tokens import Secret, TokenManager
from att_server.lock import check_private, make_private

T = TypeVar("T")

FIRST: Mapping[str, Role] = MappingProxyType({"admin": Role.ADMIN, "approver": Role.APPROVER})
"""The names of the first tokens, with their roles: no role has the rights of both."""


class TokenError(CommandFailed):
    """A command about tokens cannot be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A new token with its text, which is to be shown once."""

    token: Token
    secret: Secret


Show = Callable[[Sequence[Minted]], None]
"""Hands tokens to whoever asked for them. Where it raises OSError, they are revoked."""


def init(state_dir: Path, show: Show) -> None:
    """Makes the directory where needed, and its first tokens: `admin` and `approver`.

    Raises TokenError where there are tokens that are not revoked; StartRefused, AttError.
    """
    make_private(state_dir)

    async def work(tokens: TokenManager) -> None:
        in_use = [token.name for token in await tokens.list() if token.revoke_time is None]
        if in_use:
            raise TokenError(
                "ALREADY_INITIALISED",
                f"{state_dir} has tokens already: {', '.join(in_use)}. What they are is not kept. "
                "Make another one with `att token create`, or revoke these with `att token "
                "revoke` and repeat.",
            )
        minted = []
        for name, role in FIRST.items():
            token, secret = await tokens.create(name, role, principal=_principal())
            minted.append(Minted(token=token, secret=secret))
        await _hand_over(tokens, show, minted)

    _run(state_dir, work)


def create(
    state_dir: Path,
    name: str,
    role: Role,
    lifetime: timedelta | None,
    show: Show,
    *,
    owner: str = "",
    projects: Collection[str] | None = None,
) -> None:
    """Makes one token, as `TokenManager.create` does.

    name: empty: one is made up from the role. Raises TokenError, StartRefused,
    AttError: FIELD_INVALID and of storage.
    """
    _check(state_dir)

    async def work(tokens: TokenManager) -> None:
        token, secret = await tokens.create(
            name or f"{role}-{secrets.token_hex(3)}",
            role,
            lifetime=lifetime,
            owner=owner,
            projects=projects,
            principal=_principal(),
        )
        await _hand_over(tokens, show, [Minted(token=token, secret=secret)])

    _run(state_dir, work)


def rotate(state_dir: Path, named: str, overlap: timedelta, show: Show) -> None:
    """Makes a token in the place of another, which works on for `overlap`. Raises as `create`.

    Where the new one cannot be handed over, it is revoked; the old one is replaced all
    the same.
    """
    _check(state_dir)

    async def work(tokens: TokenManager) -> None:
        token, secret = await tokens.rotate(named, overlap=overlap, principal=_principal())
        await _hand_over(tokens, show, [Minted(token=token, secret=secret)])

    _run(state_dir, work)


def in_use(state_dir: Path) -> bool:
    """Whether there are tokens that are not revoked. Raises StartRefused, AttError."""
    if not (state_dir / STORE_NAME).is_file():
        return False
    return any(token.revoke_time is None for token in all_tokens(state_dir))


def all_tokens(state_dir: Path) -> list[Token]:
    """All tokens, the oldest first. Raises as `create`."""
    _check(state_dir)

    async def work(tokens: TokenManager) -> list[Token]:
        return await tokens.list()

    return _run(state_dir, work)


def revoke(state_dir: Path, named: str) -> Sequence[Token]:
    """Revokes the token with this id, or all with this name. Raises as `create`."""
    _check(state_dir)

    async def work(tokens: TokenManager) -> Sequence[Token]:
        return await tokens.revoke(named, principal=_principal())

    return _run(state_dir, work)


async def _hand_over(tokens: TokenManager, show: Show, minted: Sequence[Minted]) -> None:
    try:
        show(minted)
    except OSError as error:
        for each in minted:
            await tokens.revoke(each.token.token_id, principal=_principal())
        raise TokenError(
            "NOT_SHOWN",
            f"The token could not be handed over ({error.strerror}) and is revoked. Repeat the "
            "command where its output can be written.",
        ) from error


def _check(state_dir: Path) -> None:
    if not (state_dir / STORE_NAME).is_file():
        raise TokenError(
            "STATE_NOT_FOUND",
            f"There is no {state_dir / STORE_NAME}. Name the directory of a server with "
            "--state-dir, or make one with `att init`.",
        )
    check_private(state_dir)


def _run(state_dir: Path, work: Callable[[TokenManager], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        async with _manager(state_dir) as tokens:
            return await work(tokens)

    return asyncio.run(run())


@asynccontextmanager
async def _manager(state_dir: Path) -> AsyncIterator[TokenManager]:
    database = await SqliteDatabase.open(state_dir / STORE_NAME)
    try:
        yield TokenManager(
            tokens=SqliteTokens(database),
            events=SqliteStateStore(database),
            clock=SystemClock(),
        )
    finally:
        await database.aclose()


def _principal() -> str:
    return f"local:{os.getuid()}"

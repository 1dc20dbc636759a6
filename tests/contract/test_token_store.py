"""One suite for every store of tokens, and what becomes of the file of the real one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_tokens import SqliteTokens
from att_server.core.identity import Role, Token
from att_server.testing.tokens import MemoryTokens

Store = MemoryTokens | SqliteTokens

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteTokens]:
    database = await SqliteDatabase.open(path)
    try:
        yield SqliteTokens(database)
    finally:
        await database.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "att.db"


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryTokens()
        return
    async with opened(path) as made:
        yield made


async def test_tokens_come_back_as_they_were_oldest_first(store: Store) -> None:
    first = Token(
        token_id="b", name="ann", role=Role.APPROVER, digest=b"\0\xff" * 16, create_time=START
    )
    second = replace(first, token_id="a", name="bob", role=Role.ADMIN, create_time=START + MINUTE)
    await store.put_token(second)
    await store.put_token(first)
    assert await store.tokens() == [first, second]
    assert await store.token("a") == second
    assert await store.token("c") is None
    revoked = replace(first, expire_time=START, revoke_time=START + MINUTE)
    await store.put_token(revoked)
    assert await store.tokens() == [revoked, second]
    limited = replace(second, owner="ann", projects=frozenset({"web", "api"}), successor_id="c")
    await store.put_token(limited)
    assert await store.token("a") == limited


async def test_a_revocation_and_a_use_of_a_token_outlive_a_write_that_knew_nothing_of_them(
    store: Store,
) -> None:
    token = Token(token_id="a", name="ann", role=Role.VIEWER, digest=b"d", create_time=START)
    await store.put_token(token)
    await store.put_token(replace(token, revoke_time=START))
    await store.note_token_uses({"a": START, "unknown": START})
    await store.put_token(replace(token, expire_time=START + MINUTE))
    assert await store.tokens() == [
        replace(token, expire_time=START + MINUTE, revoke_time=START, last_use_time=START)
    ]


# What becomes of the file ---------------------------------------------------------


async def test_a_token_with_a_role_of_a_later_release_is_none(path: Path) -> None:
    token = Token(token_id="a", name="ann", role=Role.ADMIN, digest=b"d", create_time=START)
    async with opened(path) as store:
        await store.put_token(token)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE token SET role = 'emperor'")
        assert await store.token("a") is None
        assert await store.tokens() == []


@pytest.mark.parametrize("less", [{"projects": frozenset({"web"})}, {"owner": "bob"}])
async def test_a_token_with_less_than_its_role_says_has_no_role_to_the_release_before(
    path: Path, less: dict[str, Any]
) -> None:
    token = Token(token_id="a", name="ann", role=Role.ADMIN, digest=b"d", create_time=START)
    async with opened(path) as store:
        await store.put_token(replace(token, **less))
        with closing(sqlite3.connect(path)) as connection:
            (role,) = connection.execute("SELECT role FROM token").fetchone()
        assert role not in set(Role)
        assert await store.token("a") == replace(token, **less)

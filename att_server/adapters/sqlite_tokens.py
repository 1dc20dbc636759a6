"""SqliteTokens: the tokens that a server knows, in its database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.state_schema import TOKEN, UtcTime, token_of, token_values
from att_server.core.identity import Token


class SqliteTokens:
    """Implements `TokenStore`. How its writes fail, `SqliteDatabase` says."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def token(self, token_id: str) -> Token | None:
        """The token with this id, None if there is none."""
        query = sa.select(TOKEN).where(TOKEN.c.token_id == token_id)
        found = await self._tokens(query)
        return found[0] if found else None

    async def tokens(self) -> list[Token]:
        """All tokens, the oldest first."""
        return await self._tokens(sa.select(TOKEN).order_by(TOKEN.c.create_time, TOKEN.c.token_id))

    async def put_token(self, token: Token) -> None:
        """Inserts or replaces the token with its id; a revocation or a use that is kept stays."""
        values = token_values(token)
        known = TOKEN.c.token_id == token.token_id

        def put(connection: sa.Connection) -> None:
            kept = sa.func.coalesce(TOKEN.c.revoke_time, sa.literal(token.revoke_time, UtcTime))
            changed = connection.execute(
                sa.update(TOKEN).where(known).values({**values, "revoke_time": kept})
            )
            if not changed.rowcount:
                connection.execute(sa.insert(TOKEN), values)

        await self._database.write(put)

    async def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keeps when tokens were used last, by id."""

        def note(connection: sa.Connection) -> None:
            for token_id, time in uses.items():
                used = sa.update(TOKEN).where(TOKEN.c.token_id == token_id)
                connection.execute(used.values(last_use_time=time))

        await self._database.write(note)

    async def _tokens(self, query: sa.Select[Any]) -> list[Token]:
        def read(connection: sa.Connection) -> list[Token]:
            found = (token_of(row) for row in connection.execute(query).mappings())
            return [token for token in found if token is not None]

        return await self._database.read(read)

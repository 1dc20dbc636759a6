"""MemoryTokens: tokens that end with the process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from att_server.core.errors import AttError
from att_server.core.identity import Token


class MemoryTokens:
    """Implements `TokenStore`. write_error: while set, every write raises it and keeps nothing."""

    def __init__(self) -> None:
        self.write_error: AttError | None = None
        self._tokens: dict[str, Token] = {}

    async def token(self, token_id: str) -> Token | None:
        """The token with this id, None if there is none."""
        return self._tokens.get(token_id)

    async def tokens(self) -> list[Token]:
        """All tokens, the oldest first."""
        return sorted(self._tokens.values(), key=lambda each: (each.create_time, each.token_id))

    async def put_token(self, token: Token) -> None:
        """Inserts or replaces the token with its id; a revocation or a use that is kept stays."""
        self._check_writable()
        kept = self._tokens.get(token.token_id)
        self._tokens[token.token_id] = replace(
            token,
            revoke_time=(None if kept is None else kept.revoke_time) or token.revoke_time,
            last_use_time=None if kept is None else kept.last_use_time,
        )

    async def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keeps when tokens were used last, by id."""
        self._check_writable()
        for token_id, time in uses.items():
            if token_id in self._tokens:
                self._tokens[token_id] = replace(self._tokens[token_id], last_use_time=time)

    def _check_writable(self) -> None:
        if self.write_error is not None:
            raise self.write_error

"""What `run_as_users` may say, as a pydantic model; imported where it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from att_server.adapters.server_document import ServerDocument
from att_server.adapters.toml_forms import valid
from att_server.core.settings_rules import user_rule

MAX_USERS = 100


def _user(name: str) -> str:
    if rule := user_rule(name):
        raise ValueError(rule)
    return name


class _Document(ServerDocument):
    run_as_users: (
        Annotated[
            tuple[Annotated[str, AfterValidator(_user)], ...],
            Field(strict=False, max_length=MAX_USERS),
        ]
        | None
    ) = None


def run_as_users(document: Mapping[str, Any]) -> Sequence[str] | None:
    """The users of the server's settings; None: they say nothing. Raises Violations."""
    return valid(_Document, document).run_as_users

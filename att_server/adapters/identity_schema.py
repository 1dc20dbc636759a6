"""What `[identities."URI"]` may say, as pydantic models; imported where certificates are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, InstanceOf

from att_server.adapters.server_document import ServerDocument
from att_server.adapters.toml_forms import Table, Words, one_of, valid
from att_server.core.identity import Role


class Identity(Table):
    """One certificate. owner: the person or agent behind it, as tokens have it."""

    role: Annotated[InstanceOf[Role], BeforeValidator(one_of(Role))]
    projects: Words | None = None
    owner: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9._@-]{0,63})?$")


class _Document(ServerDocument):
    identities: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://\S+$")], Identity] = Field(
        default_factory=dict
    )


def identities(document: Mapping[str, Any]) -> Mapping[str, Identity]:
    """The identities of the server's settings, by URI. Raises Violations."""
    return valid(_Document, document).identities

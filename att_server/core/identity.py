"""Who calls, and what that one may do.

Roles are sets, not ranks: no role includes another's acts but where it is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from att_server.core.errors import AttError, Reason

T = TypeVar("T")


class Role(StrEnum):
    """What a caller may do (`Role` in `access.proto`)."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


_GRANTS = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.VIEWER, Role.OPERATOR}),
    # Neither acts like an operator, nor may an admin decide: nobody approves what
    # the same hand could have asked for.
    Role.APPROVER: frozenset({Role.VIEWER, Role.APPROVER}),
    Role.ADMIN: frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    principal: `local:<uid>` on the socket, `token:<owner>` with a token,
    `cert:<URI>` with a certificate. projects: the ids of those that exist for the
    caller; None: all.
    """

    principal: str
    role: Role
    projects: frozenset[str] | None = None

    def may(self, role: Role) -> bool:
        """Whether a call that needs `role` is allowed."""
        return role in _GRANTS[self.role]

    def sees(self, project_id: str) -> bool:
        """Whether the project exists for the caller."""
        return self.projects is None or project_id in self.projects

    def within(self, other: Caller) -> Caller:
        """The same caller with no more than the role and the projects of `other`."""
        common = _GRANTS[self.role] & _GRANTS[other.role]
        # What two roles have in common is always a role too.
        role = next(role for role, grants in _GRANTS.items() if grants == common)
        projects = self.projects
        if projects is None or other.projects is None:
            projects = other.projects if projects is None else projects
        else:
            projects &= other.projects
        return Caller(principal=self.principal, role=role, projects=projects)

    def require(self, role: Role) -> None:
        """Raises PERMISSION_DENIED unless the caller `may`."""
        if not self.may(role):
            raise AttError(
                Reason.PERMISSION_DENIED,
                f"{self.principal} has the role {self.role} and may not do this; it needs the role "
                f"{role}. Use a token with that role (`att token create --role {role}`).",
                required_role=role,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is kept: its secret only as a digest (SHA-256).

    name: unique among tokens that are neither revoked nor replaced. owner: the person
    or agent behind it, who may have several; empty: the name says it. projects: what
    it is limited to; None: nothing. successor_id: of the token that replaced it;
    empty: none did. last_use_time: to a minute or so.
    """

    token_id: str
    name: str
    role: Role
    digest: bytes
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    owner: str = ""
    projects: frozenset[str] | None = None
    successor_id: str = ""
    last_use_time: datetime | None = None

    @property
    def caller(self) -> Caller:
        """Who calls with it."""
        principal = f"token:{self.owner or self.name}"
        return Caller(principal=principal, role=self.role, projects=self.projects)

    @property
    def current(self) -> bool:
        """Whether its name is taken by it: neither revoked nor replaced."""
        return self.revoke_time is None and not self.successor_id


def only(by_project: Mapping[str, T], projects: frozenset[str] | None) -> Mapping[str, T]:
    """What of a mapping by project id is of these projects; None: of all."""
    if projects is None:
        return by_project
    return {name: by_project[name] for name in projects if name in by_project}


class TokenStore(Protocol):
    """Keeps tokens. Every write is durable on return."""

    async def token(self, token_id: str) -> Token | None:
        """The token with this id, None if there is none."""
        ...

    async def tokens(self) -> list[Token]:
        """All tokens, the oldest first."""
        ...

    async def put_token(self, token: Token) -> None:
        """Inserts or replaces the token with its id; a revocation or a use that is kept stays."""
        ...

    async def note_token_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keeps when tokens were used last, by id."""
        ...

"""Commits and their trees, and what a new one says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def is_sha(text: str) -> bool:
    """Whether `text` is a full id of an object."""
    return _SHA.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a commit says made it. Raises ValueError for what a commit cannot hold."""

    name: str
    email: str

    def __post_init__(self) -> None:
        for text in (self.name, self.email):
            if not text.strip(" .,:;<>\"\\'") or not text.isprintable() or set(text) & set("<>"):
                raise ValueError(f"no name or address of a person: {text!a}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitNote:
    """What a commit says of itself.

    message: the text without trailers of ours; lines of it that look like one
    (`Att-…:`) are quoted. time: aware, kept to the second.
    """

    message: str
    identity: Identity
    time: datetime


class MergeMethod(StrEnum):
    """How a change comes into the base."""

    MERGE = "merge"
    """A commit with two parents, also where the base did not move."""
    SQUASH = "squash"
    """One commit on the base, with the merged tree."""
    FAST_FORWARD = "fast_forward"
    """The change's own commit where the base did not move, else as MERGE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit that exists. Of a merge, the first parent is the base before."""

    sha: str
    tree: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedPath:
    """A path that two trees differ in. Modes as git writes them, `000000` for none."""

    path: str
    old_mode: str
    new_mode: str
    new_blob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedChange:
    """The tree that a change makes of a base. Nothing changed where `paths` is empty."""

    tree: str
    paths: tuple[ChangedPath, ...]

"""What came of pushing, merging and undoing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The remote branch is at the commit that was asked for."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The remote has no such branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The remote branch is not where it was expected; nothing was done. None: there is none."""

    actual: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The base contains the change.

    commit: the commit of the base that brought it. tree: its tree, which may not
    be the one that was tested. before: the base that it was made on. ours: whether
    this cycle made it; else somebody merged the change.
    """

    commit: str
    tree: str
    before: str
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """What was to be merged or undone conflicts with the base in these paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """The base no longer contains what `before..after` did, by this commit."""

    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertCandidate:
    """A commit that would undo the change, on the branch as it is at `base`."""

    commit: str
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToRevert:
    """The base does not contain the change, or what it did is undone already."""

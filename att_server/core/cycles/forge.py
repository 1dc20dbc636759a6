"""Where changes are reviewed, checked and merged: the port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.model import Project
from att_server.core.repository import (
    CommitNote,
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    Reverted,
)


class ForgeError(Exception):
    """The forge did not do what it was asked. reason: in snake case; the message: what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ForgeUnavailable(ForgeError):
    """It cannot be used now: an outage, a limit, a token. What was asked for may be repeated."""


class ForgeRefused(ForgeError):
    """It does not take this change, and will not by itself: repeating it is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequestRef:
    """A pull request as the forge names it. merged_commit: empty while it is not merged."""

    number: int
    url: str
    merged_commit: str = ""


class CheckState(StrEnum):
    """What the required checks of a commit say together."""

    NONE = "none"
    """There are none; which is no success."""
    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The checks of one commit. reason: why it is a failure, in snake case.

    settled: no other checks are to come; else a success counts once a second look
    has found the same ones.
    """

    state: CheckState
    reason: str = ""
    settled: bool = True
    evidence: Mapping[str, str] = field(default_factory=dict)
    log_tail: bytes = b""


class Forge(Protocol):
    """Reviews, checks and merges of one cycle. Every method looks first and may be repeated.

    All raise ForgeUnavailable and ForgeRefused, and AttError and RepositoryError of
    the project's repository.
    """

    async def open_pull_request(self, *, title: str, body: str) -> PullRequestRef:
        """Finds the pull request of the cycle, or opens one from its branch to its base."""
        ...

    async def checks(self, commit: str) -> Checks:
        """What the checks of this very commit say. Cancelling ends checks that it runs."""
        ...

    async def merge(
        self, head: str, *, expected: str, note: CommitNote
    ) -> Merged | Moved | Conflict:
        """Brings `head` into the base, which is at `expected`, in one step.

        See `Repository.merge`. A forge that cannot hold the base meanwhile may answer
        with a merge of ours that was made on another one.
        """
        ...

    async def find_merge(self, head: str, *, expected: str, note: CommitNote) -> Merged | None:
        """What `merge`, asked for the same, brought about though it was broken off.

        None: the base does not contain the change.
        """
        ...

    async def revert(
        self, *, branch: str, before: str, after: str, note: CommitNote
    ) -> Reverted | NothingToRevert | Moved | Conflict:
        """Undoes a merge on the base, in one step; see `Repository.revert`."""
        ...

    async def close(self, *, comment: str) -> None:
        """Closes the cycle's pull request if it is open; without effect if there is none."""
        ...


class Forges(Protocol):
    """The forges that cycles use. Which one it is, the settings in force say."""

    def polled(self, settings: BootstrapSettings) -> bool:
        """Whether checks go on by themselves and are polled; else `Forge.checks` runs them.

        Such a forge checks what the cycle's branch is at.
        """
        ...

    async def examine(self, project: Project, settings: BootstrapSettings) -> None:
        """Raises what would keep a cycle from using its forge, as `Forge`. Changes nothing."""
        ...

    async def of(self, project: Project, cycle: Cycle) -> Forge:
        """The forge of the cycle as it is here: a cycle that has changed needs another."""
        ...

"""The journal of cycles: the port, and what a writer has to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from att_server.core.cycles.model import Cancellation, Cycle, Decision
from att_server.core.cycles.test_report import TestReport
from att_server.core.errors import AttError, Reason
from att_server.core.model import (
    Event,
)
from att_server.core.releases import Release
from att_server.core.request_claim import RequestClaim


def already_running(project_id: str, cycle_id: str) -> AttError:
    """CYCLE_ALREADY_RUNNING: the project's cycle `cycle_id` has not ended."""
    return AttError(
        Reason.CYCLE_ALREADY_RUNNING,
        f"Project {project_id} already has a cycle, {cycle_id}. Wait for its end "
        f"(`att cycle watch {cycle_id}`), or cancel it (`att cycle cancel {cycle_id}`).",
        project_id=project_id,
        cycle_id=cycle_id,
    )


class Fenced(Exception):
    """Another engine has taken the cycle; nothing was written, and nothing more is to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """A pull request of the local forge. number: from 1, by project. head: a commit."""

    project_id: str
    number: int
    cycle_id: str
    branch: str
    base: str
    head: str
    title: str
    state: str = "open"  # open, merged, closed
    merge_commit: str = ""


class CycleJournal(Protocol):
    """Keeps cycles and what belongs to them. Every write is durable on return.

    What is written together is kept together or not at all.
    """

    # Cycles -----------------------------------------------------------------

    async def create(
        self, cycle: Cycle, change: bytes, *events: Event, claim: RequestClaim | None = None
    ) -> RequestClaim | None:
        """Stores a new cycle with its change (empty: none), not yet taken by an engine.

        claim: is kept with it, its outcome the cycle's id. Where one is kept under
        its request id already, that one is returned and nothing is written.
        Raises CYCLE_ALREADY_RUNNING while another cycle of the project is active.
        """
        ...

    async def cycle(self, cycle_id: str) -> Cycle | None:
        """The cycle, None if there is none."""
        ...

    async def cycles(
        self,
        *,
        project_id: str = "",
        within: frozenset[str] | None = None,
        active_only: bool = False,
        limit: int,
        before: str = "",
    ) -> Sequence[Cycle]:
        """Up to `limit` cycles, the newest first. before: only those with lower ids.

        project_id: empty: of all projects. within: only of these; None: of all.
        """
        ...

    async def change(self, cycle_id: str) -> bytes:
        """The change as it was stored with the cycle; empty once it was dropped."""
        ...

    async def take(
        self, cycle_id: str, owner: str, *, lease: timedelta, force: bool
    ) -> Cycle | None:
        """Makes `owner` the one who may write, under a new epoch, for `lease` from now.

        None, and no effect, while another holds it whose lease has not run out
        (measured by the host's boot time, so that no clock change matters), unless
        `force`; or if the cycle has ended or is unknown.
        """
        ...

    async def renew(self, owner: str, *, lease: timedelta) -> frozenset[str]:
        """Prolongs all leases of `owner` and returns the ids of its cycles."""
        ...

    async def untaken(self) -> Sequence[str]:
        """The ids of active cycles that no engine holds a lease of, the oldest first."""
        ...

    async def commit(
        self,
        cycle: Cycle,
        *,
        events: Sequence[Event] = (),
        releases: Sequence[Release] = (),
        report: TestReport | None = None,
        drop_change: bool = False,
    ) -> Cycle:
        """Stores the cycle under its `lease_epoch`, with a new revision, and what came with it.

        Returns it as stored: with a cancellation or decision that was written
        meanwhile. Raises Fenced.
        """
        ...

    async def cancel(
        self, cycle_id: str, cancellation: Cancellation, *events: Event
    ) -> Cycle | None:
        """Notes that it is to end; the first to ask counts. None if it is unknown.

        Without effect if it has ended. Needs no lease.
        """
        ...

    async def decide(
        self,
        cycle_id: str,
        decision: Decision,
        *events: Event,
        claim: RequestClaim | None = None,
    ) -> RequestClaim | None:
        """Notes the decision, once: an earlier one stays. Needs no lease; claim as in `create`."""
        ...

    # What belongs to them ---------------------------------------------------

    async def releases(self, project_id: str) -> Sequence[Release]:
        """All releases of the project, the newest first."""
        ...

    async def put_releases(self, *releases: Release, events: Sequence[Event] = ()) -> None:
        """Inserts or replaces releases by project and id, outside of a cycle."""
        ...

    async def test_report(self, project_id: str, cycle_id: str = "") -> TestReport | None:
        """The last report of the cycle, or of the project."""
        ...

    async def automatic_rollbacks(self, project_id: str, within: timedelta) -> int:
        """How many cycles of the project rolled back by themselves in the time up to now."""
        ...

    async def pull_request(self, project_id: str, cycle_id: str) -> PullRequest | None:
        """The pull request of the cycle, None if there is none."""
        ...

    async def open_pull_request(self, wanted: PullRequest) -> PullRequest:
        """Stores it under the next number, or returns the one that the cycle has."""
        ...

    async def put_pull_request(self, pull_request: PullRequest) -> None:
        """Replaces the one with its project and number."""
        ...

    async def forget_project(self, project_id: str) -> None:
        """Removes everything of a deleted project but its events."""
        ...

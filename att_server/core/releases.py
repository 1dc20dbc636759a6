"""Releases of a project: what is known of each, and which may go."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class ReleaseState(StrEnum):
    """Where a release is in its life (`ReleaseState` in `bootstrap.proto`)."""

    STAGED = "staged"
    TRYING = "trying"
    GOOD = "good"
    BAD = "bad"


class DeploymentContext(StrEnum):
    """Who runs the app (`DeploymentContext` in `bootstrap.proto`)."""

    SELF_HOSTED = "self_hosted"
    EXTERNAL = "external"


class IllegalTransition(Exception):
    """A release was to go where its state does not lead: a defect of the caller."""


# A GOOD release goes BAD when it is deployed again and fails, or when a person
# rolls back from it: it would else be the next target.
_NEXT = {
    ReleaseState.STAGED: frozenset({ReleaseState.TRYING}),
    ReleaseState.TRYING: frozenset({ReleaseState.GOOD, ReleaseState.BAD}),
    ReleaseState.GOOD: frozenset({ReleaseState.BAD}),
    ReleaseState.BAD: frozenset({ReleaseState.STAGED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of a project. Its methods return the record that follows.

    release_id: the full commit sha; in an external context, what that one calls it.
    tree_sha: the tree of its commit; empty: unknown.
    state_time: when it got its state. deploy_time: when it was last switched to.
    removed_time: when its files went; the record stays, so that what is BAD is remembered.
    tries_left: in TRYING, the starts that remain; 0: the last one is under way.
    reason: why it is BAD, in snake case.
    data_version: the version of the data it writes, the newest that it reads.
    min_data_version: the oldest that it reads.

    Raises ValueError for tries or a reason in a state that has none.
    """

    release_id: str
    project_id: str
    state: ReleaseState = ReleaseState.STAGED
    state_time: datetime
    create_time: datetime
    deploy_time: datetime | None = None
    removed_time: datetime | None = None
    tree_sha: str = ""
    cycle_id: str = ""
    tries_left: int = 0
    reason: str = ""
    data_version: int = 0
    min_data_version: int = 0

    def __post_init__(self) -> None:
        if self.tries_left < 0 or (self.tries_left and self.state is not ReleaseState.TRYING):
            raise ValueError(f"a release that is {self.state} cannot have {self.tries_left} tries")
        if bool(self.reason) != (self.state is ReleaseState.BAD):
            raise ValueError("a release has a reason if, and only if, it is bad")

    def trying(self, tries: int, at: datetime) -> Release:
        """STAGED to TRYING. tries: starts that it gets, at least 1."""
        if tries < 1:
            raise ValueError("a release has to be tried at least once")
        if self.removed_time is not None:
            raise self._illegal("be tried", "its files are gone, build it anew")
        return self._in_state(ReleaseState.TRYING, at, tries_left=tries)

    def started(self) -> Release:
        """With one try less; stored before the start, so that a crash counts as a try."""
        if self.state is not ReleaseState.TRYING or not self.tries_left:
            raise self._illegal("be started once more", "mark it bad")
        return replace(self, tries_left=self.tries_left - 1)

    def deployed(self, at: datetime) -> Release:
        """As the one that was switched to now: one that is being tried, or a GOOD one."""
        if self.state not in (ReleaseState.TRYING, ReleaseState.GOOD):
            raise self._illegal("be switched to", "begin to try it first")
        if self.removed_time is not None:
            raise self._illegal("be switched to", "its files are gone, build it anew")
        return replace(self, deploy_time=at)

    def good(self, at: datetime) -> Release:
        """TRYING to GOOD: it passed health and bake time."""
        return self._in_state(ReleaseState.GOOD, at)

    def bad(self, reason: str, at: datetime) -> Release:
        """TRYING or GOOD to BAD. reason: in snake case, not empty."""
        return self._in_state(ReleaseState.BAD, at, reason=reason)

    def pardoned(self, at: datetime) -> Release:
        """BAD to STAGED: a person overrides the verdict, and it has to prove itself anew."""
        return self._in_state(ReleaseState.STAGED, at)

    def removed(self, at: datetime) -> Release:
        """With its files gone; one that is being tried cannot lose them."""
        if self.state is ReleaseState.TRYING:
            raise self._illegal("be removed", "its cycle has to end first")
        return replace(self, removed_time=at)

    def rebuilt(self) -> Release:
        """With its files there again."""
        return replace(self, removed_time=None)

    @property
    def last_active(self) -> datetime:
        """When it was last switched to, proven or found bad."""
        return max(self.state_time, self.deploy_time or self.state_time)

    def same_tree(self, other: Release) -> bool:
        """Whether both are known to hold the same files."""
        return bool(self.tree_sha) and self.tree_sha == other.tree_sha

    def _in_state(
        self, state: ReleaseState, at: datetime, *, tries_left: int = 0, reason: str = ""
    ) -> Release:
        if state not in _NEXT[self.state]:
            ways = " or ".join(sorted(_NEXT[self.state]))
            raise self._illegal(f"become {state}", f"it can only become {ways}")
        return replace(self, state=state, state_time=at, tries_left=tries_left, reason=reason)

    def _illegal(self, what: str, instead: str) -> IllegalTransition:
        return IllegalTransition(
            f"release {self.release_id} is {self.state} and cannot {what}: {instead}"
        )


def bad_twin(release: Release, releases: Iterable[Release]) -> Release | None:
    """A BAD release of the same project that is this one or holds the same files."""
    return next(
        (
            other
            for other in releases
            if other.state is ReleaseState.BAD
            and other.project_id == release.project_id
            and (other.release_id == release.release_id or other.same_tree(release))
        ),
        None,
    )


def previous_good(releases: Collection[Release], deployed_release_id: str) -> Release | None:
    """The release to return to: of the GOOD ones that have their files the last active.

    Neither the deployed one, nor one with its files, nor one whose files are bad.
    releases: of one project. deployed_release_id: may be unknown or empty.
    """
    deployed = next((each for each in releases if each.release_id == deployed_release_id), None)
    candidates = [
        release
        for release in releases
        if release.state is ReleaseState.GOOD
        and release.removed_time is None
        and release.release_id != deployed_release_id
        and not (deployed is not None and release.same_tree(deployed))
        and bad_twin(release, releases) is None
    ]
    return max(candidates, key=lambda release: release.last_active, default=None)


# Retention ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How many releases keep their files, GOOD and BAD ones each for themselves."""

    good: int = 5
    bad: int = 3


def removable(
    releases: Collection[Release],
    *,
    retention: Retention,
    current_release_id: str,
    pinned: Collection[str],
) -> list[Release]:
    """The releases of a project whose files may go, the least recently active first.

    Never the current one; the last GOOD one, and the one that a rollback of the
    current would return to; the last BAD one, which is the evidence of the last
    failure; one that is STAGED or TRYING, which its cycle still needs; or one
    that is pinned.

    pinned: ids of releases that something else needs, as a cycle its target.
    """
    recent = sorted(
        (release for release in releases if release.removed_time is None),
        key=lambda release: release.last_active,
        reverse=True,
    )
    good = [release for release in recent if release.state is ReleaseState.GOOD]
    bad = [release for release in recent if release.state is ReleaseState.BAD]
    target = previous_good(releases, current_release_id)
    kept = {
        current_release_id,
        *pinned,
        *(release.release_id for release in good[: max(1, retention.good)]),
        *(release.release_id for release in bad[: max(1, retention.bad)]),
        *([target.release_id] if target is not None else []),
    }
    return [
        release
        for release in reversed(recent)
        if release.state in (ReleaseState.GOOD, ReleaseState.BAD) and release.release_id not in kept
    ]

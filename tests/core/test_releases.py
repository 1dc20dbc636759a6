"""The life of a release, and which may go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att.v1 import bootstrap_pb2
from att_server.core.release_metadata import ReleaseMetadata, registry_metadata
from att_server.core.releases import (
    DeploymentContext,
    IllegalTransition,
    Release,
    ReleaseState,
    Retention,
    bad_twin,
    previous_good,
    removable,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def release(release_id: str, state: ReleaseState, *, tree: str = "", minute: int = 0) -> Release:
    at = NOW + timedelta(minutes=minute)
    return Release(
        release_id=release_id,
        project_id="web",
        state=state,
        state_time=at,
        create_time=at,
        tree_sha=tree or f"tree-of-{release_id}",
        reason="health_failure" if state is ReleaseState.BAD else "",
    )


STAGED = release("a", ReleaseState.STAGED)
TRYING = STAGED.trying(2, NOW)
GOOD = TRYING.good(NOW)
BAD = TRYING.bad("health_failure", NOW)


@pytest.mark.parametrize(
    ("enum", "prefix", "values"),
    [
        (ReleaseState, "RELEASE_STATE", bootstrap_pb2.ReleaseState),
        (DeploymentContext, "DEPLOYMENT_CONTEXT", bootstrap_pb2.DeploymentContext),
    ],
)
def test_names_are_those_of_the_contract(
    enum: type[ReleaseState] | type[DeploymentContext],
    prefix: str,
    values: type[bootstrap_pb2.ReleaseState] | type[bootstrap_pb2.DeploymentContext],
) -> None:
    assert {f"{prefix}_{each.name}" for each in enum} | {f"{prefix}_UNSPECIFIED"} == set(
        values.keys()
    )


# Transitions ----------------------------------------------------------------


def test_a_release_proves_itself_good() -> None:
    assert STAGED.trying(2, LATER) == replace(
        STAGED, state=ReleaseState.TRYING, tries_left=2, state_time=LATER
    )
    started = TRYING.started().deployed(LATER)
    assert (started.tries_left, started.deploy_time) == (1, LATER)
    proven = started.good(LATER)
    assert (proven.state, proven.tries_left) == (ReleaseState.GOOD, 0)


def test_a_release_fails_with_a_reason_and_stays_bad_until_a_person_pardons_it() -> None:
    assert (BAD.state, BAD.reason, BAD.tries_left) == (ReleaseState.BAD, "health_failure", 0)
    pardoned = BAD.pardoned(LATER)
    assert (pardoned.state, pardoned.reason) == (ReleaseState.STAGED, "")


def test_a_good_release_that_fails_later_is_bad() -> None:
    assert GOOD.deployed(LATER).bad("rolled_back", LATER).reason == "rolled_back"


def test_the_last_try_is_the_last() -> None:
    last = TRYING.started().started()
    assert last.tries_left == 0
    with pytest.raises(IllegalTransition, match="mark it bad"):
        last.started()


CALLS: dict[str, Callable[[Release], Release]] = {
    "trying": lambda given: given.trying(1, LATER),
    "started": lambda given: given.started(),
    "deployed": lambda given: given.deployed(LATER),
    "good": lambda given: given.good(LATER),
    "bad": lambda given: given.bad("reason", LATER),
    "pardoned": lambda given: given.pardoned(LATER),
    "removed": lambda given: given.removed(LATER),
}
LEGAL = {
    ReleaseState.STAGED: {"trying", "removed"},
    ReleaseState.TRYING: {"started", "deployed", "good", "bad"},
    ReleaseState.GOOD: {"deployed", "bad", "removed"},
    ReleaseState.BAD: {"pardoned", "removed"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", [STAGED, TRYING, GOOD, BAD], ids=lambda given: given.state)
def test_a_state_leads_only_where_it_leads(given: Release, call: str) -> None:
    if call in LEGAL[given.state]:
        assert CALLS[call](given).release_id == given.release_id
    else:
        with pytest.raises(IllegalTransition, match=f"release a is {given.state} and cannot"):
            CALLS[call](given)


@pytest.mark.parametrize("call", ["trying", "deployed"])
def test_a_release_without_files_is_built_before_it_is_used(call: str) -> None:
    gone = (STAGED if call == "trying" else GOOD).removed(LATER)
    with pytest.raises(IllegalTransition, match="build it anew"):
        CALLS[call](gone)
    assert CALLS[call](gone.rebuilt()).removed_time is None


def test_a_record_that_contradicts_itself_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="tries"):
        replace(GOOD, tries_left=1)
    with pytest.raises(ValueError, match="tries"):
        replace(TRYING, tries_left=-1)
    with pytest.raises(ValueError, match="reason"):
        replace(GOOD, reason="because")
    with pytest.raises(ValueError, match="reason"):
        TRYING.bad("", LATER)
    with pytest.raises(ValueError, match="at least once"):
        STAGED.trying(0, LATER)


# What to return to ----------------------------------------------------------


def test_the_previous_release_is_the_last_good_one_that_was_active() -> None:
    old = release("old", ReleaseState.GOOD, minute=1)
    back = release("back", ReleaseState.GOOD, minute=2).deployed(NOW + timedelta(minutes=9))
    newer = release("newer", ReleaseState.GOOD, minute=5)
    failed = release("failed", ReleaseState.TRYING, minute=10)
    releases = [old, back, newer, failed]
    assert previous_good(releases, "failed") is back
    assert previous_good(releases, "back") is newer
    assert previous_good([failed], "failed") is None
    assert previous_good([], "") is None


def test_a_release_with_the_files_of_the_deployed_or_of_a_bad_one_is_not_returned_to() -> None:
    good = release("good", ReleaseState.GOOD, minute=1)
    same = release("same", ReleaseState.GOOD, tree="t", minute=2)
    failed = release("failed", ReleaseState.TRYING, tree="t", minute=3)
    assert previous_good([good, same, failed], "failed") is good
    bad = release("bad", ReleaseState.BAD, tree="t", minute=3)
    assert bad_twin(same, [good, bad]) is bad
    assert previous_good([good, same, bad], "elsewhere") is good


def test_an_unknown_tree_is_equal_to_none() -> None:
    nameless = replace(GOOD, tree_sha="")
    assert not nameless.same_tree(replace(nameless, release_id="b"))


def test_the_registry_knows_the_deployed_and_the_last_good_release() -> None:
    good = release("good", ReleaseState.GOOD)
    assert registry_metadata(
        [good, release("new", ReleaseState.TRYING)], deployed_release_id="new"
    ) == ReleaseMetadata(release_id="new", previous_release_id="good")
    assert registry_metadata([], deployed_release_id="") == ReleaseMetadata()


# Retention ------------------------------------------------------------------


def ids(found: list[Release]) -> list[str]:
    return [each.release_id for each in found]


def test_good_and_bad_releases_are_counted_apart_and_the_oldest_go_first() -> None:
    releases = [release(f"g{n}", ReleaseState.GOOD, minute=n) for n in range(4)] + [
        release(f"b{n}", ReleaseState.BAD, minute=n) for n in range(10, 14)
    ]
    assert ids(
        removable(releases, retention=Retention(good=2, bad=1), current_release_id="g3", pinned=())
    ) == ["g0", "g1", "b10", "b11", "b12"]


def test_keeping_none_still_keeps_what_a_rollback_and_its_explanation_need() -> None:
    releases = [
        release("oldest", ReleaseState.GOOD, minute=1),
        release("target", ReleaseState.GOOD, minute=2),
        release("pinned", ReleaseState.BAD, minute=3),
        release("evidence", ReleaseState.BAD, minute=4),
        release("current", ReleaseState.GOOD, minute=5),
        release("staged", ReleaseState.STAGED, minute=0),
        release("tried", ReleaseState.TRYING, minute=0),
    ]
    assert ids(
        removable(
            releases,
            retention=Retention(good=0, bad=0),
            current_release_id="current",
            pinned={"pinned"},
        )
    ) == ["oldest"]


@st.composite
def histories(draw: st.DrawFn) -> list[Release]:
    count = draw(st.integers(min_value=0, max_value=12))
    return [
        release(
            f"r{number}",
            draw(st.sampled_from(ReleaseState)),
            tree=draw(st.sampled_from(["t1", "t2", "t3", "t4"])),
            minute=draw(st.integers(min_value=0, max_value=20)),
        )
        for number in range(count)
    ]


keeps = st.integers(min_value=-1, max_value=6)
some_id = st.integers(min_value=0, max_value=12).map(lambda number: f"r{number}")


@given(histories(), keeps, keeps, some_id, st.sets(some_id, max_size=3))
def test_retention_never_takes_what_is_needed_and_takes_the_rest(
    releases: list[Release], good: int, bad: int, current: str, pinned: set[str]
) -> None:
    removed = removable(
        releases,
        retention=Retention(good=good, bad=bad),
        current_release_id=current,
        pinned=pinned,
    )
    gone = set(ids(removed))
    target = previous_good(releases, current)
    assert not gone & {current, *pinned, target.release_id if target else ""}
    assert [each.last_active for each in removed] == sorted(each.last_active for each in removed)
    by_age = sorted(releases, key=lambda each: each.last_active)
    for state, keep in ((ReleaseState.GOOD, good), (ReleaseState.BAD, bad)):
        of_state = [each for each in by_age if each.state is state]
        left = [each for each in of_state if each.release_id not in gone]
        assert len(left) >= min(len(of_state), max(1, keep))
        if of_state:
            assert left[-1].last_active == of_state[-1].last_active
        # All that is left beyond the number is there for a reason of its own.
        needed = {current, *pinned, target.release_id if target else ""}
        assert len([each for each in left if each.release_id not in needed]) <= max(1, keep)
    assert all(each.state in (ReleaseState.GOOD, ReleaseState.BAD) for each in removed)


@given(histories(), keeps, keeps, some_id)
def test_what_retention_leaves_it_leaves_again(
    releases: list[Release], good: int, bad: int, current: str
) -> None:
    retention = Retention(good=good, bad=bad)
    first = removable(releases, retention=retention, current_release_id=current, pinned=())
    left = [each.removed(LATER) if each in first else each for each in releases]
    assert not removable(left, retention=retention, current_release_id=current, pinned=())


def test_a_bad_release_is_remembered_when_its_files_are_gone() -> None:
    bad = release("bad", ReleaseState.BAD, tree="t").removed(LATER)
    good = release("good", ReleaseState.GOOD, tree="t", minute=1)
    assert previous_good([bad, good], "elsewhere") is None


def test_a_release_without_files_is_not_returned_to() -> None:
    gone = GOOD.removed(LATER)
    assert previous_good([gone], "") is None
    assert previous_good([gone.rebuilt()], "") == GOOD

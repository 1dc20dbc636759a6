"""What a restart policy says to an end."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.supervisor.restart import (
    ALWAYS,
    NEVER,
    ON_FAILURE,
    Done,
    GiveUp,
    History,
    RestartPolicy,
    Wait,
    decide,
)

spans = st.floats(min_value=0.001, max_value=1e5)

policies = st.builds(
    RestartPolicy,
    condition=st.sampled_from([ON_FAILURE, ALWAYS]),
    initial=spans,
    max=spans,
    factor=st.floats(min_value=1, max_value=1e3),
    jitter=st.floats(min_value=0, max_value=1),
    max_restarts=st.integers(min_value=0, max_value=20),
    window=spans,
    stable_after=spans,
)


def answer(
    policy: RestartPolicy,
    history: History | None = None,
    *,
    failed: bool = True,
    lasted: float = 0.0,
    now: float = 1000.0,
    chance: float = 0.5,
) -> Wait | GiveUp | Done:
    history = History() if history is None else history
    return decide(policy, history, failed=failed, lasted=lasted, now=now, chance=chance)


@pytest.mark.parametrize(
    ("condition", "failed", "restarts"),
    [
        (NEVER, True, False),
        (NEVER, False, False),
        (ON_FAILURE, True, True),
        (ON_FAILURE, False, False),
        (ALWAYS, True, True),
        (ALWAYS, False, True),
        ("of a later release", True, False),
    ],
)
def test_the_condition_decides_whether_an_end_is_followed_by_a_restart(
    condition: str, failed: bool, restarts: bool
) -> None:
    outcome = answer(RestartPolicy(condition=condition), failed=failed)
    assert isinstance(outcome, Wait if restarts else Done)


def test_waits_grow_by_the_factor_up_to_the_longest() -> None:
    policy = RestartPolicy(condition=ALWAYS, initial=1, factor=3, max=20, jitter=0)
    assert [policy.wait(attempt, 0.9) for attempt in range(5)] == [1, 3, 9, 20, 20]


def test_jitter_spreads_a_wait_to_both_sides() -> None:
    policy = RestartPolicy(condition=ALWAYS, initial=10, jitter=0.2)
    assert [policy.wait(0, chance) for chance in (0, 0.5, 1)] == [8, 10, 12]


def test_an_app_that_crashes_for_weeks_waits_no_longer_than_the_longest() -> None:
    policy = RestartPolicy(condition=ALWAYS, jitter=0)
    assert policy.wait(10_000_000, 0.5) == policy.max


def test_one_restart_more_than_the_window_allows_is_a_crash_loop() -> None:
    policy = RestartPolicy(condition=ALWAYS, max_restarts=3, window=100)
    history = History()
    for now in (0.0, 50.0, 60.0):
        assert isinstance(answer(policy, history, now=now), Wait)
        history = history.restarted(now)
    assert isinstance(answer(policy, history, now=99), GiveUp)
    # The first has left the window.
    later = answer(policy, history, now=100)
    assert isinstance(later, Wait)
    assert later.history.times == (50.0, 60.0)


def test_a_stable_run_lets_the_wait_begin_anew_and_forgets_no_restart() -> None:
    policy = RestartPolicy(condition=ALWAYS, initial=1, factor=2, jitter=0, stable_after=60)
    history = History(restarts=4, attempt=4, times=(900.0,))
    assert answer(policy, history, lasted=59.9) == Wait(seconds=16, history=history)
    anew = answer(policy, history, lasted=60)
    assert anew == Wait(seconds=1, history=replace(history, attempt=0))


def test_a_policy_is_read_as_it_was_written_and_from_less() -> None:
    policy = RestartPolicy(condition=ON_FAILURE, initial=0.5, max_restarts=7)
    assert RestartPolicy.from_form(policy.form()) == policy
    assert RestartPolicy.from_form({}) == RestartPolicy()
    assert RestartPolicy.from_form({"new": 1, "max": 5}) == RestartPolicy(max=5)
    with pytest.raises(ValueError, match="could not convert"):
        RestartPolicy.from_form({"max": "long"})


@given(
    policies,
    st.lists(st.tuples(st.floats(min_value=0, max_value=1e4), st.floats(0, 1)), max_size=60),
)
def test_no_run_of_ends_ever_breaks_what_a_policy_promises(
    policy: RestartPolicy, runs: list[tuple[float, float]]
) -> None:
    history, now = History(), 5.0
    for lasted, chance in runs:
        now += lasted
        outcome = decide(policy, history, failed=True, lasted=lasted, now=now, chance=chance)
        recent = [time for time in history.times if now - time < policy.window]
        if isinstance(outcome, GiveUp):
            assert len(recent) >= policy.max_restarts
            return
        assert isinstance(outcome, Wait)
        assert 0 <= outcome.seconds <= policy.max * (1 + policy.jitter)
        assert len(outcome.history.times) < max(policy.max_restarts, 1)
        now += outcome.seconds
        before, history = history, outcome.history.restarted(now)
        assert history.restarts == before.restarts + 1
        assert history.attempt in (1, before.attempt + 1)
        assert len(history.times) <= policy.max_restarts

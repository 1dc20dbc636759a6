"""What the checks of a commit say together."""

from __future__ import annotations

import pytest

from att_server.adapters.github.checks import MAX_TAIL_BYTES, judged
from att_server.adapters.github.repository import CheckRun, CommitStatus, RequiredCheck
from att_server.core.cycles.forge import CheckState

PASSED, PENDING, FAILED, NONE = (
    CheckState.SUCCESS,
    CheckState.PENDING,
    CheckState.FAILURE,
    CheckState.NONE,
)


def run(
    name: str = "test",
    conclusion: str | None = "success",
    *,
    app: int = 1,
    number: int = 1,
    **more: object,
) -> CheckRun:
    status = "in_progress" if conclusion is None else "completed"
    given = {"id": number, "name": name, "status": status, "conclusion": conclusion}
    return CheckRun.model_validate({**given, "app": {"id": app}, **more})


def status(context: str, state: str) -> CommitStatus:
    return CommitStatus(context=context, state=state)


def required(*names: str) -> list[RequiredCheck]:
    return [RequiredCheck(context=name) for name in names]


@pytest.mark.parametrize(
    ("conclusion", "state"),
    [
        ("success", PASSED),
        (None, PENDING),
        ("failure", FAILED),
        ("cancelled", FAILED),
        ("timed_out", FAILED),
        ("startup_failure", FAILED),
        ("a_word_of_tomorrow", FAILED),
        ("action_required", PENDING),
        ("stale", PENDING),
        ("neutral", NONE),
        ("skipped", NONE),
    ],
)
def test_each_conclusion_of_a_check_is_told_apart(
    conclusion: str | None, state: CheckState
) -> None:
    assert judged([run(conclusion=conclusion)], [], []).state is state
    assert judged([run(conclusion=conclusion)], [], required("test")).state is state


@pytest.mark.parametrize(
    ("word", "state"),
    [("success", PASSED), ("pending", PENDING), ("failure", FAILED), ("error", FAILED)],
)
def test_statuses_count_as_checks_do(word: str, state: CheckState) -> None:
    assert judged([], [status("ci", word)], []).state is state
    assert judged([], [status("ci", word)], required("ci")).state is state


def test_no_check_at_all_is_no_success() -> None:
    assert judged([], [], []).state is NONE
    assert judged([run(conclusion="skipped")], [], []).state is NONE


def test_skipped_checks_do_no_harm_beside_one_that_passed() -> None:
    assert judged([run(), run("deploy", "skipped")], [], []).state is PASSED


def test_one_that_is_required_and_not_there_is_waited_for() -> None:
    found = judged([run()], [], required("test", "lint"))
    assert found.state is PENDING
    assert found.evidence["missing"] == "lint"


def test_what_is_not_required_does_not_count() -> None:
    checks = [run(), run("nightly", "failure"), run("slow", None)]
    assert judged(checks, [status("other", "error")], required("test")).state is PASSED
    assert judged(checks, [], []).state is FAILED


def test_a_failure_is_told_though_others_are_pending_or_missing() -> None:
    checks = [run("lint", "failure", html_url="https://x/1"), run(conclusion=None)]
    found = judged(checks, [], required("test", "lint", "docs"))
    assert (found.state, found.reason) == (FAILED, "check_failed")
    assert found.evidence["failed"] == "lint"
    assert found.evidence["url"] == "https://x/1"


def test_the_newest_run_of_a_check_counts() -> None:
    again = [run(conclusion="failure", number=1), run(number=2)]
    assert judged(again, [], []).state is PASSED
    assert judged(reversed(again), [], []).state is PASSED


def test_two_apps_with_checks_of_one_name_both_count() -> None:
    assert judged([run(app=1), run(app=2, conclusion="failure")], [], []).state is FAILED


def test_one_that_an_app_is_required_to_make_counts_from_that_app_alone() -> None:
    wanted = [RequiredCheck(context="test", app_id=7)]
    assert judged([run(app=1)], [status("test", "success")], wanted).state is PENDING
    assert judged([run(app=7)], [], wanted).state is PASSED
    anybody = [RequiredCheck(context="test", app_id=-1)]
    assert judged([run(app=1)], [], anybody).state is PASSED


def test_without_a_required_one_more_may_be_to_come() -> None:
    assert judged([run()], [], required("test")).settled
    assert not judged([run()], [], []).settled


def test_the_log_of_a_failure_says_what_the_check_says_and_has_a_bound() -> None:
    output = {"title": "2 failed", "summary": "x" * 10**6 + "the end"}
    found = judged([run(conclusion="failure", output=output)], [], [])
    assert len(found.log_tail) == MAX_TAIL_BYTES
    assert found.log_tail.endswith(b"the end")
    short = judged([run(conclusion="failure", output={"title": "2 failed"})], [], [])
    assert short.log_tail == b"test: failure\n2 failed"


def test_many_checks_are_told_in_a_line() -> None:
    found = judged([run(f"check {number:03}") for number in range(500)], [], [])
    assert found.evidence["checks"].endswith("and 480 more")

"""What people are shown of a release cycle."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rich.console import Console

import att_client
from att_client import CycleOutcome, CycleState, CycleStep, CycleStepState
from att_client.cli import cycle_text, cycle_view
from att_client.cli.output import Output
from tests.cli.sample_cycles import (
    CYCLE,
    FORWARD,
    NEW,
    NOW,
    OLD,
    UNDONE,
    awaiting,
    cycle,
    denied,
    ended,
    failed_tests,
    good,
    held,
    rolled_back,
    status,
)


def drawn(shown: att_client.Cycle, width: int = 120) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(cycle_view.live(shown, NOW))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def printed(shown: att_client.Cycle, capsys: pytest.CaptureFixture[str], **more: object) -> str:
    cycle_view.show_ending(Output(as_json=False), shown, **more)  # type: ignore[arg-type]  # what a test gives
    return capsys.readouterr().out


# Steps -------------------------------------------------------------------------


def test_a_step_tells_its_work_and_its_waiting_apart() -> None:
    ci = status(
        CycleStep.CI,
        start_time=NOW - timedelta(seconds=90),
        end_time=NOW,
        waiting_duration=timedelta(seconds=80),
    )
    assert cycle_text.times(ci, NOW) == ("10.0 s", "1 min 20 s")


def test_a_step_that_goes_on_is_timed_until_now() -> None:
    running = status(CycleStep.TEST, CycleStepState.RUNNING)
    assert cycle_text.times(running, NOW) == ("2.0 s", "")
    waiting = status(CycleStep.CI, CycleStepState.WAITING)
    assert cycle_text.times(waiting, NOW) == ("", "2.0 s")
    assert cycle_text.times(status(CycleStep.CI, CycleStepState.PENDING), NOW) == ("", "")


def test_a_picture_holds_every_step_with_state_time_and_reason() -> None:
    shown = cycle(
        status(CycleStep.PREPARE, evidence={"base_commit": OLD}),
        status(CycleStep.BRANCH, CycleStepState.SKIPPED, reason="commit_given"),
        status(CycleStep.TEST, CycleStepState.RUNNING, attempt=2),
    )
    head, columns, *rows = drawn(shown)
    assert head == f"change of web, running, 5.0 s (cycle {CYCLE})"
    assert columns == "STEP STATE TIME WAITED WHAT"
    assert rows[0] == f"prepare succeeded 0.50 s base_commit {OLD[:12]}"
    assert rows[1] == "branch skipped commit_given"
    assert rows[3] == "test running 2.0 s attempt 2"
    assert [row.split()[0] for row in rows][:3] == ["prepare", "branch", "edit"]
    assert len(rows) == len(FORWARD)


def test_the_way_back_is_in_the_picture_once_it_is_gone() -> None:
    assert not any(line.startswith("rollback") for line in drawn(awaiting()))
    going_back = cycle(
        status(CycleStep.ROLLBACK, CycleStepState.RUNNING), state=CycleState.ROLLING_BACK
    )
    assert any(line.startswith("rollback running") for line in drawn(going_back))


def test_a_picture_fits_a_narrow_terminal() -> None:
    shown = cycle(status(CycleStep.TEST, CycleStepState.FAILED, reason="x" * 500))
    console = Console(width=60)
    with console.capture() as capture:
        console.print(cycle_view.live(shown, NOW))
    lines = capture.get().splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert len(lines) <= len(FORWARD) + 4


def test_lines_tell_each_change_once() -> None:
    lines = cycle_view.StepLines()
    prepare = status(CycleStep.PREPARE)
    # That it was begun is told only of steps that may take long.
    branch = status(CycleStep.BRANCH, CycleStepState.RUNNING)
    running = cycle(prepare, branch, status(CycleStep.TEST, CycleStepState.RUNNING))
    told = [" ".join(line.split()) for line in lines.news(running, NOW)]
    assert told == ["prepare succeeded 0.50 s", "test running"]
    assert lines.news(running, NOW) == []
    again = cycle(prepare, status(CycleStep.TEST, CycleStepState.RUNNING, attempt=2))
    assert [" ".join(line.split()) for line in lines.news(again, NOW)] == ["test running attempt 2"]


def test_a_cycle_that_is_held_tells_of_its_tries_once() -> None:
    lines = cycle_view.StepLines()
    first = lines.news(held(), NOW)
    assert first[-1].startswith("Held at push: remote_unreachable, next try ")
    trying = held(CycleStepState.RUNNING, attempt=2)
    assert lines.news(trying, NOW) == []
    assert "Held at push: remote_unreachable, it tries again now" in drawn(trying)[-1]
    later = held(attempt=2)
    later.next_try_time = NOW + timedelta(seconds=60)
    assert lines.news(later, NOW) == []
    assert lines.news(held(reason="remote_full", attempt=3), NOW)[-1].startswith(
        "Held at push: remote_full"
    )


def test_control_characters_of_a_server_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = failed_tests(tail=b"\x1b[2Jgone\r\x07\n\xff\n")
    evil.steps[3].evidence = {"url": "\x1b]0;x\x07"}
    evil.steps[3].reason = "\x1b[31m"
    report = att_client.TestReport(
        failed_count=1, results=[att_client.TestResult(name="\x1b[2J", message="\x1b[3J")]
    )
    out = printed(evil, capsys, report=report)
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\r" not in out


# Waiting -----------------------------------------------------------------------


def test_a_cycle_that_waits_for_a_person_says_what_to_type() -> None:
    first, second = cycle_text.waits_for(awaiting())
    assert first.startswith(
        f"A person has to decide on commit {NEW[:12]} (touches_att_toml), until "
    )
    assert f"`att cycle approve {CYCLE}`" in second
    assert drawn(awaiting())[-1] == second


def test_a_cycle_that_is_held_and_may_be_decided_says_both() -> None:
    shown = held()
    shown.approval = att_client.ApprovalRequest(commit_sha=NEW, reason="inconclusive")
    lines = cycle_text.waits_for(shown)
    assert lines[0].startswith("Held at push: remote_unreachable")
    assert lines[1] == f"A person has to decide on commit {NEW[:12]} (inconclusive)."


def test_a_cycle_that_goes_on_waits_for_nothing() -> None:
    assert cycle_text.waits_for(cycle()) == []


# Endings -----------------------------------------------------------------------


def test_a_good_end_names_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(good(), capsys)
    assert (
        out.strip()
        == f"SUCCEEDED: web runs release {NEW[:12]} and is healthy, merged as {NEW[:12]}."
    )


def test_a_rollback_says_that_the_old_release_runs_again_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = printed(rolled_back(), capsys)
    assert "health failed: status_503" in out
    assert "http://127.0.0.1:1/health" in out
    assert "the last 20 of 30 lines" in out
    assert "| line 29" in out
    assert "| line 9\n" not in out
    assert f"Rollback to release {OLD[:12]} (named by registry): allowed" in out
    assert (
        f"ROLLED BACK: release {NEW[:12]} was not kept, because health failed (status_503): "
        "health_failure." in out
    )
    assert f"Release {OLD[:12]} runs again and is healthy." in out
    assert f"undone on the base, as {UNDONE[:12]}" in out


def test_a_denied_rollback_shows_every_gate_and_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = att_client.Project(
        project_id="web",
        mode=att_client.ProjectMode.SAFE,
        mode_reason="rollback_attempts_exhausted",
    )
    out = printed(denied(), capsys, project=project)
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "GATE VERDICT REASON FACTS" in rows
    assert "not_frozen passed mode normal" in rows
    assert (
        f"attempts_left denied rollback_attempts_exhausted attempts 1, deployed {NEW[:12]}" in rows
    )
    assert "external_target_named not applicable self_hosted" in rows
    assert "FAILED: health failed (status_503): health_failure." in rows
    assert "The policy denied the rollback (rollback_attempts_exhausted)" in out
    assert "SAFE MODE (rollback_attempts_exhausted)" in out
    assert "`att project mode web normal`" in out


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("base_contains_bad_change", "Revert the change on the base branch"),
        ("rollback_failed", "`att rollback web --to RELEASE`"),
        ("rollback_target_unspecified", "`att rollback web --dry-run`"),
    ],
)
def test_safe_mode_says_how_to_leave_it(reason: str, words: str) -> None:
    project = att_client.Project(
        project_id="web", mode=att_client.ProjectMode.SAFE, mode_reason=reason
    )
    first, advice = cycle_text.blocked(project)
    assert f"SAFE MODE ({reason})" in first
    assert words in advice
    assert "{" not in advice
    project.mode = att_client.ProjectMode.FROZEN
    assert "FROZEN" in cycle_text.blocked(project)[0]
    project.mode = att_client.ProjectMode.NORMAL
    assert cycle_text.blocked(project) == []


def test_failed_tests_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    report = att_client.TestReport(
        passed_count=3,
        failed_count=12,
        results=[
            att_client.TestResult(name=f"test_{n}", message="assert 1 == 2\nmore")
            for n in range(12)
        ],
    )
    out = printed(failed_tests(), capsys, report=report)
    assert "12 of 15 tests failed" in out
    assert "- test_0: assert 1 == 2\n" in out
    assert "… and 2 more" in out
    assert "| boom" in out
    assert "Nothing was merged and nothing was deployed: the project is as it was." in out


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (
            ended(
                CycleOutcome.SUCCEEDED,
                status(CycleStep.PULL_REQUEST),
                status(CycleStep.DEPLOY, CycleStepState.SKIPPED, reason="not_asked_for"),
                result=att_client.CycleResult(pr_url="local:web/7"),
            ),
            "SUCCEEDED: done up to pull request (not_asked_for). See local:web/7.",
        ),
        (
            ended(
                CycleOutcome.SUCCEEDED,
                status(CycleStep.ROLLBACK),
                kind=att_client.CycleKind.ROLLBACK,
                result=att_client.CycleResult(rollback_target_release_id=OLD),
            ),
            f"SUCCEEDED: release {OLD[:12]} of web runs again and is healthy.",
        ),
        (
            ended(CycleOutcome.CANCELLED, cancelled_by="local:1000"),
            "CANCELLED by local:1000. Nothing was merged",
        ),
        (ended(CycleOutcome.REJECTED), "REJECTED: the approval was refused. Nothing"),
        (
            ended(
                CycleOutcome.ROLLBACK_FAILED,
                status(CycleStep.HEALTH, CycleStepState.FAILED, reason="process_exited"),
                outcome_reason="health_failure",
                result=att_client.CycleResult(
                    deployed_release_id=NEW, rollback_target_release_id=OLD
                ),
            ),
            (
                f"ROLLBACK FAILED: release {NEW[:12]} was not kept, because health failed "
                "(process_exited): health_failure,"
            ),
        ),
        (
            ended(
                CycleOutcome.FAILED,
                status(CycleStep.STAGE, CycleStepState.FAILED, reason="build_failed"),
                outcome_reason="stage_failure",
                result=att_client.CycleResult(
                    merged=True, merge_commit_sha=NEW, reverted=True, revert_commit_sha=UNDONE
                ),
            ),
            f"Nothing was deployed. The merge was undone on the base, as {UNDONE[:12]}.",
        ),
    ],
)
def test_every_outcome_says_what_is_so_now(shown: att_client.Cycle, words: str) -> None:
    assert words in " ".join(cycle_text.ending(shown))


def test_the_facts_of_a_cycle_name_its_change() -> None:
    shown = good()
    shown.request = att_client.CycleRequest(
        edits=[att_client.FileEdit(path=f"f{n}.py") for n in range(12)],
        commit_message="Do better\n\nA lot.",
    )
    told = cycle_view.cycle_facts(shown)
    assert told["change"].startswith("f0.py, f1.py")
    assert told["change"].endswith("f9.py and 2 more")
    assert told["message"] == "Do better"
    assert told["state"] == "succeeded"

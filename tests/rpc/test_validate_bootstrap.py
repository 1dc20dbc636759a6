"""Whatever a request about cycles holds: the reason, and the field that broke its rule."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from att.v1 import bootstrap_pb2, bootstrap_service_pb2, project_pb2
from att_server.core.edit_paths import check_edits
from att_server.core.errors import AttError, Reason
from att_server.rpc import convert_bootstrap
from att_server.rpc import validate_bootstrap as validate

SHA = "0123456789abcdef" * 2 + "01234567"
EDIT = bootstrap_pb2.FileEdit(path="app.py", content=b"print()\n")
MIB = 1 << 20


def start(**fields: Any) -> bootstrap_service_pb2.StartCycleRequest:
    """A request that may be made, but for `fields` of the cycle."""
    given = {"project_id": "web", "edits": [EDIT], **fields}
    return bootstrap_service_pb2.StartCycleRequest(
        cycle=bootstrap_pb2.CycleRequest(**{k: v for k, v in given.items() if v is not None})
    )


def edit(path: str = "app.py", **fields: Any) -> bootstrap_service_pb2.StartCycleRequest:
    return start(edits=[bootstrap_pb2.FileEdit(path=path, **fields)])


def write(path: str) -> bootstrap_service_pb2.StartCycleRequest:
    return edit(path, content=b"x")


def span(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def refused(check: Callable[[], None]) -> tuple[Reason, set[str]]:
    with pytest.raises(AttError) as caught:
        check()
    return caught.value.reason, {v.field for v in caught.value.violations}


def check(request: bootstrap_service_pb2.StartCycleRequest) -> None:
    """As a call does: the wire's rules, then the core's for the paths of edits."""
    validate.start_cycle(request, frozenset())
    change = convert_bootstrap.to_change(request.cycle)
    if isinstance(change, list):
        check_edits(change)


# What may be asked for -------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        start(),
        start(edits=None, patch=b"--- a/x\n"),
        start(edits=None, commit=SHA),
        start(edits=None, commit=SHA + "89abcdef" * 3),
        edit(delete_file=True),
        edit(executable=True),
        edit(executable=False),
        edit(content=b""),
        edit(content=b"\0\xff\r\n"),
        edit(content=b"x" * 8 * MIB),
        write("d/" + "n" * 255),
        write("größe/日本.py"),
        write(".github/workflows/ci.yml"),
        write(".gitignore"),
        start(bake_time=span(0)),
        start(ci_timeout=span(86_400), restart_watchdog_retries=1000),
        start(until="CYCLE_STEP_MERGE"),
        start(until="CYCLE_STEP_PREPARE"),
        start(branch_name="topic/x", base_branch="release/1.0"),
        start(commit_message="Two\n\nparagraphs\twith é"),
        start(deploy_target="cluster/eu-1", deployment_context="DEPLOYMENT_CONTEXT_EXTERNAL"),
        start(requested_release_id="v1.2.3", previous_release_id=SHA, rollback_release_id="v1"),
    ],
)
def test_what_makes_sense_is_taken(request_: bootstrap_service_pb2.StartCycleRequest) -> None:
    check(request_)
    plan = bootstrap_service_pb2.PlanCycleRequest(cycle=request_.cycle)
    validate.plan_cycle(plan, frozenset())


# What may not ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "../x",
        "a/../../x",
        "./x",
        "a//b",
        "a/",
        "/etc/passwd",
        ".git/config",
        ".GIT/config",
        ".git /config",
        ".git./config",
        "git~1/config",
        "GIT~2",
        ".g\u200cit/config",
        "\u2024git/config",
        "sub/.git",
        ".git:stream",
        "nul\0name",
        "line\nbreak",
        "back\\slash",
        "n" * 300,
        "d/" * 2100 + "x",
    ],
)
def test_a_path_that_no_tree_may_hold_is_refused(path: str) -> None:
    for request in (write(path), edit(path, delete_file=True), edit(path, executable=True)):
        assert refused(lambda asked=request: check(asked)) == (Reason.EDIT_PATH_INVALID, set())  # type: ignore[misc]  # of its own round


def test_edits_that_contradict_each_other_are_refused() -> None:
    twice = start(edits=[EDIT, EDIT])
    below = start(edits=[EDIT, bootstrap_pb2.FileEdit(path="app.py/x", content=b"")])
    for request in (twice, below):
        assert refused(lambda asked=request: check(asked)) == (Reason.EDIT_PATH_INVALID, set())  # type: ignore[misc]  # of its own round


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (start(project_id="Web"), {"cycle.project_id"}),
        (bootstrap_service_pb2.StartCycleRequest(), {"cycle.project_id", "cycle"}),
        # The change.
        (start(edits=None), {"cycle"}),
        (start(patch=b"x"), {"cycle"}),
        (start(commit=SHA), {"cycle"}),
        (start(edits=None, patch=b"x", commit=SHA), {"cycle"}),
        (start(edits=None, patch=b"x" * (8 * MIB + 1)), {"cycle.patch"}),
        (start(edits=None, commit="HEAD"), {"cycle.commit"}),
        (start(edits=None, commit=SHA[:12]), {"cycle.commit"}),
        (start(edits=None, commit=SHA.upper()), {"cycle.commit"}),
        (start(edits=None, commit="--upload-pack=x"), {"cycle.commit"}),
        (edit(), {"cycle.edits[0]"}),
        (edit(delete_file=False), {"cycle.edits[0]"}),
        (edit(delete_file=True, executable=True), {"cycle.edits[0]"}),
        (edit(content=b"x" * (8 * MIB + 1)), {"cycle.edits[0]"}),
        (start(edits=[EDIT] * 10_001), {"cycle.edits"}),
        (start(commit_message="x" * (64 * 1024 + 1)), {"cycle.commit_message"}),
        (start(commit_message="a\0b"), {"cycle.commit_message"}),
        # Branches.
        *(
            (start(**{field: name}), {f"cycle.{field}"})
            for field in ("branch_name", "base_branch")
            for name in (
                *("-x", "--upload-pack=touch x", "ext::sh -c x", "a b", "a\tb", "a\x7fb", "a..b"),
                *("refs/heads/x", "HEAD", "@", SHA, "x.lock", "a/.b", "x" * 300, "a\u200bb", "x/"),
            )
        ),
        (start(branch_name="main", base_branch="main"), {"cycle.branch_name"}),
        # What commands get as words.
        (start(deploy_target="-x"), {"cycle.deploy_target"}),
        (start(deploy_target="a\nb"), {"cycle.deploy_target"}),
        *(
            (start(**{field: value}), {f"cycle.{field}"})
            for field in ("requested_release_id", "previous_release_id", "rollback_release_id")
            for value in ("--help", "a b\0", "x" * 200, "a b", "../x")
        ),
        # Numbers.
        *(
            (start(**{field: value}), {f"cycle.{field}"})
            for field in ("restart_watchdog_retries", "health_check_retries")
            for value in (0, -1, 1001)
        ),
        *(
            (start(**{field: value}), {f"cycle.{field}"})
            for field in (
                *("ci_timeout", "ci_initial_poll", "ci_max_poll", "restart_watchdog_interval"),
                *("health_check_interval", "bake_time"),
            )
            for value in (span(-1), span(86_400 * 365), Duration(seconds=1, nanos=-1))
        ),
        *((start(**{field: span(0)}), {f"cycle.{field}"}) for field in ("ci_timeout",)),
        (start(until="CYCLE_STEP_ROLLBACK"), {"cycle.until"}),
        (start(until="CYCLE_STEP_REVERT"), {"cycle.until"}),
        (start(until=99), {"cycle.until"}),
        (start(deployment_context=99), {"cycle.deployment_context"}),
        # The check.
        (start(health_check_target=project_pb2.Probe()), {"cycle.health_check_target"}),
        (
            start(
                health_check_target=project_pb2.Probe(
                    http=project_pb2.HttpProbe(url="http://169.254.169.254/")
                )
            ),
            {"cycle.health_check_target.http.url"},
        ),
        (
            bootstrap_service_pb2.StartCycleRequest(cycle=start().cycle, request_id="x" * 129),
            {"request_id"},
        ),
    ],
)
def test_a_cycle_that_makes_no_sense_is_refused(
    request_: bootstrap_service_pb2.StartCycleRequest, fields: set[str]
) -> None:
    assert refused(lambda: check(request_)) == (Reason.FIELD_INVALID, fields)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    request = start(branch_name="-x", health_check_retries=0, until=99, edits=None)
    reason, fields = refused(lambda: check(request))
    assert reason is Reason.FIELD_INVALID
    assert fields == {"cycle", "cycle.branch_name", "cycle.health_check_retries", "cycle.until"}


# Other requests --------------------------------------------------------------

pb = bootstrap_service_pb2
UNKNOWN: Any = 7
DECISION: dict[str, Any] = {
    "cycle_id": "c",
    "decision": pb.CYCLE_DECISION_APPROVE,
    "commit_sha": SHA,
    "plan_digest": "d",
}


@pytest.mark.parametrize(
    ("check_", "request_", "fields"),
    [
        (validate.get_cycle, pb.GetCycleRequest(), {"cycle_id"}),
        (validate.get_cycle, pb.GetCycleRequest(cycle_id="x" * 129), {"cycle_id"}),
        (validate.list_cycles, pb.ListCyclesRequest(project_id="-", page_size=-1),
         {"project_id", "page_size"}),
        (validate.watch_cycle, pb.WatchCycleRequest(cycle_id="c", after_revision=-1),
         {"after_revision"}),
        (validate.watch_cycle, pb.WatchCycleRequest(cycle_id="c", progress_interval=span(0)),
         {"progress_interval"}),
        (validate.cancel_cycle, pb.CancelCycleRequest(reason="x" * 1001), {"cycle_id", "reason"}),
        (validate.decide_cycle, pb.DecideCycleRequest(cycle_id="c"),
         {"decision", "commit_sha", "plan_digest"}),
        (validate.decide_cycle, pb.DecideCycleRequest(**{**DECISION, "decision": 9}), {"decision"}),
        (validate.decide_cycle, pb.DecideCycleRequest(**{**DECISION, "commit_sha": "main"}),
         {"commit_sha"}),
        (validate.decide_cycle, pb.DecideCycleRequest(**{**DECISION, "reason": "a\0"}), {"reason"}),
        (validate.list_releases, pb.ListReleasesRequest(page_token="x" * 2000),
         {"project_id", "page_token"}),
        (validate.get_release, pb.GetReleaseRequest(project_id="web"), {"release_id"}),
        (validate.evaluate_rollback,
         pb.EvaluateRollbackRequest(project_id="web", failure_class="bad_luck"),
         {"failure_class"}),
        (validate.evaluate_rollback,
         pb.EvaluateRollbackRequest(project_id="web", target_release_id="--all"),
         {"target_release_id"}),
        (validate.rollback_release,
         pb.RollbackReleaseRequest(project_id="web", timeout=span(0), deploy_target="-rf"),
         {"timeout", "deploy_target"}),
        (validate.rollback_release,
         pb.RollbackReleaseRequest(project_id="web", deployment_context=UNKNOWN),
         {"deployment_context"}),
    ],
)  # fmt: skip
def test_each_other_request_is_held_to_its_rules(
    check_: Callable[[Any], None], request_: Any, fields: set[str]
) -> None:
    assert refused(lambda: check_(request_)) == (Reason.FIELD_INVALID, fields)


@pytest.mark.parametrize(
    ("check_", "request_"),
    [
        (validate.get_cycle, pb.GetCycleRequest(cycle_id="01JD")),
        (validate.list_cycles, pb.ListCyclesRequest()),
        (validate.watch_cycle, pb.WatchCycleRequest(cycle_id="c", progress_interval=span(1))),
        (validate.cancel_cycle, pb.CancelCycleRequest(cycle_id="c", reason="not needed")),
        (validate.decide_cycle, pb.DecideCycleRequest(**DECISION)),
        (validate.evaluate_rollback, pb.EvaluateRollbackRequest(project_id="web")),
        (validate.evaluate_rollback,
         pb.EvaluateRollbackRequest(project_id="web", failure_class="health_failure")),
        (validate.rollback_release,
         pb.RollbackReleaseRequest(project_id="web", timeout=span(60), target_release_id=SHA)),
    ],
)  # fmt: skip
def test_each_other_request_that_makes_sense_is_taken(
    check_: Callable[[Any], None], request_: Any
) -> None:
    check_(request_)

"""The rules of requests about cycles and releases, beside those that only managers can know.

Each function raises FIELD_INVALID with everything that is wrong. The paths of
edits are the core's to look at (`edit_paths.py`).
"""

from __future__ import annotations

from datetime import timedelta

from att.v1 import bootstrap_pb2, bootstrap_service_pb2
from att_server.core.branch_names import branch_violation
from att_server.core.cycles.settings_rules import request_violations
from att_server.core.edit_paths import MAX_FILES
from att_server.core.failure_class import FailureClass
from att_server.core.release_metadata import MAX_RELEASE_ID_LENGTH, is_release_id
from att_server.core.repository import is_sha
from att_server.rpc import convert_bootstrap
from att_server.rpc.checks import Checks
from att_server.rpc.validate import MAX_CURSOR, MAX_ID, check_progress_interval
from att_server.rpc.validate_settings import check_kind, note, unholdable

MAX_CONTENT_BYTES = 8 << 20
"""Of one edit, and of a patch."""
MAX_MESSAGE_BYTES = 64 * 1024
MAX_REASON = 1000
MAX_ROLLBACK_TIMEOUT = timedelta(days=1)

_STEPS_BACK = (bootstrap_pb2.CYCLE_STEP_ROLLBACK, bootstrap_pb2.CYCLE_STEP_REVERT)
_CONTEXTS = bootstrap_pb2.DeploymentContext.DESCRIPTOR.values_by_number
_DECISIONS = bootstrap_service_pb2.CycleDecision.DESCRIPTOR.values_by_number

# Cycles ----------------------------------------------------------------------


def plan_cycle(
    request: bootstrap_service_pb2.PlanCycleRequest, probe_hosts: frozenset[str]
) -> None:
    """A cycle that could be started. probe_hosts: what probes may ask, beside this host."""
    checks = Checks()
    _check_cycle(checks, request.cycle, probe_hosts)
    checks.done()


def start_cycle(
    request: bootstrap_service_pb2.StartCycleRequest, probe_hosts: frozenset[str]
) -> None:
    """A whole change, and settings that are in their ranges. probe_hosts: as in `plan_cycle`."""
    checks = Checks()
    checks.request_id(request.request_id)
    _check_cycle(checks, request.cycle, probe_hosts)
    checks.done()


def get_cycle(request: bootstrap_service_pb2.GetCycleRequest) -> None:
    """Any cycle's id."""
    checks = Checks()
    check_cycle_id(checks, request.cycle_id)
    checks.done()


def list_cycles(request: bootstrap_service_pb2.ListCyclesRequest) -> None:
    """A page, of one project or of all."""
    checks = Checks()
    if request.project_id:
        checks.project_id(request.project_id)
    checks.page(request.page_size, request.page_token)
    checks.done()


def watch_cycle(request: bootstrap_service_pb2.WatchCycleRequest) -> None:
    """An id and a revision."""
    checks = Checks()
    check_cycle_id(checks, request.cycle_id)
    checks.range("after_revision", request.after_revision, 0, MAX_CURSOR)
    if request.HasField("progress_interval"):
        check_progress_interval(checks, request.progress_interval)
    checks.done()


def cancel_cycle(request: bootstrap_service_pb2.CancelCycleRequest) -> None:
    """An id and a reason."""
    checks = Checks()
    check_cycle_id(checks, request.cycle_id)
    checks.text("reason", request.reason, MAX_REASON)
    checks.request_id(request.request_id)
    checks.done()


def decide_cycle(request: bootstrap_service_pb2.DecideCycleRequest) -> None:
    """A decision on a commit and a plan that were looked at."""
    checks = Checks()
    check_cycle_id(checks, request.cycle_id)
    checks.enum("decision", request.decision, _DECISIONS)
    if request.decision == bootstrap_service_pb2.CYCLE_DECISION_UNSPECIFIED:
        checks.broken("decision", "must be APPROVE or REJECT")
    if not is_sha(request.commit_sha):
        checks.broken("commit_sha", "must be the full sha of the commit that was looked at")
    if not request.plan_digest:
        checks.broken("plan_digest", "must be the digest of the plan that was looked at")
    checks.text("plan_digest", request.plan_digest, MAX_ID)
    checks.text("reason", request.reason, MAX_REASON)
    checks.request_id(request.request_id)
    checks.done()


# Releases --------------------------------------------------------------------


def list_releases(request: bootstrap_service_pb2.ListReleasesRequest) -> None:
    """A page of a project."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.page(request.page_size, request.page_token)
    checks.done()


def get_release(request: bootstrap_service_pb2.GetReleaseRequest) -> None:
    """A project's id and a release's."""
    checks = Checks()
    checks.project_id(request.project_id)
    if not request.release_id:
        checks.broken("release_id", "must not be empty")
    checks.text("release_id", request.release_id, MAX_ID)
    checks.done()


def evaluate_rollback(request: bootstrap_service_pb2.EvaluateRollbackRequest) -> None:
    """A target, and a class of failure."""
    checks = Checks()
    checks.project_id(request.project_id)
    _check_release_id(checks, "target_release_id", request.target_release_id)
    if request.failure_class and request.failure_class not in set(FailureClass):
        checks.broken("failure_class", f"must be empty or one of {', '.join(FailureClass)}")
    checks.enum("deployment_context", request.deployment_context, _CONTEXTS)
    checks.done()


def rollback_release(request: bootstrap_service_pb2.RollbackReleaseRequest) -> None:
    """A target, a reason and a bound."""
    checks = Checks()
    checks.project_id(request.project_id)
    checks.request_id(request.request_id)
    _check_release_id(checks, "target_release_id", request.target_release_id)
    checks.text("reason", request.reason, MAX_REASON)
    if request.HasField("timeout"):
        checks.duration("timeout", request.timeout, timedelta(seconds=1), MAX_ROLLBACK_TIMEOUT)
    checks.enum("deployment_context", request.deployment_context, _CONTEXTS)
    _check_argument(checks, "deploy_target", request.deploy_target)
    checks.done()


# Parts -----------------------------------------------------------------------


def check_cycle_id(checks: Checks, value: str, field: str = "cycle_id") -> None:
    """Notes an id that no cycle can have."""
    if not value:
        checks.broken(field, "must not be empty")
    checks.text(field, value, MAX_ID)


def _check_cycle(
    checks: Checks, cycle: bootstrap_pb2.CycleRequest, probe_hosts: frozenset[str]
) -> None:
    checks.project_id(cycle.project_id, "cycle.project_id")
    _check_change(checks, cycle)
    if len(cycle.commit_message.encode()) > MAX_MESSAGE_BYTES:
        checks.broken("cycle.commit_message", f"must have at most {MAX_MESSAGE_BYTES:,} bytes")
    if "\0" in cycle.commit_message:
        checks.broken("cycle.commit_message", "must not hold a NUL character")
    if cycle.branch_name and (rule := branch_violation(cycle.branch_name)):
        checks.broken("cycle.branch_name", rule)
    if cycle.branch_name and cycle.branch_name == cycle.base_branch:
        checks.broken("cycle.branch_name", "must not be the base branch itself")
    _check_argument(checks, "cycle.deploy_target", cycle.deploy_target)
    for name in ("requested_release_id", "previous_release_id", "rollback_release_id"):
        _check_release_id(checks, f"cycle.{name}", getattr(cycle, name))
    if cycle.until in _STEPS_BACK:
        checks.broken("cycle.until", "must be a step from PREPARE to FINALIZE")
    if cycle.HasField("health_check_target"):
        check_kind(checks, "cycle.health_check_target", cycle.health_check_target)
    asked = convert_bootstrap.to_cycle_request(cycle)
    rules = request_violations(asked, allowed_hosts=probe_hosts)
    note(checks, "cycle", unholdable(cycle), rules)


def _check_change(checks: Checks, cycle: bootstrap_pb2.CycleRequest) -> None:
    if [bool(cycle.edits), bool(cycle.patch), bool(cycle.commit)].count(True) != 1:
        checks.broken("cycle", "must hold a change: exactly one of edits, patch and commit")
    if len(cycle.patch) > MAX_CONTENT_BYTES:
        checks.broken("cycle.patch", f"must have at most {MAX_CONTENT_BYTES:,} bytes")
    if cycle.commit and not is_sha(cycle.commit):
        checks.broken("cycle.commit", "must be a full commit sha of 40 or 64 digits 0-9 and a-f")
    if len(cycle.edits) > MAX_FILES:
        checks.broken("cycle.edits", f"must have at most {MAX_FILES:,} entries")
        return
    for index, edit in enumerate(cycle.edits):
        if rule := _edit_rule(edit):
            checks.broken(f"cycle.edits[{index}]", rule)


def _edit_rule(edit: bootstrap_pb2.FileEdit) -> str:
    kind = edit.WhichOneof("edit")
    if kind is None and not edit.HasField("executable"):
        return "must say what to do: set content, delete_file or executable"
    if kind == "delete_file" and not edit.delete_file:
        return "must not have delete_file set to false"
    if kind == "delete_file" and edit.HasField("executable"):
        return "must not set executable where the file is removed"
    if len(edit.content) > MAX_CONTENT_BYTES:
        return f"must have a content of at most {MAX_CONTENT_BYTES:,} bytes"
    return ""


def _check_argument(checks: Checks, field: str, value: str) -> None:
    """What a command gets as a word of its own must not read as an option of it."""
    checks.text(field, value, MAX_ID)
    if value.startswith("-"):
        checks.broken(field, "must not begin with a hyphen, as an option does")


def _check_release_id(checks: Checks, field: str, value: str) -> None:
    """Empty, or an id that a release can have."""
    if value and not is_release_id(value):
        checks.broken(
            field,
            f"must have at most {MAX_RELEASE_ID_LENGTH} letters, digits and . _ + : / @ -, and "
            "begin and end with a letter or digit",
        )

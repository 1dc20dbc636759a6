"""What a failed call is told as: what happened, and the next step."""

from __future__ import annotations

import att_client
from att_client import ErrorReason
from att_client.mcp.steps import Step

_OF_PROJECT = {"project": "{project_id}"}
_STATUS = Step("att.project.status", _OF_PROJECT)
_LOOK_AT_APP = Step("att.runtime.logs", _OF_PROJECT)
_LIST = Step("att.project.list")

AWAY = Step(
    advice="a person starts the server with `att serve` on its host; then call the same again."
)
"""No server answers."""

UNKNOWN = Step(advice="call the same again once; if it fails again, tell the person what it says.")
"""A failure without a reason that is known here."""

STEPS: dict[ErrorReason, Step] = {
    ErrorReason.UNSPECIFIED: UNKNOWN,
    ErrorReason.FIELD_INVALID: Step(advice="mend what is named and call the same again."),
    ErrorReason.MALFORMED_MESSAGE: Step(
        advice="call the same again with other values; if it stays, the versions of bridge and "
        "server do not fit, which a person has to mend."
    ),
    ErrorReason.NOT_IMPLEMENTED: Step(
        advice="call it without {capability}: this server does not offer that yet."
    ),
    ErrorReason.PROJECT_NOT_FOUND: _LIST,
    ErrorReason.PROJECT_SPEC_CONFLICT: _STATUS,
    ErrorReason.PROJECT_BUSY: Step(
        "att.bootstrap.status", _OF_PROJECT, "When it has ended, call the same again."
    ),
    ErrorReason.PROJECT_NOT_STOPPED: Step("att.runtime.stop", _OF_PROJECT),
    ErrorReason.PROJECT_PATH_NOT_ALLOWED: Step(
        advice="a person allows the path in the server's settings, or moves the project."
    ),
    ErrorReason.PROJECT_PATH_INVALID: Step(
        advice="a person corrects it with `att project update {project_id} --path DIR`."
    ),
    ErrorReason.SETTINGS_INVALID: Step(
        "att.code.read", {"path": "att.toml"}, "Mend the line and key that are named."
    ),
    ErrorReason.RUNTIME_NOT_RUNNING: Step("att.runtime.start", _OF_PROJECT),
    ErrorReason.RUNTIME_SPEC_CONFLICT: Step("att.runtime.restart", _OF_PROJECT),
    ErrorReason.RUNTIME_START_FAILED: _LOOK_AT_APP,
    ErrorReason.RUNTIME_NOT_READY: Step("att.runtime.status", _OF_PROJECT),
    ErrorReason.COMMAND_NOT_FOUND: _STATUS,
    ErrorReason.COMMAND_NOT_EXECUTABLE: Step(
        advice="a person makes {command} executable, or the project's command another."
    ),
    ErrorReason.COMMAND_MISSING: Step(
        advice="set `command` under [runtime] in the project's att.toml."
    ),
    ErrorReason.SUPERVISOR_UNREACHABLE: Step(
        "att.runtime.status", _OF_PROJECT, "If it stays, a person runs `att doctor`."
    ),
    ErrorReason.LOG_CURSOR_AHEAD: Step(
        "att.runtime.logs", {"project": "{project_id}", "cursor": "{end_cursor}"}
    ),
    ErrorReason.PROJECT_NOT_REPOSITORY_ROOT: Step(
        advice="a person makes the project's directory the top of a git repository."
    ),
    ErrorReason.PROJECT_HAS_NO_REMOTE: Step(
        advice="a person adds a remote `origin` to the project's repository."
    ),
    ErrorReason.CYCLE_NOT_FOUND: Step(
        "att.events.list", {}, "Its lines name the cycles that there were."
    ),
    ErrorReason.CYCLE_ALREADY_RUNNING: Step(
        "att.bootstrap.status", {"cycle": "{cycle_id}", "wait_seconds": "45"}
    ),
    ErrorReason.CYCLE_NOT_AWAITING_DECISION: Step("att.bootstrap.status", {"cycle": "{cycle_id}"}),
    ErrorReason.APPROVAL_STALE: Step("att.bootstrap.status", {"cycle": "{cycle_id}"}),
    ErrorReason.REQUEST_ID_REUSED: Step(
        advice="call the same again with another request_id, or without one."
    ),
    ErrorReason.RELEASE_NOT_FOUND: Step("att.release.list", _OF_PROJECT),
    ErrorReason.ROLLBACK_DENIED: Step("att.release.list", _OF_PROJECT),
    ErrorReason.PROJECT_IN_SAFE_MODE: Step(
        "att.project.status",
        _OF_PROJECT,
        "It names why; a person ends it with `att project mode {project_id} normal`.",
    ),
    ErrorReason.PROJECT_FROZEN: Step(
        advice="wait until a person ends it with `att project mode {project_id} normal`."
    ),
    ErrorReason.BASE_CONTAINS_BAD_CHANGE: Step(
        advice="a person reverts {commit_sha} on the base branch, pushes, and runs "
        "`att project mode {project_id} normal`."
    ),
    ErrorReason.EDIT_PATH_INVALID: Step(
        "att.code.list", _OF_PROJECT, "Paths are against the top of that tree."
    ),
    ErrorReason.PATCH_DOES_NOT_APPLY: Step(
        "att.code.read", {"path": "{path}"}, "Make the patch anew against what it says."
    ),
    ErrorReason.UNAUTHENTICATED: Step(
        advice="a person makes a token with `att token create` and gives it to this client."
    ),
    ErrorReason.PERMISSION_DENIED: Step(
        advice="ask a person with the role {required_role}; the caller's token has another one."
    ),
    ErrorReason.RATE_LIMITED: Step(advice="wait some seconds, then call the same again."),
    ErrorReason.STORAGE_FULL: Step(
        advice="a person frees space on the server's host; then call the same again."
    ),
    ErrorReason.AUDIT_UNAVAILABLE: Step(
        advice="nothing was done. A person looks with `att doctor`; reading goes on."
    ),
    ErrorReason.SHUTTING_DOWN: Step(
        advice="call the same again in some seconds; if the server stays away, a person starts "
        "it with `att serve`."
    ),
    ErrorReason.STREAM_STALLED: Step(advice="call the same again, from its last cursor."),
    ErrorReason.PROJECT_IS_SERVER: Step(
        advice="it is ATT itself: change it with a cycle; only a person at its host starts or "
        "stops it."
    ),
    ErrorReason.RUN_AS_NOT_POSSIBLE: Step(
        advice="a person changes `run_as` of the project, or what the message names on the host."
    ),
    ErrorReason.NO_WORKING_RELEASE: Step(
        advice="a person looks at what the message names; apps run on, and it is tried again."
    ),
    ErrorReason.INTERNAL: Step(
        advice="tell the person the error id {error_id}: the server's log has the details."
    ),
    ErrorReason.RELEASE_MARKED_BAD: Step(
        "att.release.list",
        _OF_PROJECT,
        "It says why. Release another change: only an admin deploys the same files again.",
    ),
    ErrorReason.REVISION_NOT_FOUND: Step("att.release.list", _OF_PROJECT),
    ErrorReason.FILE_NOT_FOUND: Step(
        "att.code.list", {"project": "{project_id}", "revision": "{commit_sha}"}
    ),
    ErrorReason.TEST_REPORT_NOT_FOUND: Step("att.bootstrap.status", _OF_PROJECT),
    ErrorReason.REPOSITORY_UNAVAILABLE: Step(
        advice="call the same again in a minute; if it stays, a person looks at the remote."
    ),
    ErrorReason.DECIDED_BY_REQUESTER: Step(
        advice="another person decides, with a token of their own: `att cycle approve {cycle_id}`."
    ),
}
"""The next step for every reason of the contract."""


def step_after(error: att_client.AttError) -> Step:
    """The next step after a failed call."""
    if isinstance(error, att_client.UnavailableError) and not error.reason:
        return AWAY
    reason = getattr(ErrorReason, error.reason or "UNSPECIFIED", ErrorReason.UNSPECIFIED)
    return STEPS.get(reason, UNKNOWN)


def what_happened(error: att_client.AttError) -> str:
    """What happened, in a sentence with the reason at its end."""
    if isinstance(error, att_client.UnavailableError) and not error.reason:
        return "No ATT server answers (SERVER_NOT_REACHABLE)."
    reason = error.reason or (error.code.name if error.code else "CLIENT_ERROR")
    return f"{error.message.rstrip('.')} ({reason})."

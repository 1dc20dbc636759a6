"""Every way in which the server refuses or fails, by reason.

The core raises `AttError`; `rpc/status.py` alone knows which status code a
reason becomes. `Reason` mirrors `att.v1.ErrorReason`; a test keeps them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, auto


class _UpperEnum(StrEnum):
    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return name


class Reason(_UpperEnum):
    """Why a call failed. Comments and metadata keys: `error_reason.proto`."""

    FIELD_INVALID = auto()
    MALFORMED_MESSAGE = auto()
    NOT_IMPLEMENTED = auto()
    PROJECT_NOT_FOUND = auto()
    PROJECT_SPEC_CONFLICT = auto()
    PROJECT_BUSY = auto()
    PROJECT_NOT_STOPPED = auto()
    PROJECT_PATH_NOT_ALLOWED = auto()
    PROJECT_PATH_INVALID = auto()
    SETTINGS_INVALID = auto()
    RUNTIME_NOT_RUNNING = auto()
    RUNTIME_SPEC_CONFLICT = auto()
    RUNTIME_START_FAILED = auto()
    RUNTIME_NOT_READY = auto()
    COMMAND_NOT_FOUND = auto()
    COMMAND_NOT_EXECUTABLE = auto()
    COMMAND_MISSING = auto()
    SUPERVISOR_UNREACHABLE = auto()
    LOG_CURSOR_AHEAD = auto()
    PROJECT_NOT_REPOSITORY_ROOT = auto()
    PROJECT_HAS_NO_REMOTE = auto()
    CYCLE_NOT_FOUND = auto()
    CYCLE_ALREADY_RUNNING = auto()
    CYCLE_NOT_AWAITING_DECISION = auto()
    APPROVAL_STALE = auto()
    REQUEST_ID_REUSED = auto()
    RELEASE_NOT_FOUND = auto()
    ROLLBACK_DENIED = auto()
    PROJECT_IN_SAFE_MODE = auto()
    PROJECT_FROZEN = auto()
    BASE_CONTAINS_BAD_CHANGE = auto()
    EDIT_PATH_INVALID = auto()
    PATCH_DOES_NOT_APPLY = auto()
    UNAUTHENTICATED = auto()
    PERMISSION_DENIED = auto()
    RATE_LIMITED = auto()
    STORAGE_FULL = auto()
    AUDIT_UNAVAILABLE = auto()
    SHUTTING_DOWN = auto()
    INTERNAL = auto()
    RELEASE_MARKED_BAD = auto()
    REVISION_NOT_FOUND = auto()
    FILE_NOT_FOUND = auto()
    TEST_REPORT_NOT_FOUND = auto()
    REPOSITORY_UNAVAILABLE = auto()
    DECIDED_BY_REQUESTER = auto()
    STREAM_STALLED = auto()
    NO_WORKING_RELEASE = auto()
    """Sent by the launcher alone, in place of a server; see `stand_in`."""
    PROJECT_IS_SERVER = auto()
    RUN_AS_NOT_POSSIBLE = auto()


class RefusalReason(_UpperEnum):
    """Why the server does not start. Printed by the process, never sent."""

    ALREADY_RUNNING = auto()
    SCHEMA_TOO_NEW = auto()
    STATE_DIR_NOT_WRITABLE = auto()
    STATE_DAMAGED = auto()
    INSECURE_STATE_DIR = auto()
    SOCKET_PATH_TOO_LONG = auto()
    LISTENER_NOT_ALLOWED = auto()
    TLS_REQUIRED = auto()
    AUTH_REQUIRED = auto()
    REFUSING_ROOT = auto()
    INSECURE_KEY_FILE = auto()
    TLS_FILE_INVALID = auto()
    CONFIG_INVALID = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One broken rule of a request: the field's path and the rule in words."""

    field: str
    description: str


class AttError(Exception):
    """A call is refused or fails, for one reason.

    message: what happened and what to do next, for people.
    metadata: every value that the message names, as text.
    violations: with FIELD_INVALID only, all that is wrong with the request.
    retry_delay: how long to wait before calling again, where it is known.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_delay: timedelta | None = None,
        **metadata: object,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.retry_delay = retry_delay
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


class StartRefused(Exception):
    """The server does not start; the message says what to do."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def field_invalid(field: str, description: str) -> AttError:
    """The error for a request with one broken rule."""
    return fields_invalid([FieldViolation(field=field, description=description)])


def fields_invalid(violations: Sequence[FieldViolation]) -> AttError:
    """The error for a request with `violations`, of which there is at least one."""
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return AttError(
        Reason.FIELD_INVALID,
        f"The request is not valid: {text}. Correct the field and call again.",
        violations=violations,
        field=violations[0].field,
    )


def project_not_found(project_id: str) -> AttError:
    """The error for a project that does not exist."""
    return AttError(
        Reason.PROJECT_NOT_FOUND,
        f"There is no project {project_id!r}. List the projects, or create it.",
        project_id=project_id,
    )


def not_implemented(capability: str) -> AttError:
    """The error for a capability that this server does not offer."""
    return AttError(
        Reason.NOT_IMPLEMENTED,
        f"This server does not offer {capability!r} yet; nothing was done. "
        "GetServerInfo lists its capabilities.",
        capability=capability,
    )

"""Every way in which a call fails, as one tree.

Catch the narrowest class that you can act on: by reason where the contract
names one, else by status code, else `AttError`. A reason that a later server
adds arrives as the class of its status code, with `reason` set.

    AttError
    ├── InvalidArgumentError
    │   ├── FieldInvalidError              FIELD_INVALID
    │   ├── MalformedMessageError          MALFORMED_MESSAGE
    │   ├── ProjectPathInvalidError        PROJECT_PATH_INVALID
    │   └── EditPathInvalidError           EDIT_PATH_INVALID
    ├── NotFoundError
    │   ├── ProjectNotFoundError           PROJECT_NOT_FOUND
    │   ├── CycleNotFoundError             CYCLE_NOT_FOUND
    │   ├── ReleaseNotFoundError           RELEASE_NOT_FOUND
    │   ├── RevisionNotFoundError          REVISION_NOT_FOUND
    │   ├── CodeFileNotFoundError          FILE_NOT_FOUND
    │   └── TestReportNotFoundError        TEST_REPORT_NOT_FOUND
    ├── AlreadyExistsError
    │   └── ProjectSpecConflictError       PROJECT_SPEC_CONFLICT
    ├── AbortedError
    │   └── ProjectBusyError               PROJECT_BUSY
    ├── OutOfRangeError
    │   └── LogCursorAheadError            LOG_CURSOR_AHEAD
    ├── FailedPreconditionError
    │   ├── ProjectNotStoppedError         PROJECT_NOT_STOPPED
    │   ├── SettingsInvalidError           SETTINGS_INVALID
    │   ├── RuntimeNotRunningError         RUNTIME_NOT_RUNNING
    │   ├── RuntimeSpecConflictError       RUNTIME_SPEC_CONFLICT
    │   ├── RuntimeStartFailedError        RUNTIME_START_FAILED
    │   ├── CommandNotFoundError           COMMAND_NOT_FOUND
    │   ├── CommandNotExecutableError      COMMAND_NOT_EXECUTABLE
    │   ├── CommandMissingError            COMMAND_MISSING
    │   ├── ProjectNotRepositoryRootError  PROJECT_NOT_REPOSITORY_ROOT
    │   ├── ProjectHasNoRemoteError        PROJECT_HAS_NO_REMOTE
    │   ├── ProjectIsServerError           PROJECT_IS_SERVER
    │   ├── RunAsNotPossibleError          RUN_AS_NOT_POSSIBLE
    │   ├── CycleAlreadyRunningError       CYCLE_ALREADY_RUNNING
    │   ├── CycleNotAwaitingDecisionError  CYCLE_NOT_AWAITING_DECISION
    │   ├── ApprovalStaleError             APPROVAL_STALE
    │   ├── RequestIdReusedError           REQUEST_ID_REUSED
    │   ├── RollbackDeniedError            ROLLBACK_DENIED
    │   ├── ProjectInSafeModeError         PROJECT_IN_SAFE_MODE
    │   ├── ProjectFrozenError             PROJECT_FROZEN
    │   ├── BaseContainsBadChangeError     BASE_CONTAINS_BAD_CHANGE
    │   ├── PatchDoesNotApplyError         PATCH_DOES_NOT_APPLY
    │   └── ReleaseMarkedBadError          RELEASE_MARKED_BAD
    ├── UnauthenticatedError               UNAUTHENTICATED
    ├── PermissionDeniedError              PERMISSION_DENIED
    │   ├── ProjectPathNotAllowedError     PROJECT_PATH_NOT_ALLOWED
    │   └── DecidedByRequesterError        DECIDED_BY_REQUESTER
    ├── ResourceExhaustedError
    │   ├── RateLimitedError               RATE_LIMITED
    │   └── StorageFullError               STORAGE_FULL
    ├── UnimplementedError
    │   └── CapabilityNotImplementedError  NOT_IMPLEMENTED
    ├── DeadlineExceededError
    │   └── RuntimeNotReadyError           RUNTIME_NOT_READY
    ├── UnavailableError
    │   ├── SupervisorUnreachableError     SUPERVISOR_UNREACHABLE
    │   ├── AuditUnavailableError          AUDIT_UNAVAILABLE
    │   ├── ShuttingDownError              SHUTTING_DOWN
    │   ├── StreamStalledError             STREAM_STALLED
    │   ├── NoWorkingReleaseError          NO_WORKING_RELEASE
    │   ├── RepositoryUnavailableError     REPOSITORY_UNAVAILABLE
    │   └── NotReachableError              connect: no server answers
    ├── InternalError                      INTERNAL
    ├── DataLossError
    ├── CallCancelledError
    ├── UnknownError
    ├── LogGapError                        follow: records are missing
    ├── ProtocolError                      the server broke the contract
    ├── ClosedError                        this side was closed
    └── ConfigInvalidError                 the target or the environment is wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from grpc import StatusCode

from att_client._proto.att.v1 import ErrorReason, LogGap


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One broken rule of a request: the field's path and the rule in words."""

    field: str
    description: str


_BY_CODE: dict[StatusCode, type[AttError]] = {}
_BY_REASON: dict[str, type[AttError]] = {}


class AttError(Exception):
    """A call failed.

    message: what happened and what to do next, for people. Never parse it.
    code: the status code; None where this side found the error.
    reason: the name of an `ErrorReason`, such as `PROJECT_NOT_FOUND`; empty
        where the server gave none.
    metadata: every value that the message names, by name.
    violations: with FIELD_INVALID, all that is wrong with the request.
    retry_delay: how long to wait before a repetition, where the server knows.
    """

    default_code: ClassVar[StatusCode | None] = None

    def __init_subclass__(
        cls, code: StatusCode | None = None, reason: ErrorReason | None = None
    ) -> None:
        """code, reason: what the class is raised for, each by one class only."""
        if code is not None:
            cls.default_code = code
            if _BY_CODE.setdefault(code, cls) is not cls:
                raise TypeError(f"{code} has a class already")
        if reason is not None and _BY_REASON.setdefault(str(reason), cls) is not cls:
            raise TypeError(f"{reason} has a class already")

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_delay: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else self.default_code
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_delay = retry_delay


# By status code


class InvalidArgumentError(AttError, code=StatusCode.INVALID_ARGUMENT):
    """The request breaks a rule that does not depend on the server's state."""


class NotFoundError(AttError, code=StatusCode.NOT_FOUND):
    """What the request names does not exist."""


class AlreadyExistsError(AttError, code=StatusCode.ALREADY_EXISTS):
    """What the request would create exists."""


class AbortedError(AttError, code=StatusCode.ABORTED):
    """Another operation is in the way; repeat the call after it."""


class OutOfRangeError(AttError, code=StatusCode.OUT_OF_RANGE):
    """The request names a place behind the end."""


class FailedPreconditionError(AttError, code=StatusCode.FAILED_PRECONDITION):
    """The state does not allow the call; change it first."""


class UnauthenticatedError(
    AttError, code=StatusCode.UNAUTHENTICATED, reason=ErrorReason.UNAUTHENTICATED
):
    """The call has no identity that the server accepts."""


class PermissionDeniedError(
    AttError, code=StatusCode.PERMISSION_DENIED, reason=ErrorReason.PERMISSION_DENIED
):
    """The caller may not make the call."""


class ResourceExhaustedError(AttError, code=StatusCode.RESOURCE_EXHAUSTED):
    """A limit is reached or space is used up."""


class UnimplementedError(AttError, code=StatusCode.UNIMPLEMENTED):
    """The server does not know the call."""


class DeadlineExceededError(AttError, code=StatusCode.DEADLINE_EXCEEDED):
    """The time ran out; what the call began may go on."""


class UnavailableError(AttError, code=StatusCode.UNAVAILABLE):
    """The server cannot be reached or does not serve now; repeat the call."""


class InternalError(AttError, code=StatusCode.INTERNAL, reason=ErrorReason.INTERNAL):
    """A defect of the server; its log holds the details under `error_id`."""


class DataLossError(AttError, code=StatusCode.DATA_LOSS):
    """What was kept cannot be read any more."""


class CallCancelledError(AttError, code=StatusCode.CANCELLED):
    """The server gave the call up."""


class UnknownError(AttError, code=StatusCode.UNKNOWN):
    """Something between here and the server failed without saying why."""


# By reason


class FieldInvalidError(InvalidArgumentError, reason=ErrorReason.FIELD_INVALID):
    """A field of the request breaks its documented rule; see `violations`."""


class MalformedMessageError(InvalidArgumentError, reason=ErrorReason.MALFORMED_MESSAGE):
    """The server could not read the request."""


class ProjectPathInvalidError(InvalidArgumentError, reason=ErrorReason.PROJECT_PATH_INVALID):
    """The path is relative, does not exist, or is no directory."""


class EditPathInvalidError(InvalidArgumentError, reason=ErrorReason.EDIT_PATH_INVALID):
    """An edit leaves the project's tree or touches what git keeps for itself."""


class ProjectNotFoundError(NotFoundError, reason=ErrorReason.PROJECT_NOT_FOUND):
    """No project has this id, or the caller may not know of it."""


class CycleNotFoundError(NotFoundError, reason=ErrorReason.CYCLE_NOT_FOUND):
    """No cycle has this id."""


class ReleaseNotFoundError(NotFoundError, reason=ErrorReason.RELEASE_NOT_FOUND):
    """No release of the project has this id."""


class RevisionNotFoundError(NotFoundError, reason=ErrorReason.REVISION_NOT_FOUND):
    """The project's repository knows no such commit, branch or tag."""


class CodeFileNotFoundError(NotFoundError, reason=ErrorReason.FILE_NOT_FOUND):
    """The tree holds no such file."""


class TestReportNotFoundError(NotFoundError, reason=ErrorReason.TEST_REPORT_NOT_FOUND):
    """No tests were run in this cycle, or in any."""

    __test__: ClassVar[bool] = False  # Not one of pytest's.


class ProjectSpecConflictError(AlreadyExistsError, reason=ErrorReason.PROJECT_SPEC_CONFLICT):
    """A project with this id and another specification exists."""


class ProjectBusyError(AbortedError, reason=ErrorReason.PROJECT_BUSY):
    """Another operation holds the project; repeat the call after it."""


class LogCursorAheadError(OutOfRangeError, reason=ErrorReason.LOG_CURSOR_AHEAD):
    """The cursor lies above the log's end, or belongs to another life of the log."""


class ProjectNotStoppedError(FailedPreconditionError, reason=ErrorReason.PROJECT_NOT_STOPPED):
    """The project still has a running app; stop it first."""


class SettingsInvalidError(FailedPreconditionError, reason=ErrorReason.SETTINGS_INVALID):
    """The project's `att.toml` cannot be read as settings."""


class RuntimeNotRunningError(FailedPreconditionError, reason=ErrorReason.RUNTIME_NOT_RUNNING):
    """The call needs a running app."""


class RuntimeSpecConflictError(FailedPreconditionError, reason=ErrorReason.RUNTIME_SPEC_CONFLICT):
    """The app runs with another specification; stop or restart it."""


class RuntimeStartFailedError(FailedPreconditionError, reason=ErrorReason.RUNTIME_START_FAILED):
    """The app ended, or could not be started, before what the call waited for."""


class CommandNotFoundError(FailedPreconditionError, reason=ErrorReason.COMMAND_NOT_FOUND):
    """The first word of the command is no file in `PATH` or at its path."""


class CommandNotExecutableError(FailedPreconditionError, reason=ErrorReason.COMMAND_NOT_EXECUTABLE):
    """The command's file exists and may not be executed."""


class CommandMissingError(FailedPreconditionError, reason=ErrorReason.COMMAND_MISSING):
    """The project has no command: set one in `att.toml` or in the request."""


class ProjectNotRepositoryRootError(
    FailedPreconditionError, reason=ErrorReason.PROJECT_NOT_REPOSITORY_ROOT
):
    """The project's directory is not the top of a git repository."""


class ProjectHasNoRemoteError(FailedPreconditionError, reason=ErrorReason.PROJECT_HAS_NO_REMOTE):
    """The project's repository has no remote."""


class ProjectIsServerError(FailedPreconditionError, reason=ErrorReason.PROJECT_IS_SERVER):
    """The project is the server itself, which no call starts, stops or deletes."""


class RunAsNotPossibleError(FailedPreconditionError, reason=ErrorReason.RUN_AS_NOT_POSSIBLE):
    """The app cannot be run as the user of `run_as`; `cause` in the metadata says why."""


class CycleAlreadyRunningError(FailedPreconditionError, reason=ErrorReason.CYCLE_ALREADY_RUNNING):
    """The project already has a cycle that has not ended."""


class CycleNotAwaitingDecisionError(
    FailedPreconditionError, reason=ErrorReason.CYCLE_NOT_AWAITING_DECISION
):
    """The cycle does not wait for a decision."""


class ApprovalStaleError(FailedPreconditionError, reason=ErrorReason.APPROVAL_STALE):
    """The decision was made on another commit or plan, or came too late."""


class RequestIdReusedError(FailedPreconditionError, reason=ErrorReason.REQUEST_ID_REUSED):
    """The request id was used for another request."""


class RollbackDeniedError(FailedPreconditionError, reason=ErrorReason.ROLLBACK_DENIED):
    """The rollback policy denies it; see `policy_reason` in the metadata."""


class ProjectInSafeModeError(FailedPreconditionError, reason=ErrorReason.PROJECT_IN_SAFE_MODE):
    """The project is in safe mode, where nothing automatic happens."""


class ProjectFrozenError(FailedPreconditionError, reason=ErrorReason.PROJECT_FROZEN):
    """The project is frozen."""


class BaseContainsBadChangeError(
    FailedPreconditionError, reason=ErrorReason.BASE_CONTAINS_BAD_CHANGE
):
    """The base branch holds a change that was rolled back."""


class PatchDoesNotApplyError(FailedPreconditionError, reason=ErrorReason.PATCH_DOES_NOT_APPLY):
    """The patch does not apply to the base commit."""


class ReleaseMarkedBadError(FailedPreconditionError, reason=ErrorReason.RELEASE_MARKED_BAD):
    """A release with the same files is BAD and is not deployed again; an admin may override it."""


class ProjectPathNotAllowedError(
    PermissionDeniedError, reason=ErrorReason.PROJECT_PATH_NOT_ALLOWED
):
    """The path lies outside the roots that the server's settings allow."""


class DecidedByRequesterError(PermissionDeniedError, reason=ErrorReason.DECIDED_BY_REQUESTER):
    """Who asked for a cycle cannot decide on it; another principal has to."""


class RateLimitedError(ResourceExhaustedError, reason=ErrorReason.RATE_LIMITED):
    """The caller is over its limit."""


class StorageFullError(ResourceExhaustedError, reason=ErrorReason.STORAGE_FULL):
    """What the call needs to keep could not be written, for want of space."""


class CapabilityNotImplementedError(UnimplementedError, reason=ErrorReason.NOT_IMPLEMENTED):
    """The server does not offer this capability; nothing was done."""


class RuntimeNotReadyError(DeadlineExceededError, reason=ErrorReason.RUNTIME_NOT_READY):
    """The app did not become ready within the timeout; it runs on."""


class SupervisorUnreachableError(UnavailableError, reason=ErrorReason.SUPERVISOR_UNREACHABLE):
    """The supervisor that owns the app does not answer; the app may still run."""


class AuditUnavailableError(UnavailableError, reason=ErrorReason.AUDIT_UNAVAILABLE):
    """The audit record could not be written, so the call was not made."""


class ShuttingDownError(UnavailableError, reason=ErrorReason.SHUTTING_DOWN):
    """The server is shutting down; call again."""


class StreamStalledError(UnavailableError, reason=ErrorReason.STREAM_STALLED):
    """The stream was not read for 30 s; it goes on at its last cursor."""


class NoWorkingReleaseError(UnavailableError, reason=ErrorReason.NO_WORKING_RELEASE):
    """No release of ATT itself starts; its launcher says why, and tries again."""


class RepositoryUnavailableError(UnavailableError, reason=ErrorReason.REPOSITORY_UNAVAILABLE):
    """The project's remote or repository cannot be used now; `failure` in the metadata says why."""


# Found on this side


class NotReachableError(UnavailableError):
    """No server answers at the target.

    metadata: target, and source: what named it (an argument or a variable).
    """


class LogGapError(AttError):
    """Records are missing and `on_gap="raise"` was asked for.

    gap: what is missing and why. The follow's cursor lies behind it, so
    iterating again goes on.
    """

    def __init__(self, message: str, gap: LogGap) -> None:
        super().__init__(message)
        self.gap = gap

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message, self.gap)


class ProtocolError(AttError):
    """The server broke the contract: an answer that cannot be read, or a log
    whose sequence numbers have a hole or an overlap without a gap record."""


class ClosedError(AttError):
    """The client or the stream was closed on this side, or was never opened."""


class ConfigInvalidError(AttError):
    """A setting of the client is wrong; the message names it."""


def error_class(code: StatusCode, reason: str = "") -> type[AttError]:
    """The narrowest class for a reason, else for a code, else `AttError`."""
    return _BY_REASON.get(reason) or _BY_CODE.get(code) or AttError

"""Why version control could not do what it was asked."""

from __future__ import annotations

from enum import StrEnum


class RepositoryFailure(StrEnum):
    """Why the repository could not do what it was asked, apart from bad input."""

    REMOTE_UNREACHABLE = "remote_unreachable"
    REMOTE_AUTHENTICATION = "remote_authentication"
    REMOTE_NOT_FOUND = "remote_not_found"
    REMOTE_TIMED_OUT = "remote_timed_out"
    REMOTE_REFUSED = "remote_refused"
    """The remote's own rules (a protected branch, a hook) do not take the push."""
    PROTOCOL_NOT_ALLOWED = "protocol_not_allowed"
    NOT_FOUND = "not_found"
    """No such commit, tree or branch."""
    UNRELATED_HISTORIES = "unrelated_histories"
    """The commit and the base have no commit in common."""
    LOCKED = "locked"
    INTERRUPTED = "interrupted"
    """Somebody killed git in the middle."""
    TIMED_OUT = "timed_out"
    STORAGE_FULL = "storage_full"
    OUTPUT_TOO_LARGE = "output_too_large"
    CHANGED = "changed"
    """What was exported is no longer what it was."""
    DAMAGED = "damaged"
    GIT_MISSING = "git_missing"
    OTHER = "other"

    @property
    def external(self) -> bool:
        """Whether the cause lies outside the change: hold and retry, roll nothing back."""
        return self in {
            RepositoryFailure.REMOTE_UNREACHABLE,
            RepositoryFailure.REMOTE_AUTHENTICATION,
            RepositoryFailure.REMOTE_NOT_FOUND,
            RepositoryFailure.REMOTE_TIMED_OUT,
            RepositoryFailure.LOCKED,
            RepositoryFailure.INTERRUPTED,
            RepositoryFailure.STORAGE_FULL,
        }


class RepositoryError(Exception):
    """An operation failed; repeating it is safe. The message holds no password."""

    def __init__(self, failure: RepositoryFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
        self.message = message

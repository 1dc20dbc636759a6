"""What a cycle needs of version control: the port, what it takes and what it answers.

An id (`sha`) is always a full one: 40 or 64 lower-case hexadecimal digits. A
branch is named without `refs/heads/`. All commits a `Repository` makes are
functions of their arguments: repeated, they have the same id.
"""

from att_server.core.repository.change import (
    Change,
    DeleteFile,
    FileEdit,
    Patch,
    SetMode,
    WriteFile,
)
from att_server.core.repository.commits import (
    AppliedChange,
    ChangedPath,
    Commit,
    CommitNote,
    Identity,
    MergeMethod,
    is_sha,
)
from att_server.core.repository.failures import RepositoryError, RepositoryFailure
from att_server.core.repository.outcomes import (
    Conflict,
    Merged,
    Moved,
    NothingToRevert,
    Pushed,
    Removed,
    RevertCandidate,
    Reverted,
)
from att_server.core.repository.port import (
    Checkout,
    Repositories,
    Repository,
)

__all__ = [
    "AppliedChange",
    "Change",
    "ChangedPath",
    "Checkout",
    "Commit",
    "CommitNote",
    "Conflict",
    "DeleteFile",
    "FileEdit",
    "Identity",
    "MergeMethod",
    "Merged",
    "Moved",
    "NothingToRevert",
    "Patch",
    "Pushed",
    "Removed",
    "Repositories",
    "Repository",
    "RepositoryError",
    "RepositoryFailure",
    "RevertCandidate",
    "Reverted",
    "SetMode",
    "WriteFile",
    "is_sha",
]

"""What reading a project's code needs of version control: the port.

A tree is named by its own full id or by a commit's. A path is against the top
of the tree, its parts separated by `/`; what of it is no UTF-8 is given as lone
surrogates. A submodule is no file and not part of this.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

LETS_GO_WITHIN = timedelta(seconds=1)
"""What it may take until a cancelled call has ended what it had begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFile:
    """A file of a tree. Of a symbolic link, the content is its target."""

    path: str
    size_bytes: int
    executable: bool = False
    symlink: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Lines of a file. has_more: it goes on behind them."""

    file: CodeFile
    content: bytes = field(repr=False)
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A line that matches. line_number: from 1. line: without its end, and cut."""

    path: str
    line_number: int
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """What was found, by path and line. truncated: there may be more."""

    matches: tuple[Match, ...]
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A unified diff of two trees. truncated: it goes on."""

    diff: bytes = field(repr=False)
    truncated: bool


class CodeReader(Protocol):
    """Reads the code of one project, byte for byte as it is kept.

    Nothing that the code itself says is done: no filter, driver or conversion
    runs. All raise RepositoryError; NOT_FOUND for a tree that is not there.
    """

    async def resolve(self, name: str) -> str | None:
        """The commit of a branch or tag of the remote, brought here; None if there is neither.

        A branch comes before a tag of the same name. name: checked
        (`branch_names`).
        """
        ...

    async def commit(self, sha: str) -> str | None:
        """`sha` if it is a commit, brought here where it is not; None if there is none."""
        ...

    async def files(
        self, tree: str, *, directory: str, after: str, limit: int
    ) -> Sequence[CodeFile] | None:
        """Up to `limit` files below `directory` (empty: all) behind the path `after`, by path.

        By the bytes of their paths. None if there is no such directory.
        """
        ...

    async def read(
        self, tree: str, path: str, *, first_line: int, line_limit: int, max_bytes: int
    ) -> FilePart | None:
        """Whole lines from `first_line` on, counted from 1, as many as the bounds allow.

        line_limit: 0: no bound. A single line of more than `max_bytes` is cut.
        None if there is no such file.
        """
        ...

    async def search(
        self, tree: str, pattern: str, *, directory: str, limit: int, within: timedelta
    ) -> Matches | None:
        """Lines that match an RE2 pattern, up to `limit`.

        `^` and `$` are the ends of a line, which neither `.` nor anything else
        goes beyond. Binary files, links and very large files are left out. Ends
        after `within` with what was found. None if there is no such directory.
        """
        ...

    async def diff(
        self, base: str, head: str, *, paths: Collection[str], max_bytes: int
    ) -> Difference:
        """What differs between two trees in these files and directories (empty: all).

        Renames are shown as what they are, a removal and a new file; of binary and
        very large files it only says that they differ.
        """
        ...

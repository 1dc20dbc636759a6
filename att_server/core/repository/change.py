"""What a change asks of files: edits, or a patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Gives the file at `path` this content, byte for byte; makes it where there is none.

    executable: None keeps what the file is; a new one is not executable.
    """

    path: str
    content: bytes = field(repr=False)
    executable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFile:
    """Removes the file or symbolic link at `path`, which is there."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Makes the file at `path`, which is there, executable or not."""

    path: str
    executable: bool


FileEdit = WriteFile | DeleteFile | SetMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A unified diff against the top of the tree, its paths with one leading part (`a/`, `b/`)."""

    diff: bytes = field(repr=False)


Change = Sequence[FileEdit] | Patch

"""Which paths a change may touch, and how large it may be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from att_server.core.errors import AttError, Reason
from att_server.core.repository import DeleteFile, FileEdit, WriteFile

MAX_COMPONENT_BYTES = 255
MAX_PATH_BYTES = 4096
MAX_FILES = 10_000
MAX_TOTAL_BYTES = 100_000_000
"""Of the contents of all files that a change writes."""

# `.git` and the short names that Windows gives it, in whatever directory it lies.
_GITS = re.compile(r"\.git|git~\d+")
_SHOWN = 200  # characters of a path in a message


def path_violation(path: str) -> str | None:
    """The rule that `path`, against the top of the tree, breaks; None if it may be touched."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not path:
        return "is empty"
    if len(encoded) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES:,} bytes"
    if path.startswith("/"):
        return "is absolute; give it against the top of the tree"
    if "\\" in path:
        return "holds a backslash; separate its parts with /"
    if any(unicodedata.category(letter) == "Cc" for letter in path):
        return "holds a control character"
    for part in path.split("/"):
        if not part:
            return "has an empty part"
        if part in {".", ".."}:
            return "has a part . or .."
        if len(part.encode()) > MAX_COMPONENT_BYTES:
            return f"has a part of more than {MAX_COMPONENT_BYTES} bytes"
        if _is_git(part):
            return "has a part that some file system takes for .git"
    return None


def check_path(path: str) -> None:
    """Raises EDIT_PATH_INVALID if a change may not touch `path`."""
    if violation := path_violation(path):
        raise edit_refused(path, violation)


def check_edits(edits: Sequence[FileEdit]) -> None:
    """Raises EDIT_PATH_INVALID for the first edit that no tree could take, or for their size."""
    check_size(len(edits), sum(len(edit.content) for edit in edits if isinstance(edit, WriteFile)))
    seen: set[str] = set()
    for edit in edits:
        check_path(edit.path)
        if edit.path in seen:
            raise edit_refused(edit.path, "is edited twice")
        seen.add(edit.path)
    made = {edit.path for edit in edits if not isinstance(edit, DeleteFile)}
    for path in made:
        for parent in parents(path):
            if parent in made:
                raise edit_refused(path, "lies below another path of the change, which is a file")


def check_size(files: int, total_bytes: int) -> None:
    """Raises EDIT_PATH_INVALID for a change that is too large."""
    if files > MAX_FILES:
        raise _too_large(f"touches {files:,} files; at most {MAX_FILES:,} are taken")
    if total_bytes > MAX_TOTAL_BYTES:
        raise _too_large(f"writes {total_bytes:,} bytes; at most {MAX_TOTAL_BYTES:,} are taken")


def parents(path: str) -> Iterable[str]:
    """The directories above `path`, the top left out, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def edit_refused(path: str, why: str) -> AttError:
    """The error for a path that a change may not touch so. why: goes on from the path."""
    shown = ascii(path) if len(path) <= _SHOWN else f"{path[:_SHOWN]!a} …"
    return AttError(
        Reason.EDIT_PATH_INVALID,
        f"The path {shown} {why}. Correct the change and ask for it again.",
        path=shown,
    )


def _too_large(what: str) -> AttError:
    return AttError(
        Reason.EDIT_PATH_INVALID,
        f"The change {what}. Divide it into several changes.",
        path="",
    )


def _is_git(part: str) -> bool:
    # What file systems leave out or take for the same: HFS+ ignores format
    # characters and case, NTFS case, what follows a colon, dots and spaces at the end.
    visible = "".join(letter for letter in part if unicodedata.category(letter) != "Cf")
    folded = unicodedata.normalize("NFKC", visible).casefold()
    return _GITS.fullmatch(folded.partition(":")[0].rstrip(". ")) is not None

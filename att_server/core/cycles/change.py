"""A change as it is kept with its cycle, until EDIT has made a tree of it."""

from __future__ import annotations

import json
from typing import Any

from att_server.core.repository import Change, DeleteFile, FileEdit, Patch, SetMode, WriteFile


def encode_change(change: Change) -> bytes:
    """The change as bytes: a line of JSON that describes it, and the contents behind it."""
    if isinstance(change, Patch):
        return _joined({"patch": len(change.diff)}, [change.diff])
    written = [edit.content for edit in change if isinstance(edit, WriteFile)]
    return _joined({"edits": [_form(edit) for edit in change]}, written)


def decode_change(stored: bytes) -> Change:
    """The change that `encode_change` was given. Raises ValueError for anything else."""
    head, _, rest = stored.partition(b"\n")
    try:
        form = json.loads(head)
        contents = _Contents(rest)
        if "patch" in form:
            return Patch(diff=contents.take(form["patch"]))
        return [_edit(each, contents) for each in form["edits"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a change: {error}") from error


class _Contents:
    """What stands behind the description, in its order."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._position = 0

    def take(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if size < 0 or self._position > len(self._stored):
            raise ValueError("it was cut off")
        return self._stored[start : self._position]


def _joined(form: dict[str, Any], contents: list[bytes]) -> bytes:
    return b"".join([json.dumps(form).encode(), b"\n", *contents])


def _form(edit: FileEdit) -> dict[str, Any]:
    if isinstance(edit, WriteFile):
        form: dict[str, Any] = {"write": edit.path, "size": len(edit.content)}
        return form if edit.executable is None else {**form, "executable": edit.executable}
    if isinstance(edit, DeleteFile):
        return {"delete": edit.path}
    return {"mode": edit.path, "executable": edit.executable}


def _edit(form: dict[str, Any], contents: _Contents) -> FileEdit:
    if "write" in form:
        content = contents.take(form["size"])
        return WriteFile(path=form["write"], content=content, executable=form.get("executable"))
    if "delete" in form:
        return DeleteFile(path=form["delete"])
    return SetMode(path=form["mode"], executable=form["executable"])

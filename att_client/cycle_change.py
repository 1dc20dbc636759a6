"""What a cycle is to change, as a request holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from att_client._proto.att.v1 import CycleRequest, FileEdit
from att_client.errors import FieldInvalidError, FieldViolation

Edit = bytes | str | FileEdit | None
"""The whole new content of a file, text as UTF-8; None removes the file. A
`FileEdit` says more, such as `executable`."""

MAX_CHANGE_BYTES = 31 << 20
"""Of all paths and contents: a server takes requests of at most 32 MiB."""


def with_change(
    request: CycleRequest,
    *,
    edits: Mapping[str, Edit] | None,
    patch: bytes | str | None,
    commit: str | None,
) -> CycleRequest:
    """`request` with its change, of which exactly one is given; TypeError otherwise.

    Raises FieldInvalidError for one that no request can hold.
    """
    if [edits, patch, commit].count(None) != 2:
        raise TypeError("Give exactly one of `edits`, `patch` and `commit`.")
    if edits is not None:
        request = replace(request, edits=[_file_edit(path, edit) for path, edit in edits.items()])
    if patch is not None:
        request = replace(request, patch=patch.encode() if isinstance(patch, str) else patch)
    if commit is not None:
        request = replace(request, commit=commit)
    _check_size("cycle.edits", sum(len(e.path) + len(e.content or b"") for e in request.edits))
    _check_size("cycle.patch", len(request.patch))
    return request


def _file_edit(path: str, edit: Edit) -> FileEdit:
    match edit:
        case None:
            return FileEdit(path=path, delete_file=True)
        case str():
            return FileEdit(path=path, content=edit.encode())
        case FileEdit():
            if edit.path not in ("", path):
                raise TypeError(f"The edit of {path!r} names another path, {edit.path!r}.")
            return replace(edit, path=path)
        case bytes():
            return FileEdit(path=path, content=edit)
    raise TypeError(f"The edit of {path!r} is no bytes, text, FileEdit or None.")


def _check_size(field: str, size: int) -> None:
    if size > MAX_CHANGE_BYTES:
        rule = f"has {size:,} bytes; a request holds at most {MAX_CHANGE_BYTES:,}"
        raise FieldInvalidError(
            f"`{field}` {rule}. Nothing was sent. Push the change as a commit and give `commit`, "
            "or divide it into several changes.",
            reason="FIELD_INVALID",
            metadata={"field": field},
            violations=[FieldViolation(field=field, description=rule)],
        )

"""What `project_roots` may say, as a pydantic model; imported where it is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from att_server.adapters.server_document import ServerDocument
from att_server.adapters.toml_forms import valid
from att_server.core.settings_rules import MAX_PATH_BYTES

MAX_ROOTS = 100


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path or len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must be an absolute path of at most {MAX_PATH_BYTES:,} bytes")
    return path


class _Document(ServerDocument):
    project_roots: (
        Annotated[
            tuple[Annotated[str, AfterValidator(_absolute)], ...],
            Field(strict=False, max_length=MAX_ROOTS),
        ]
        | None
    ) = None


def project_roots(document: Mapping[str, Any]) -> Sequence[str] | None:
    """The directories of the server's settings; None: they say nothing. Raises Violations."""
    return valid(_Document, document).project_roots

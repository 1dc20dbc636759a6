"""A change that cannot be merged."""

from __future__ import annotations

from att_server.core.cycles.step import Failed, Leaves
from att_server.core.failure_class import FailureClass
from att_server.core.repository import Conflict

_SHOWN = 50


def merge_conflict(conflict: Conflict) -> Failed:
    """The failure for what conflicts with the base."""
    paths = ", ".join(
        path if path.isprintable() else ascii(path) for path in conflict.paths[:_SHOWN]
    )
    return Failed(
        failure_class=FailureClass.MERGE_CONFLICT,
        reason="merge_conflict",
        leaves=Leaves(
            evidence={
                "paths": paths,
                "error": "The base changed in the same places. Make the change anew on it.",
            }
        ),
    )

"""Cycles that deploy a commit which the base contains already."""

from __future__ import annotations

from att_server.core.cycles.model import Cycle


def is_on_base(cycle: Cycle) -> bool:
    """Whether the commit that was asked for is on the base, as PREPARE found."""
    facts = cycle.facts
    return bool(cycle.request.commit) and facts.merged_commit == cycle.request.commit

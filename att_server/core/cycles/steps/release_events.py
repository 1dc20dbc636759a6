"""The events that tell where a release is in its life."""

from __future__ import annotations

from att_server.core.model import Event
from att_server.core.releases import Release


def state_event(release: Release) -> Event:
    """The event `release.state`, for a release that has just got its state."""
    return Event(
        event_type="release.state",
        time=release.state_time,
        reason=release.reason,
        attributes={"release_id": release.release_id, "state": release.state},
    )

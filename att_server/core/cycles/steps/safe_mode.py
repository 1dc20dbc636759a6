"""The safe mode that a step puts its project into."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from att_server.core.cycles.model import Cycle, CycleStep
from att_server.core.cycles.runtime import Deployments
from att_server.core.model import Event, ProjectMode


async def enter_safe_mode(
    deployments: Deployments,
    cycle: Cycle,
    step: CycleStep,
    *,
    reason: str,
    message: str,
    time: datetime,
    unless: Collection[ProjectMode],
) -> None:
    """Puts the cycle's project into safe mode, and tells why.

    reason: in snake case. message: of the event at `time`. unless: modes that
    stay, with their reasons; FROZEN among them, as safe mode lets more happen.
    """
    project = deployments.project(cycle.project_id)
    if project.mode in unless:
        return
    await deployments.set_mode(
        project.project_id,
        ProjectMode.SAFE,
        reason,
        Event(
            event_type="project.mode",
            time=time,
            project_id=project.project_id,
            cycle_id=cycle.cycle_id,
            principal=cycle.requested_by,
            phase=step,
            reason=reason,
            message=message,
            attributes={"mode": ProjectMode.SAFE, "previous_mode": project.mode},
        ),
    )

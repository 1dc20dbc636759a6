"""FINALIZE: the release is good, and what it makes superfluous goes."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime

from att_server.core.cycles.artifacts import ArtifactStore
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import CycleKind, CycleStep, HealthStatus
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import Asked, Done, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.release_events import state_event
from att_server.core.errors import AttError
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event
from att_server.core.ports import Clock
from att_server.core.releases import Release, ReleaseState, removable
from att_server.core.repository import Repositories, RepositoryError

log = logging.getLogger(__name__)


class FinalizeStep(Step):
    """Marks the release GOOD, if its health was proven, and removes what retention lets go.

    What cannot be removed is told and tried again by the next cycle: it is no reason
    to take back a release that is healthy.
    """

    step = CycleStep.FINALIZE
    failure_class = FailureClass.INTERNAL
    interruptible = False

    def __init__(
        self,
        *,
        repositories: Repositories,
        artifacts: ArtifactStore,
        journal: CycleJournal,
        deployments: Deployments,
        clock: Clock,
    ) -> None:
        self._repositories = repositories
        self._artifacts = artifacts
        self._journal = journal
        self._deployments = deployments
        self._clock = clock

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`."""
        return "rollback_only" if asked.kind is CycleKind.ROLLBACK else ""

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        facts, now = work.cycle.facts, self._clock.now()
        releases = {
            each.release_id: each for each in await self._journal.releases(work.cycle.project_id)
        }
        changed: list[Release] = []
        events: list[Event] = []
        release = releases.get(facts.release_id)
        healthy = work.cycle.result.health_status is HealthStatus.HEALTHY
        if release is not None and release.state is ReleaseState.TRYING and healthy:
            # Before it is stored: what was told is told again, what was not is never made up for.
            await self._deployments.prove(work.cycle.project_id, release.release_id)
            good = release.good(now)
            releases[good.release_id] = good
            changed.append(good)
            events.append(state_event(good))
        try:
            removed = await self._remove(work, list(releases.values()), now)
        except (AttError, RepositoryError, OSError) as error:
            log.warning("old releases of %s stay: %s", work.cycle.project_id, error)
            events.append(
                Event(
                    event_type="error", time=now, reason="releases_not_removed", message=str(error)
                )
            )
        else:
            changed += removed
        evidence = {"release_id": facts.release_id} if facts.release_id else {}
        return Done(leaves=Leaves(releases=tuple(changed), events=tuple(events), evidence=evidence))

    async def _remove(
        self, work: StepWork, releases: Collection[Release], now: datetime
    ) -> list[Release]:
        """Removes the files that nothing needs; the records of their releases, changed."""
        project_id, own = work.cycle.project_id, work.cycle.facts.release_id
        # What the app runs from, and what the link names: as a rule the same.
        in_use = {own, work.project.release_id, await self._artifacts.current(project_id)}
        going = removable(
            releases,
            retention=work.settings.release.retention,
            current_release_id=own,
            pinned=in_use,
        )
        # No other cycle is active: what an earlier one staged and never tried is left.
        going += [
            each
            for each in releases
            if each.state is ReleaseState.STAGED
            and each.removed_time is None
            and each.release_id not in in_use
        ]
        here = await self._artifacts.staged(project_id)
        kept = {each.release_id for each in releases if each.removed_time is None} | in_use
        gone = [each for each in going if each.release_id in here]
        left = here - kept
        if gone or left:
            repository = await self._repositories.of(work.project)
            for release_id in (*(each.release_id for each in gone), *left):
                await self._artifacts.discard(project_id, release_id)
                await repository.unpin(release_id)
        return [each.removed(now) for each in going]

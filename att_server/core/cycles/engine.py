"""CycleEngine: every active cycle has one worker, in one server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from weakref import WeakValueDictionary

from att_server.core.background import Background
from att_server.core.bell import Bell
from att_server.core.cycles.course import reached_deploy
from att_server.core.cycles.journal import CycleJournal, Fenced
from att_server.core.cycles.leftovers import Leftovers
from att_server.core.cycles.model import Cycle
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import Step, steps_in_order
from att_server.core.cycles.worker import BACKOFF, CleansUp, CycleWorker, Tools
from att_server.core.errors import AttError
from att_server.core.ports import Clock

LEASE = timedelta(seconds=15)
RENEWALS = 3
"""Of a lease, in the time that it lasts: two may fail."""

CLEANED_LATER = tuple(timedelta(minutes=2**tries) for tries in range(8))
"""How long it is waited before each further try to close a pull request and remove a branch."""

_PAGE = 500

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Employed:
    worker: CycleWorker
    dismiss: Callable[[], object]


class CycleEngine:
    """Takes active cycles and carries each to its end.

    A lease keeps others away from what it has taken; should it lose one, as a
    process that was stopped for long does, its worker ends and nothing it still
    writes is taken.
    """

    def __init__(
        self,
        *,
        journal: CycleJournal,
        steps: Sequence[Step],
        deployments: Deployments,
        cleanup: CleansUp,
        leftovers: Leftovers | None,
        clock: Clock,
        background: Background,
        stored: Bell,
        owner: str,
        lease: timedelta = LEASE,
    ) -> None:
        """owner: names this engine among all that ever were. stored: rung for events.

        leftovers: cleared before a project's first step. Raises ValueError unless
        every step is there once.
        """
        self._journal = journal
        self._deployments = deployments
        self._leftovers = leftovers
        self._clock = clock
        self._background = background
        self._owner = owner
        self._lease = lease
        self._tools = Tools(
            journal=journal,
            steps={step.step: step for step in steps_in_order(steps)},
            deployments=deployments,
            cleanup=cleanup,
            clock=clock,
            stored=stored,
        )
        self._taken: list[Cycle] = []
        self._beginning = asyncio.Lock()
        self._employed: dict[str, _Employed] = {}
        self._bells: WeakValueDictionary[str, Bell] = WeakValueDictionary()

    # Life -------------------------------------------------------------------

    async def open(self, *, alone: bool = True) -> None:
        """Takes all active cycles and holds the projects that they may have their hands on.

        alone: no other engine lives, whatever leases say: the state directory is
        locked. Called once, before the apps are looked after.
        """
        for cycle in await self._active():
            if reached_deploy(cycle):
                await self._hold(cycle)
            try:
                taken = await self._take(cycle.cycle_id, force=alone)
            except AttError as error:
                log.warning("cycle %s is taken later: %s", cycle.cycle_id, error.message)
                continue
            if taken is not None:
                self._taken.append(taken)

    def resume(self, projects: Collection[str] = ()) -> None:
        """Goes on with what was taken, and with what comes.

        projects: are cleared of what ended cycles left.
        """
        taken, self._taken = self._taken, []
        for cycle in taken:
            self._employ(cycle)
        self._background.start("leases of cycles", self._keep)
        self._background.start("leftovers of cycles", lambda: self._clear(projects))

    async def begin(self, cycle_id: str) -> None:
        """Goes on with a cycle that was stored now; without effect if it is worked on.

        One that cannot be taken now is taken when leases are renewed.
        """
        # One at a time: taken twice, the first worker would be fenced by the second.
        async with self._beginning:
            if cycle_id in self._employed:
                return
            try:
                taken = await self._take(cycle_id, force=False)
            except AttError as error:
                log.warning("cycle %s is taken later: %s", cycle_id, error.message)
                return
            if taken is not None:
                self._employ(taken)

    # Watching ---------------------------------------------------------------

    def ask(self, cycle_id: str) -> None:
        """Has the cycle's worker look for what a call has written, and wakes who watches."""
        employed = self._employed.get(cycle_id)
        if employed is not None:
            employed.worker.ask()
        self.changed(cycle_id).ring()

    def changed(self, cycle_id: str) -> Bell:
        """Is rung after every change of the cycle, for as long as somebody keeps it."""
        return self._bells.setdefault(cycle_id, Bell())

    # Workers ----------------------------------------------------------------

    def _employ(self, cycle: Cycle) -> None:
        cycle_id = cycle.cycle_id
        worker = CycleWorker(cycle, self._tools, changed=self.changed(cycle_id))
        dismiss = self._background.start(f"cycle {cycle_id}", lambda: self._carry(worker))
        self._employed[cycle_id] = _Employed(worker, dismiss)

    async def _carry(self, worker: CycleWorker) -> None:
        """Has the worker work; a defect in it does not end the cycle, but is tried again."""
        cycle_id, project_id = worker.cycle.cycle_id, worker.cycle.project_id
        wait = BACKOFF[0]
        try:
            if self._leftovers is not None:
                await self._leftovers.clear(project_id)
            while True:
                try:
                    await worker.run()
                    self._see_to_remote(worker.cycle)
                    return
                except Fenced:
                    log.warning("another engine has taken cycle %s", cycle_id)
                    self._deployments.let_go(project_id)
                    return
                except AttError as error:
                    log.warning("cycle %s is tried again: %s", cycle_id, error.message)
                except Exception:
                    log.exception("defect in cycle %s", cycle_id)
                await self._clock.sleep(wait)
                wait = min(2 * wait, BACKOFF[1])
        finally:
            self._employed.pop(cycle_id, None)

    def _see_to_remote(self, cycle: Cycle) -> None:
        """Has what others see of an ended cycle removed later, where it could not be at its end."""
        leftovers = self._leftovers
        if leftovers is None or cycle.facts.cleaned_up:
            return

        async def remove() -> None:
            for wait in CLEANED_LATER:
                await self._clock.sleep(wait)
                if await leftovers.clean_up_remote(cycle):
                    return

        self._background.start(f"cleanup of cycle {cycle.cycle_id}", remove)

    async def _keep(self) -> None:
        """Renews the leases, dismisses who has lost one, and takes what nobody has."""
        while True:
            await self._clock.sleep(self._lease / RENEWALS)
            # Taken meanwhile is not in the answer, and not lost either.
            known = set(self._employed)
            try:
                kept = await self._journal.renew(self._owner, lease=self._lease)
                for cycle_id in known - kept:
                    self._dismiss(cycle_id)
                # Of its own, those that no worker is left of; of the others', what is free.
                for cycle_id in [*(kept - known), *await self._journal.untaken()]:
                    await self.begin(cycle_id)
            except AttError as error:
                log.warning("leases of cycles are not renewed: %s", error.message)

    def _dismiss(self, cycle_id: str) -> None:
        employed = self._employed.get(cycle_id)
        if employed is not None and not employed.worker.cycle.ended:
            log.warning("the lease of cycle %s is lost", cycle_id)
            employed.dismiss()
            self._deployments.let_go(employed.worker.cycle.project_id)

    async def _take(self, cycle_id: str, *, force: bool) -> Cycle | None:
        return await self._journal.take(cycle_id, self._owner, lease=self._lease, force=force)

    async def _hold(self, cycle: Cycle) -> None:
        try:
            await self._deployments.hold(cycle.project_id)
        except AttError as error:
            log.warning("cycle %s cannot hold its project: %s", cycle.cycle_id, error.message)

    async def _active(self) -> list[Cycle]:
        """All active cycles, the oldest first."""
        found: list[Cycle] = []
        before = ""
        while True:
            page = await self._journal.cycles(active_only=True, limit=_PAGE, before=before)
            found += page
            if len(page) < _PAGE:
                return found[::-1]
            before = page[-1].cycle_id

    async def _clear(self, projects: Collection[str]) -> None:
        if self._leftovers is not None:
            # Local things first, which is quick; a remote may take its time.
            for project_id in projects:
                await self._leftovers.clear(project_id)
            for project_id in projects:
                await self._leftovers.clean_up_ended(project_id)

"""PULL_REQUEST: the change can be looked at."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.commit_note import change_message
from att_server.core.cycles.forge import Forges
from att_server.core.cycles.model import CycleStep
from att_server.core.cycles.starting_point import COMMIT_IS_ON_BASE
from att_server.core.cycles.step import Asked, Done, Leaves, Skipped, Step, StepEnd, StepWork
from att_server.core.cycles.steps.on_base import is_on_base
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event


class PullRequestStep(Step):
    """Finds the cycle's pull request, or opens it."""

    step = CycleStep.PULL_REQUEST
    failure_class = FailureClass.PR_FAILURE
    interruptible = True

    def __init__(self, *, forges: Forges) -> None:
        self._forges = forges

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`."""
        return "" if asked.settings.create_pr else "create_pr_disabled"

    async def run(self, work: StepWork) -> StepEnd:
        """Opens it at the forge."""
        if is_on_base(work.cycle):
            return Skipped(reason=COMMIT_IS_ON_BASE)
        cycle = work.cycle
        title, _, rest = change_message(cycle, cycle.request.edited_paths).strip().partition("\n")
        forge = await self._forges.of(work.project, cycle)
        found = await forge.open_pull_request(
            title=title[:200],
            body=f"{rest.strip()}\n\nATT cycle {cycle.cycle_id}, requested by "
            f"{cycle.requested_by}".strip(),
        )
        evidence = {"url": found.url, "number": str(found.number), "commit": cycle.facts.commit}
        event = Event(event_type="git.pr.created", time=work.now, attributes=evidence)
        return Done(
            leaves=Leaves(
                facts=replace(cycle.facts, pull_request=found.url),
                result=replace(cycle.result, pr_url=found.url),
                evidence=evidence,
                events=() if cycle.facts.pull_request else (event,),
            )
        )

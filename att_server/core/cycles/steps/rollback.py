"""ROLLBACK: back to the release before, if the policy allows it, and a look whether it works."""

from __future__ import annotations

from dataclasses import replace

from att_server.core.cycles.executors import (
    RollbackExecutors,
)
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import (
    Cycle,
    CycleKind,
    CycleResult,
    CycleStep,
)
from att_server.core.cycles.rollback_question import RollbackQuestions
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import Done, Failed, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.returning import Returning
from att_server.core.cycles.steps.safe_mode import enter_safe_mode
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event, ProjectMode
from att_server.core.ports import Clock
from att_server.core.releases import Release, ReleaseState
from att_server.core.rollback_policy import (
    Executor,
    Question,
    enters_safe_mode,
    evaluate,
)
from att_server.core.rollback_verdict import Verdict

ROLLBACK_FAILED = "rollback_failed"
"""Why the project is in safe mode: the release that was returned to does not run, or ATT
cannot tell."""
ROLLED_BACK = "rolled_back"
"""Why a release is BAD that nothing but a person's rollback speaks against."""


class RollbackStep(Step):
    """Asks the policy, and does what its verdict says and nothing else.

    The verdict is stored before anything is done, with the release that failed
    as BAD; a repeat goes by the stored verdict. The switch follows at once. The
    release that is returned to has to be healthy as any other, without a bake
    time; where that cannot be told in its time, it is not taken for healthy. There is no
    rollback of a rollback: one that fails puts the project into safe mode.
    """

    step = CycleStep.ROLLBACK
    failure_class = FailureClass.DEPLOY_FAILURE
    interruptible = False

    def __init__(
        self,
        *,
        journal: CycleJournal,
        questions: RollbackQuestions,
        executors: RollbackExecutors,
        deployments: Deployments,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._questions = questions
        self._deployments = deployments
        self._clock = clock
        self._returning = Returning(executors=executors, deployments=deployments, clock=clock)

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        cycle = work.cycle
        verdict = cycle.result.rollback_verdict
        if not cycle.result.rollback_performed or verdict is None:
            question = await self._questions.of_cycle(cycle, work.project, work.settings)
            verdict = evaluate(question)
            if verdict.target is None or question.executor is None:
                return await self._denied(work, question, verdict)
            cycle = await self._begin(work, question, verdict, question.executor)
        return await self._carry_out(work, cycle, verdict)

    # The verdict ------------------------------------------------------------

    async def _denied(self, work: StepWork, question: Question, verdict: Verdict) -> StepEnd:
        cycle = work.cycle
        if enters_safe_mode(question, verdict):
            await self._enter_safe_mode(
                work,
                verdict.reason,
                f"A rollback was wanted and denied ({verdict.reason}). What runs stays, and "
                "nothing automatic happens, until an admin sets the mode back.",
            )
        # A person who may not roll back says nothing against the release.
        bad = () if question.failure is None else self._bad(question)
        return Failed(
            failure_class=self._class(cycle),
            reason=verdict.reason,
            leaves=Leaves(
                result=_judged(cycle, question, verdict),
                releases=bad,
                events=(self._policy_event(question, verdict), *map(self._bad_event, bad)),
                evidence={"policy": verdict.reason},
            ),
        )

    async def _begin(
        self, work: StepWork, question: Question, verdict: Verdict, executor: Executor
    ) -> Cycle:
        """Stores that it begins, and everything that a repeat has to know."""
        cycle = work.cycle
        status = self._deployments.runtime(cycle.project_id).status
        sources = dict(cycle.result.release_metadata_source)
        target_id = "" if verdict.target is None else verdict.target.release_id
        if verdict.target is not None:
            sources.setdefault("previous_release_id", verdict.target.source)
        facts = replace(
            cycle.facts,
            release_before=cycle.facts.release_before or question.deployed_release_id,
            rollback_run_before="" if status is None else status.run_id,
            lost_runs=0,
        )
        if cycle.kind is CycleKind.ROLLBACK:
            facts = replace(facts, release_before=question.deployed_release_id)
        result = replace(
            _judged(cycle, question, verdict),
            rollback_performed=True,
            release_metadata_source=sources,
        )
        bad = self._bad(question)
        leaves = Leaves(
            facts=facts,
            result=result,
            releases=bad,
            evidence={"policy": verdict.reason, "executor": executor},
            events=(
                self._policy_event(question, verdict),
                *map(self._bad_event, bad),
                Event(
                    event_type="rollback.started",
                    time=self._clock.now(),
                    reason=result.rollback_failure_class or ROLLED_BACK,
                    message=f"Rolling back from {question.deployed_release_id} to {target_id}.",
                    attributes={
                        "release_id": question.deployed_release_id,
                        "target_release_id": target_id,
                        "executor": executor,
                    },
                ),
            ),
        )
        await work.note(leaves)
        return replace(cycle, facts=facts, result=result)

    # What it says is done -----------------------------------------------------

    async def _carry_out(self, work: StepWork, cycle: Cycle, verdict: Verdict) -> StepEnd:
        target = cycle.result.rollback_target_release_id
        cycle, outcome = await self._returning.to(work, cycle, target)
        succeeded = not outcome.reason
        result = replace(cycle.result, rollback_succeeded=succeeded)
        if not succeeded:
            await self._enter_safe_mode(work, ROLLBACK_FAILED, outcome.message)
            return Failed(
                failure_class=self._class(cycle),
                reason=outcome.reason,
                leaves=Leaves(
                    facts=cycle.facts,
                    result=result,
                    evidence={**outcome.evidence, "error": outcome.message},
                    log_tail=outcome.log_tail,
                ),
            )
        return Done(
            leaves=Leaves(
                facts=cycle.facts,
                result=result,
                evidence=outcome.evidence,
                releases=await self._deployed_again(cycle, target),
                events=(
                    Event(
                        event_type="rollback.completed",
                        time=self._clock.now(),
                        run_id=cycle.facts.rollback_run_id,
                        reason=verdict.reason,
                        message=outcome.message,
                        attributes={"target_release_id": target, **outcome.evidence},
                    ),
                ),
            )
        )

    async def _deployed_again(self, cycle: Cycle, target: str) -> tuple[Release, ...]:
        """The record of the target, as the one that was switched to now."""
        now = self._clock.now()
        for release in await self._journal.releases(cycle.project_id):
            if release.release_id != target or release.state is ReleaseState.BAD:
                continue
            if release.state is ReleaseState.STAGED:
                # Allowed as an unproven target: this was its one try.
                release = release.trying(1, now).started()
            return (release.deployed(now),)
        return ()

    def _class(self, cycle: Cycle) -> FailureClass:
        """Of the failure that it is all about; a person's rollback deploys, and that failed."""
        return self.failure_class if cycle.failure is None else cycle.failure.failure_class

    # Telling ----------------------------------------------------------------

    async def _enter_safe_mode(self, work: StepWork, reason: str, message: str) -> None:
        await enter_safe_mode(
            self._deployments,
            work.cycle,
            self.step,
            reason=reason,
            message=message,
            time=self._clock.now(),
            unless=(ProjectMode.SAFE, ProjectMode.FROZEN),
        )

    def _policy_event(self, question: Question, verdict: Verdict) -> Event:
        candidate = verdict.candidate
        return Event(
            event_type="rollback.policy",
            time=self._clock.now(),
            reason=verdict.reason,
            message=f"The rollback is {verdict.status}: {verdict.reason}.",
            attributes={
                "status": verdict.status,
                "trigger": question.trigger,
                "release_id": question.deployed_release_id,
                "target_release_id": "" if candidate is None else candidate.release_id,
                "target_source": "" if candidate is None else candidate.source,
            },
        )

    def _bad(self, question: Question) -> tuple[Release, ...]:
        """The release that is left or failed, as BAD: it is not deployed again by itself.

        Not for a cause outside, which says nothing about it.
        """
        failure = question.failure
        if failure is not None and failure.external:
            return ()
        reason = ROLLED_BACK if failure is None else str(failure.failure_class)
        release = question.release(question.deployed_release_id)
        if release is None or release.state not in (ReleaseState.TRYING, ReleaseState.GOOD):
            return ()
        return (release.bad(reason, self._clock.now()),)

    def _bad_event(self, bad: Release) -> Event:
        return Event(
            event_type="release.state",
            time=self._clock.now(),
            reason=bad.reason,
            message=f"The release {bad.release_id} is BAD: {bad.reason}.",
            attributes={"release_id": bad.release_id, "state": bad.state},
        )


def _judged(cycle: Cycle, question: Question, verdict: Verdict) -> CycleResult:
    """The result, with what the policy said."""
    candidate = verdict.candidate
    return replace(
        cycle.result,
        rollback_policy_status=verdict.status,
        rollback_policy_reason=verdict.reason,
        rollback_target_release_id="" if candidate is None else candidate.release_id,
        rollback_target_valid=verdict.target_valid,
        rollback_failure_class=(
            "" if question.failure is None else str(question.failure.failure_class)
        ),
        rollback_deployment_context=question.context,
        rollback_verdict=verdict,
    )

"""DEPLOY: the app runs from the release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import (
    CycleFacts,
    CycleKind,
    CycleStep,
)
from att_server.core.cycles.project_commands import (
    ProjectCommands,
    command_evidence,
    command_failure,
)
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import Asked, Done, Failed, Held, Leaves, Step, StepEnd, StepWork
from att_server.core.cycles.steps.evidence import app_tail
from att_server.core.cycles.steps.release_events import state_event
from att_server.core.cycles.steps.stage import release_commit
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import FailureClass
from att_server.core.model import Event, RunStatus, RuntimeState
from att_server.core.ports import Clock
from att_server.core.releases import DeploymentContext, Release, ReleaseState

_STARTS_WITHIN = timedelta(seconds=30)
_MAX_PAST = 32
"""How many runs before the present one a supervisor remembers at most."""
_EXTERNAL_CAUSES = frozenset({Reason.STORAGE_FULL, Reason.SUPERVISOR_UNREACHABLE})


class DeployStep(Step):
    """Switches to the release, once: a run of it that is there already is the one it began.

    What can be found wrong with the release without running it is found before
    anything is switched, and then nothing was. In an external context a command
    deploys; it may be run again after a kill, and has to bear that.
    """

    step = CycleStep.DEPLOY
    failure_class = FailureClass.DEPLOY_FAILURE
    interruptible = False

    def __init__(
        self,
        *,
        deployments: Deployments,
        journal: CycleJournal,
        commands: ProjectCommands,
        clock: Clock,
        inherited_env: Mapping[str, str],
    ) -> None:
        """inherited_env: what commands get of the server's environment."""
        self._deployments = deployments
        self._journal = journal
        self._commands = commands
        self._clock = clock
        self._inherited_env = inherited_env

    def skip_reason(self, asked: Asked) -> str:
        """See `Step`. An external context is deployed to by a command, if there is one."""
        if asked.kind is CycleKind.ROLLBACK:
            return "rollback_only"
        command = asked.settings.external.deploy_command
        return "external_context" if asked.external and not command else ""

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        if work.cycle.request.deployment_context is DeploymentContext.EXTERNAL:
            return await self._deploy_elsewhere(work)
        project_id, facts = work.cycle.project_id, work.cycle.facts
        await self._deployments.hold(project_id)
        if facts.run_before is not None:
            status = await self._settled(project_id)
            if run_id := run_begun(status, facts.run_before, facts.release_id):
                return self._done(work, facts, run_id)
        return await self._deploy_here(work, facts)

    async def _deploy_here(self, work: StepWork, facts: CycleFacts) -> StepEnd:
        project_id, release_id = work.cycle.project_id, facts.release_id
        untried = await self._release(project_id, release_id)
        if untried is None:
            raise LookupError(f"release {release_id} of {project_id} is not in the registry")
        try:
            await self._deployments.check_release(project_id, release_id)
        except AttError as error:
            return self._refused(error, Leaves())
        broken_off = _is_spent(work, untried) and not self._has_run(work)
        if broken_off and facts.lost_runs < self._deployments.max_lost_runs(project_id):
            # Counted before, so that no crash makes it one more.
            facts = replace(facts, lost_runs=facts.lost_runs + 1)
            release: Release | None = untried.deployed(work.now)
        else:
            release = self._tried(work, untried)
        if release is None:
            return _failed("tries_exhausted", Leaves(evidence={"release_id": release_id}))
        if facts.run_before is None:
            status = self._deployments.runtime(project_id).status
            facts = replace(
                facts,
                cut_over=True,
                run_before="" if status is None else status.run_id,
                release_before=self._deployments.project(project_id).release_id,
            )
        changed = () if release.state is untried.state else (state_event(release),)
        await work.note(Leaves(facts=facts, releases=(release,), events=changed))
        try:
            run = await self._deployments.switch(
                project_id, release_id, cycle_id=work.cycle.cycle_id
            )
        except AttError as error:
            # A start that something outside kept from happening is no try.
            tail = await app_tail(self._deployments, project_id)
            kept = Leaves(log_tail=tail)
            if error.reason in _EXTERNAL_CAUSES:
                before = replace(facts, lost_runs=work.cycle.facts.lost_runs)
                kept = replace(kept, facts=before, releases=(untried,))
            return self._refused(error, kept)
        except OSError as error:
            return Held(
                reason="storage_error",
                leaves=Leaves(releases=(untried,), evidence={"error": str(error)}),
            )
        return self._done(work, facts, run.run_id)

    def _tried(self, work: StepWork, release: Release) -> Release | None:
        """The release with one more start; None where it has had all of its tries."""
        if release.state is ReleaseState.STAGED:
            release = release.trying(work.settings.release.tries, work.now)
        if release.state is ReleaseState.TRYING:
            if not release.tries_left:
                return None
            release = release.started()
        return release.deployed(work.now)

    def _has_run(self, work: StepWork) -> bool:
        """Whether a run of the release has begun and was not lost with its supervisor."""
        status = self._deployments.runtime(work.cycle.project_id).status
        facts = work.cycle.facts
        if status is None or status.run_id == facts.run_before:
            return False
        lost = status.exit is not None and status.exit.supervisor_lost
        return status.release_id == facts.release_id and not lost

    async def _settled(self, project_id: str) -> RunStatus | None:
        """The state of the app, once a start that goes on is over."""
        deadline = self._clock.monotonic() + _STARTS_WITHIN.total_seconds()
        while True:
            status = self._deployments.runtime(project_id).status
            left = deadline - self._clock.monotonic()
            if status is None or status.state is not RuntimeState.STARTING or left <= 0:
                return status
            await self._deployments.changed(project_id, timedelta(seconds=left))

    async def _release(self, project_id: str, release_id: str) -> Release | None:
        known = await self._journal.releases(project_id)
        return next((each for each in known if each.release_id == release_id), None)

    # Elsewhere --------------------------------------------------------------

    async def _deploy_elsewhere(self, work: StepWork) -> StepEnd:
        cycle, external = work.cycle, work.settings.external
        commit = release_commit(cycle.facts)
        release_id = cycle.request.requested_release_id or commit
        release = await self._release(cycle.project_id, release_id)
        if release is None:
            release = Release(
                release_id=release_id,
                project_id=cycle.project_id,
                tree_sha=cycle.facts.merged_tree or cycle.facts.tree,
                cycle_id=cycle.cycle_id,
                state_time=work.now,
                create_time=work.now,
                data_version=work.settings.release.data_version,
                min_data_version=work.settings.release.min_data_version,
            )
        if release.state is ReleaseState.BAD:
            if not cycle.request.override_bad:
                return Failed(
                    failure_class=FailureClass.STAGE_FAILURE,
                    reason="release_marked_bad",
                    leaves=Leaves(
                        evidence={"bad_release_id": release_id, "bad_reason": release.reason}
                    ),
                )
            release = release.pardoned(work.now)
        tried = self._tried(work, release)
        if tried is None:
            return _failed("tries_exhausted", Leaves(evidence={"release_id": release_id}))
        facts = replace(cycle.facts, release_id=release_id, cut_over=True)
        started = Event(
            event_type="deploy.started",
            time=self._clock.now(),
            attributes={"release_id": release_id, "deploy_target": cycle.request.deploy_target},
        )
        changed = () if tried.state is release.state else (state_event(tried),)
        await work.note(Leaves(facts=facts, releases=(tried,), events=(*changed, started)))

        async def directory() -> Path:
            return work.project.path

        result, _ = await self._commands.run(
            (*external.deploy_command, cycle.project_id, cycle.request.deploy_target, release_id),
            directory=directory,
            env=command_env(
                self._inherited_env, {}, project_id=cycle.project_id, cycle_id=cycle.cycle_id
            ),
            timeout=external.timeout,
        )
        leaves = Leaves(evidence=command_evidence(result), log_tail=result.output)
        if reason := command_failure(result):
            return _failed(reason, leaves)
        done = self._done(work, facts, "")
        return replace(done, leaves=replace(done.leaves, log_tail=result.output))

    # Ends -------------------------------------------------------------------

    def _done(self, work: StepWork, facts: CycleFacts, run_id: str) -> Done:
        now = self._clock.now()
        completed = Event(
            event_type="deploy.completed",
            time=now,
            run_id=run_id,
            attributes={"release_id": facts.release_id, "release_before": facts.release_before},
        )
        return Done(
            leaves=Leaves(
                facts=replace(facts, deploy_run_id=run_id, deploy_time=facts.deploy_time or now),
                result=replace(work.cycle.result, deployed_release_id=facts.release_id),
                evidence={"release_id": facts.release_id, "run_id": run_id},
                events=(completed,),
            )
        )

    def _refused(self, error: AttError, leaves: Leaves) -> StepEnd:
        """How the step ends by what the runtime raised."""
        leaves = replace(leaves, evidence={"error": error.message})
        reason = str(error.metadata.get("cause") or error.reason).lower()
        if error.reason in _EXTERNAL_CAUSES:
            return Held(reason=error.reason.lower(), leaves=leaves)
        return _failed(reason, leaves)


def run_begun(status: RunStatus | None, run_before: str, release_id: str) -> str:
    """The run that an earlier attempt began in place of `run_before`; empty: it did not.

    Runs that its supervisor began by itself since are not it, nor is one that was
    lost with its supervisor or could not be started: that is begun anew.
    """
    if status is None or status.release_id != release_id or not status.run_id:
        return ""
    runs = [past.run_id for past in status.past] + [status.run_id]
    if run_before in runs or len(status.past) >= _MAX_PAST:
        return ""
    lost = status.exit is not None and status.exit.supervisor_lost
    if lost or status.start_failure or status.state is RuntimeState.STOPPED:
        return ""
    return runs[0]


def _is_spent(work: StepWork, release: Release) -> bool:
    """Whether this cycle has begun a try of the release, and did not get to its end."""
    tried = release.deploy_time if release.state is ReleaseState.TRYING else None
    return tried is not None and tried >= work.cycle.create_time


def _failed(reason: str, leaves: Leaves) -> Failed:
    return Failed(failure_class=FailureClass.DEPLOY_FAILURE, reason=reason, leaves=leaves)

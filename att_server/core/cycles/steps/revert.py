"""REVERT: the base no longer contains what was rolled back; else the next cycle would ship it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from att_server.core.cycles.admission import BASE_CONTAINS_BAD_CHANGE
from att_server.core.cycles.commit_note import commit_note, merge_note
from att_server.core.cycles.course import merge_in_doubt
from att_server.core.cycles.forge import ForgeRefused, Forges
from att_server.core.cycles.journal import CycleJournal
from att_server.core.cycles.model import Cycle, CycleKind, CycleStep
from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.step import (
    Done,
    Failed,
    Held,
    Leaves,
    Skipped,
    Step,
    StepEnd,
    StepWork,
)
from att_server.core.cycles.steps.safe_mode import enter_safe_mode
from att_server.core.cycles.steps.under_test import under_test
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import ExternalCause, FailureClass
from att_server.core.model import Event, ProjectMode
from att_server.core.ports import Clock
from att_server.core.releases import Release
from att_server.core.repository import (
    Conflict,
    Moved,
    Repositories,
    Repository,
    RepositoryError,
    RepositoryFailure,
    Reverted,
    is_sha,
)

_LOOKS = 5
"""At a base that moves while the merge is undone; after that it is waited."""
_HOLDING = frozenset({Reason.STORAGE_FULL, Reason.SUPERVISOR_UNREACHABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """What a cycle brought into the base."""

    before: str
    after: str
    cycle_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _NothingToUndo:
    reason: str


class _CannotUndo(Exception):
    """The base keeps the bad change. The text says why, and what a person can do."""

    def __init__(self, cause: str, message: str, **evidence: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.evidence = evidence


class RevertStep(Step):
    """Undoes merges of cycles on the base, by compare-and-swap; nobody else's commits.

    For a person's rollback these are the merges of all releases between the two.
    An outage holds the cycle for as long as it takes. What cannot be undone puts
    the project into safe mode.
    """

    step = CycleStep.REVERT
    failure_class = FailureClass.MERGE_FAILURE
    interruptible = False

    def __init__(
        self,
        *,
        repositories: Repositories,
        forges: Forges,
        journal: CycleJournal,
        deployments: Deployments,
        clock: Clock,
    ) -> None:
        self._repositories = repositories
        self._forges = forges
        self._journal = journal
        self._deployments = deployments
        self._clock = clock

    async def run(self, work: StepWork) -> StepEnd:
        """See `Step.run`."""
        try:
            return await self._run(work)
        except _CannotUndo as error:
            return await self._blocked(work, error)
        except RepositoryError as error:
            if error.failure.external:
                raise
            return await self._blocked(work, _CannotUndo(error.failure, error.message))
        except ForgeRefused as error:
            return await self._blocked(work, _CannotUndo(error.reason, error.message))
        except AttError as error:
            if error.reason in _HOLDING:
                raise
            return await self._blocked(work, _CannotUndo(error.reason.lower(), error.message))

    async def _run(self, work: StepWork) -> StepEnd:
        repository = await self._repositories.of(work.project)
        if work.cycle.kind is CycleKind.ROLLBACK:
            found = await self._merges_between(work, repository)
        else:
            found = await self._own_merge(work, repository)
        if isinstance(found, _NothingToUndo):
            return Skipped(reason=found.reason)
        commits: list[str] = []
        for merge in found:
            commit = await self._undo(work, merge)
            if commit is None:
                return Held(reason="base_keeps_moving", external_cause=ExternalCause.REMOTE)
            commits.append(commit)
        return self._done(work, found, commits)

    # What is to be undone -----------------------------------------------------

    async def _own_merge(
        self, work: StepWork, repository: Repository
    ) -> Sequence[_Merge] | _NothingToUndo:
        cycle, facts = work.cycle, work.cycle.facts
        if facts.merged_here and facts.merged_commit:
            return [_merge(cycle)]
        if facts.merged_commit:
            target = cycle.result.rollback_target_release_id
            if await _contains(repository, target, facts.merged_commit):
                # An older commit was deployed again: what runs contains it, too.
                return _NothingToUndo(reason="target_contains_it")
            raise _CannotUndo(
                "not_merged_here",
                f"The commit {facts.merged_commit} is on {facts.base_branch}, and it was not this "
                "cycle that merged it. Undo it there, then set the mode back.",
                commit=facts.merged_commit,
            )
        if merge_in_doubt(cycle) and facts.commit:
            return await self._merge_in_doubt(work)
        return _NothingToUndo(reason="nothing_was_merged")

    async def _merge_in_doubt(self, work: StepWork) -> Sequence[_Merge] | _NothingToUndo:
        """MERGE was broken off: the forge is asked what became of it."""
        cycle, facts = work.cycle, work.cycle.facts
        forge = await self._forges.of(work.project, cycle)
        found = await forge.find_merge(
            facts.commit,
            expected=under_test(facts).base,
            note=merge_note(cycle, work.settings),
        )
        if found is None:
            return _NothingToUndo(reason="nothing_was_merged")
        if not found.ours:
            raise _CannotUndo(
                "not_merged_here",
                f"{facts.base_branch} contains the change {facts.commit}, and not by a merge of "
                "this cycle. Undo it there, then set the mode back.",
                commit=facts.commit,
            )
        return [_Merge(before=found.before, after=found.commit, cycle_id=cycle.cycle_id)]

    async def _merges_between(
        self, work: StepWork, repository: Repository
    ) -> Sequence[_Merge] | _NothingToUndo:
        """The merges of the releases that a person rolled back from, the newest first."""
        left, target = work.cycle.facts.release_before, work.cycle.result.rollback_target_release_id
        if await _contains(repository, target, left):
            return _NothingToUndo(reason="target_contains_it")
        releases = {
            each.release_id: each for each in await self._journal.releases(work.cycle.project_id)
        }
        merges = []
        between = [left] + [
            release.release_id
            for release in sorted(releases.values(), key=_age, reverse=True)
            if release.release_id not in (left, target)
            and await _contains(repository, left, release.release_id)
            and not await _contains(repository, target, release.release_id)
        ]
        for release_id in between:
            known = releases.get(release_id)
            cycle = await self._journal.cycle(known.cycle_id) if known is not None else None
            if cycle is not None and cycle.facts.merged_here and cycle.facts.merged_commit:
                if not cycle.result.reverted:
                    merges.append(_merge(cycle))
            elif release_id == left:
                raise _CannotUndo(
                    "not_merged_here",
                    f"No cycle is known that merged the release {left}. Undo it on the base, then "
                    "set the mode back.",
                    release_id=left,
                )
        return merges or _NothingToUndo(reason="already_reverted")

    # Undoing ------------------------------------------------------------------

    async def _undo(self, work: StepWork, merge: _Merge) -> str | None:
        """The commit that undid it, empty if nothing of it was left; None: the base runs away."""
        cycle = work.cycle
        why = cycle.failure.failure_class if cycle.failure is not None else "rolled back"
        message = (
            f"Revert {merge.after}\n\nThe release of cycle {merge.cycle_id} was rolled back: {why}."
        )
        forge = await self._forges.of(work.project, cycle)
        for _ in range(_LOOKS):
            # Whoever pushes next is sure of it: the lease is checked right before.
            await work.note(Leaves())
            end = await forge.revert(
                branch=_branch(work),
                before=merge.before,
                after=merge.after,
                note=commit_note(cycle, message),
            )
            if isinstance(end, Conflict):
                raise _CannotUndo(
                    "conflict",
                    f"Undoing {merge.after} conflicts with what {_branch(work)} holds now. Undo it "
                    "there by hand, then set the mode back.",
                    paths="\n".join(end.paths[:50]),
                )
            if not isinstance(end, Moved):
                return end.commit if isinstance(end, Reverted) else ""
        return None

    def _done(self, work: StepWork, merges: Sequence[_Merge], commits: Sequence[str]) -> StepEnd:
        now = self._clock.now()
        last = next((commit for commit in reversed(commits) if commit), "")
        evidence = {"revert_commit": last} if last else {"nothing_to_revert": "true"}
        return Done(
            leaves=Leaves(
                result=replace(work.cycle.result, reverted=True, revert_commit_sha=last),
                evidence=evidence,
                events=tuple(
                    Event(
                        event_type="git.revert",
                        time=now,
                        message=f"{merge.after} is undone on {_branch(work)} by {commit}.",
                        attributes={
                            "commit": commit,
                            "reverted_commit": merge.after,
                            "branch": _branch(work),
                        },
                    )
                    for merge, commit in zip(merges, commits, strict=True)
                    if commit
                ),
            )
        )

    async def _blocked(self, work: StepWork, error: _CannotUndo) -> StepEnd:
        await enter_safe_mode(
            self._deployments,
            work.cycle,
            self.step,
            reason=BASE_CONTAINS_BAD_CHANGE,
            message=error.message,
            time=self._clock.now(),
            unless=(ProjectMode.FROZEN,),
        )
        conflict = error.cause == "conflict"
        return Failed(
            failure_class=FailureClass.MERGE_CONFLICT if conflict else self.failure_class,
            reason=BASE_CONTAINS_BAD_CHANGE,
            leaves=Leaves(
                evidence={"cause": error.cause, "error": error.message, **error.evidence}
            ),
        )


def _merge(cycle: Cycle) -> _Merge:
    facts = cycle.facts
    return _Merge(before=facts.base_before, after=facts.merged_commit, cycle_id=cycle.cycle_id)


def _branch(work: StepWork) -> str:
    return work.cycle.facts.base_branch or work.settings.base_branch


def _age(release: Release) -> tuple[float, str]:
    return release.create_time.timestamp(), release.release_id


async def _contains(repository: Repository, descendant: str, commit: str) -> bool:
    """Whether it does; not, where either is no commit that is here."""
    if not is_sha(descendant) or not is_sha(commit):
        return False
    try:
        return await repository.contains(descendant, commit)
    except RepositoryError as error:
        if error.failure is RepositoryFailure.NOT_FOUND:
            return False
        raise

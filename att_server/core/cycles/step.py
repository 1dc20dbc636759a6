"""What a step of a cycle is given, and how it may end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from att_server.core.cycles.model import (
    ApprovalRequest,
    Cycle,
    CycleFacts,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleStep,
    StepStatus,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.test_report import TestReport
from att_server.core.failure_class import ExternalCause, FailureClass
from att_server.core.model import Event, Project
from att_server.core.releases import DeploymentContext, Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """What a step leaves behind, whatever comes of it; stored together with how it stands.

    facts, result: in place of the cycle's; None: unchanged. evidence: is added.
    events: without time, project, cycle and phase, which the engine fills in.
    """

    facts: CycleFacts | None = None
    result: CycleResult | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)
    log_tail: bytes = b""
    events: tuple[Event, ...] = ()
    releases: tuple[Release, ...] = ()
    report: TestReport | None = None
    drop_change: bool = False


NOTHING = Leaves()


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The step is done."""

    leaves: Leaves = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """There was nothing to do. reason: why, in snake case."""

    reason: str
    leaves: Leaves = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The step failed, for good. reason: more exactly than the class, in snake case.

    From DEPLOY on a class that speaks against the release leads to ROLLBACK.
    """

    failure_class: FailureClass
    reason: str
    external_cause: ExternalCause | None = None
    leaves: Leaves = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something outside does not work, or the outcome is not conclusive: the step is tried again.

    The engine waits longer each time, up to the settings' `hold_timeout`; after that
    the cycle fails with `deadline_exceeded`. decidable: a person may decide instead.
    """

    reason: str
    external_cause: ExternalCause | None = None
    decidable: ApprovalRequest | None = None
    leaves: Leaves = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The step looks again at `until`, or when a decision comes; the same attempt.

    deadline: after which the step itself will say that it has failed.
    approval: the cycle awaits a decision on it.
    """

    until: datetime
    reason: str
    deadline: datetime | None = None
    approval: ApprovalRequest | None = None
    leaves: Leaves = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Goes back: `step` and all up to this one are done once more (a moved base)."""

    step: CycleStep
    reason: str
    leaves: Leaves = NOTHING


StepEnd = Done | Skipped | Failed | Held | Waiting | Again


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """What a step is given.

    cycle: as it was stored when the attempt began. project: as it is now.
    settings: `[bootstrap]` in force, as of the base commit; before PREPARE: defaults.
    status: how the step stands. now: when the attempt began.
    note: stores progress while the step goes on (a new revision for watchers), and
    checks the lease: to be awaited right before an act that nobody could take back.
    Raises Fenced.
    """

    cycle: Cycle
    project: Project
    settings: BootstrapSettings
    status: StepStatus
    now: datetime
    note: Callable[[Leaves], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is known of a cycle before its steps are done. settings: see `StepWork`."""

    kind: CycleKind
    request: CycleRequest
    settings: BootstrapSettings

    @property
    def external(self) -> bool:
        """Whether somebody else runs the app."""
        return self.request.deployment_context is DeploymentContext.EXTERNAL

    @property
    def not_run_here(self) -> str:
        """Why a step is skipped that is about a release which is run here; empty: it is not."""
        if self.kind is CycleKind.ROLLBACK:
            return "rollback_only"
        return "external_context" if self.external else ""


class Step(Protocol):
    """One step: looks first, acts, and tells. May be killed and repeated at any moment.

    What it raises is a failure of `failure_class`, except RepositoryError with an
    external cause, ForgeUnavailable and STORAGE_FULL, which hold the cycle; a defect
    is `internal`.
    """

    @property
    def step(self) -> CycleStep:
        """Which one it is."""
        ...

    @property
    def failure_class(self) -> FailureClass:
        """What it is when it raises."""
        ...

    @property
    def interruptible(self) -> bool:
        """Whether it may be cancelled in the middle; else a cancellation waits for its end."""
        ...

    def skip_reason(self, asked: Asked) -> str:
        """Why it would not be done, in snake case; empty: it would. Pure; a plan asks it too."""
        return ""

    async def run(self, work: StepWork) -> StepEnd:
        """Does it. Cancelled only where it is interruptible, or when the server ends."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What an embedder in Python brings along, as arguments of the server's constructor.

    rollback_executor: called with project id, deploy target and release id, or with
    the first two where it takes two. Returns, or raises. May be a coroutine function.
    release_metadata_provider: called with the project id; returns a mapping with
    `release_id` and `previous_release_id`, each may be absent.
    """

    rollback_executor: Callable[..., object] | None = None
    release_metadata_provider: Callable[[str], object] | None = None


def steps_in_order(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps by their order in `CycleStep`. Raises ValueError unless each is there once."""
    found = {step.step: step for step in steps}
    if len(found) != len(steps) or set(found) != set(CycleStep):
        raise ValueError("a cycle has every step once")
    return tuple(found[step] for step in CycleStep)

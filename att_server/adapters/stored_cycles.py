"""How cycles, releases and test reports lie in the state store.

A row of `cycle` holds in columns what is looked for and what others than the
engine write; all else is its document (`stored_values`). The ends of steps'
output lie in rows of their own, so that a change of the cycle leaves them alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from att_server.adapters.stored_settings import kind_of, kind_values
from att_server.adapters.stored_values import UNREADABLE, ChangingText, Form
from att_server.core.cycles.model import (
    Cancellation,
    Cycle,
    CycleFacts,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleState,
    CycleStep,
    Decision,
    StepStatus,
)
from att_server.core.cycles.test_report import TestReport
from att_server.core.failure_class import CycleOutcome, FailureClass
from att_server.core.releases import Release, ReleaseState
from att_server.core.settings import ProbeKind

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
D = TypeVar("D")

_COLUMNS = frozenset(
    {
        "cycle_id",
        "project_id",
        "create_time",
        "state",
        "outcome",
        "cancellation",
        "decision",
        "end_time",
        "revision",
        "lease_epoch",
    }
)


def _kind_values(kind: ProbeKind) -> dict[str, Any]:
    name, values = kind_values(kind)
    return {name: values}


def _kind_of(data: Any, unknown: list[str]) -> ProbeKind:
    kind = kind_of(data)
    if kind is None:
        raise ValueError("a kind of probe that a later release has added")
    return kind


_CYCLE = Form(
    Cycle,
    sparse=frozenset({Cycle, CycleFacts, CycleRequest, CycleResult, StepStatus}),
    aside={Cycle: _COLUMNS, StepStatus: frozenset({"log_tail"})},
    codecs={ProbeKind: (_kind_values, _kind_of)},
)
_CANCELLATION = Form(Cancellation)
_DECISION = Form(Decision)
_RELEASE = Form(Release)
_REPORT = Form(TestReport)
_RELEASE_STATES = frozenset(state.value for state in ReleaseState)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCycle:
    """A cycle as it was read. whole: this release knows all that it says, and may go on with it."""

    cycle: Cycle
    whole: bool


class CycleDocument:
    """Writes the document of one cycle, each time that it changes.

    before: the one that is stored; what this release does not know of it is kept.
    """

    def __init__(self, before: str = "") -> None:
        read = json.loads(before) if before else {}
        self._before: dict[str, Any] | None = None if _CYCLE.knows(read) else read
        self._text = ChangingText(_CYCLE)

    def text(self, cycle: Cycle) -> str:
        """The document of the cycle as it is now."""
        if self._before is not None:
            return json.dumps(_CYCLE.merged(self._before, cycle))
        return self._text.encode(cycle)


def cycle_values(cycle: Cycle, document: CycleDocument) -> dict[str, Any]:
    """The columns that the engine writes."""
    return {
        "state": cycle.state.value,
        "outcome": cycle.outcome.value if cycle.outcome is not None else "",
        "end_time": cycle.end_time,
        "rollback_time": _automatic_rollback_time(cycle),
        "document": document.text(cycle),
    }


def new_cycle_values(cycle: Cycle) -> dict[str, Any]:
    """The columns of a cycle that nobody has taken yet."""
    return {
        **cycle_values(cycle, CycleDocument()),
        "cycle_id": cycle.cycle_id,
        "project_id": cycle.project_id,
        "create_time": cycle.create_time,
        "revision": cycle.revision,
        "lease_owner": "",
        "lease_epoch": 0,
        "lease_boot": "",
        "lease_until": 0.0,
        "cancellation": None,
        "decision": None,
    }


def cycle_of(row: Mapping[Any, Any], log_tails: Mapping[str, bytes]) -> StoredCycle:
    """The cycle of a row, as far as this release knows it. log_tails: by step."""
    unknown: list[str] = []
    columns = {
        "cycle_id": row["cycle_id"],
        "project_id": row["project_id"],
        "create_time": row["create_time"],
        "end_time": row["end_time"],
        "revision": row["revision"],
        "lease_epoch": row["lease_epoch"],
        "state": _member(CycleState, row["state"], CycleState.HELD, unknown),
        "outcome": (row["outcome"] and _member(CycleOutcome, row["outcome"], None, unknown))
        or None,
        "cancellation": _part(_CANCELLATION, row["cancellation"], unknown),
        "decision": _part(_DECISION, row["decision"], unknown),
    }
    try:
        cycle = _CYCLE.decode(json.loads(row["document"]), unknown, **columns)
    except UNREADABLE:
        unknown.append("document")
        cycle = Cycle(requested_by="", request=CycleRequest(), steps=(), **columns)
    if log_tails:
        steps = tuple(
            replace(status, log_tail=log_tails.get(status.step.value, b""))
            for status in cycle.steps
        )
        cycle = replace(cycle, steps=steps)
    return StoredCycle(cycle=cycle, whole=not unknown)


def with_calls(cycle: Cycle, row: Mapping[Any, Any]) -> Cycle:
    """The cycle with what calls, not the engine, wrote into the row, and its revision."""
    return replace(
        cycle,
        revision=row["revision"],
        cancellation=_part(_CANCELLATION, row["cancellation"], []),
        decision=_part(_DECISION, row["decision"], []),
    )


def log_tails_of(cycle: Cycle) -> dict[str, bytes]:
    """The ends of output by step, where there is any."""
    return {status.step.value: status.log_tail for status in cycle.steps if status.log_tail}


def cancellation_values(cancellation: Cancellation) -> dict[str, Any]:
    """The JSON of a cancellation."""
    return _CANCELLATION.encode(cancellation)


def decision_values(decision: Decision) -> dict[str, Any]:
    """The JSON of a decision."""
    return _DECISION.encode(decision)


def replaces(decision: Decision, earlier: Mapping[str, Any] | None) -> bool:
    """Whether a decision is to be kept: there is no earlier one on the same commit and plan."""
    return earlier is None or (earlier.get("commit_sha"), earlier.get("plan_digest")) != (
        decision.commit_sha,
        decision.plan_digest,
    )


def release_values(release: Release) -> dict[str, Any]:
    """The columns of a release."""
    return {
        "project_id": release.project_id,
        "release_id": release.release_id,
        "create_time": release.create_time,
        "document": _RELEASE.encode(release),
    }


def release_of(row: Mapping[Any, Any]) -> Release:
    """The release of a row. One in a state that this release does not know is BAD: it stays away.

    Raises one of UNREADABLE for what no release wrote.
    """
    document = row["document"]
    unknown: list[str] = []
    if document.get("state") not in _RELEASE_STATES:
        document = {**document, "state": "bad", "reason": "state_of_a_later_release"}
        document["tries_left"] = 0
    return _RELEASE.decode(document, unknown)


def report_bytes(report: TestReport) -> bytes:
    """A test report, packed: it may have 10,000 results."""
    return zlib.compress(json.dumps(_REPORT.encode(report)).encode(), 1)


def report_of(data: bytes) -> TestReport:
    """The report of `report_bytes`; results that this release does not know are left out."""
    return _REPORT.decode(json.loads(zlib.decompress(data)), [])


def _automatic_rollback_time(cycle: Cycle) -> datetime | None:
    """When it rolled back by itself; None if it did not, or a person wanted it."""
    failure = cycle.failure
    if (
        cycle.kind is not CycleKind.CHANGE
        or not cycle.result.rollback_performed
        or (failure is not None and failure.failure_class is FailureClass.CANCELLED)
    ):
        return None
    return cycle.step(CycleStep.ROLLBACK).start_time or cycle.create_time


def _member(kind: type[E], value: str, otherwise: D, unknown: list[str]) -> E | D:
    try:
        return kind(value)
    except ValueError:
        unknown.append(kind.__name__)
        return otherwise


def _part(form: Form[T], data: Any, unknown: list[str]) -> T | None:
    if data is None:
        return None
    try:
        return form.decode(data, unknown)
    except UNREADABLE:
        unknown.append("cancellation or decision")
        return None

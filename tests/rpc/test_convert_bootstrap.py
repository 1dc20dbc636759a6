"""What is asked for arrives, and what is kept is shown, whatever it holds."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from att.v1 import bootstrap_pb2
from att_server.core.cycles.model import (
    ApprovalRequest,
    Cancellation,
    CiStatus,
    Cycle,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleState,
    CycleStep,
    HealthStatus,
    StepState,
    StepStatus,
    WatchdogStatus,
)
from att_server.core.failure_class import CycleOutcome
from att_server.core.release_metadata import MetadataSource, NamedRelease
from att_server.core.releases import DeploymentContext, Release, ReleaseState
from att_server.core.repository import DeleteFile, Patch, SetMode, WriteFile
from att_server.core.rollback_verdict import (
    Gate,
    GateStatus,
    GateVerdict,
    PolicyStatus,
    Verdict,
)
from att_server.core.settings import HttpProbe, Probe
from att_server.rpc import convert_bootstrap as convert
from att_server.rpc.convert_text import raw, text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Whatever Python holds as text, lone surrogates of file names included.
anything = st.text(st.characters(), max_size=20)
maps = st.dictionaries(anything, anything, max_size=3)
times = st.timedeltas(timedelta(), timedelta(days=2_900_000)).map(EPOCH.__add__)
spans = st.timedeltas(timedelta(), timedelta(days=1))
flags = st.none() | st.booleans()
counts = st.none() | st.integers(1, 1000)
probes = st.none() | st.builds(
    Probe,
    kind=st.builds(HttpProbe, url=st.just("http://localhost/")),
    interval=spans,
    timeout=spans,
    threshold=st.integers(1, 1000),
)
verdicts = st.builds(
    Verdict,
    candidate=st.none()
    | st.builds(
        NamedRelease, release_id=st.text(min_size=1), source=st.sampled_from(MetadataSource)
    ),
    gates=st.tuples(
        *(
            st.builds(
                GateVerdict,
                gate=st.just(gate),
                status=st.sampled_from(GateStatus),
                reason=anything,
                facts=maps,
            )
            for gate in Gate
        )
    ),
)


def whole(kind: type, **given_: Any) -> st.SearchStrategy[Any]:
    """Objects of a class with fields of any value, by their annotations."""
    by_type = {
        "str": anything,
        "bool": st.booleans(),
        "bool | None": flags,
        "int": st.integers(0, 2**31 - 1),
        "int | None": counts,
        "bytes": st.binary(max_size=10),
        "timedelta": spans,
        "timedelta | None": st.none() | spans,
        "datetime": times,
        "datetime | None": st.none() | times,
        "Mapping[str, str]": maps,
        "Probe | None": probes,
        "Verdict | None": st.none() | verdicts,
    }
    for enum in (
        *(CycleStep, StepState, CycleKind, CycleState, CiStatus, WatchdogStatus, HealthStatus),
        *(PolicyStatus, DeploymentContext, CycleOutcome),
    ):
        by_type[enum.__name__] = st.sampled_from(enum)
        by_type[f"{enum.__name__} | None"] = st.none() | st.sampled_from(enum)
    values = {
        field.name: by_type[str(field.type)] for field in fields(kind) if field.name not in given_
    }
    return st.builds(kind, **values, **given_)


SHAS = ("commit_sha", "merge_commit_sha", "revert_commit_sha", "test_report_cycle_id")
requests = whole(CycleRequest, commit=st.just(""), edited_paths=st.tuples(anything, anything))
results = whole(CycleResult, **{name: st.just("a" * 40) for name in SHAS})
approvals = whole(ApprovalRequest, commit_sha=st.just("a" * 40), plan_digest=st.just("d"))
cycles = st.builds(
    Cycle,
    cycle_id=st.just("c"),
    project_id=st.just("web"),
    kind=st.sampled_from(CycleKind),
    request=requests,
    requested_by=anything,
    create_time=times,
    state=st.sampled_from(CycleState),
    outcome=st.none() | st.sampled_from(CycleOutcome),
    outcome_reason=anything,
    steps=st.tuples(*(whole(StepStatus, step=st.just(step)) for step in CycleStep)),
    result=results,
    approval=st.none() | approvals,
    cancellation=st.none() | whole(Cancellation),
    wake_time=st.none() | times,
    deadline_time=st.none() | times,
    end_time=st.none() | times,
    revision=st.integers(0, 2**62),
)


@given(requests)
def test_what_is_shown_of_a_request_asks_for_the_same(asked: CycleRequest) -> None:
    shown = convert.cycle_request(asked, "web")
    again = convert.to_cycle_request(shown)
    for field in fields(CycleRequest):
        # A diff is not shown; why and how long are a rollback's own.
        if field.name in {"has_patch", "reason", "timeout"}:
            continue
        was, now = getattr(asked, field.name), getattr(again, field.name)
        if field.name == "until" and was in {CycleStep.ROLLBACK, CycleStep.REVERT}:
            continue
        if isinstance(was, str) and not isinstance(was, DeploymentContext | CycleStep):
            was = text(was)
        if field.name == "edited_paths":
            was = tuple(map(text, was))
        assert now == was, field.name


@given(cycles)
def test_any_cycle_can_be_shown_and_its_values_are_known_ones(kept: Cycle) -> None:
    shown = convert.cycle(kept)
    assert shown == bootstrap_pb2.Cycle.FromString(shown.SerializeToString())
    assert (shown.revision, len(shown.steps)) == (kept.revision, len(CycleStep))
    assert shown.HasField("next_try_time") == (
        kept.state is CycleState.HELD and kept.wake_time is not None
    )
    assert no_enum_is_unset(shown, allowed={"outcome", "rollback_deployment_context"})
    assert {step.log_tail for step in convert.cycle(kept, log_tails=False).steps} == {b""}


@given(verdicts)
def test_a_verdict_is_shown_with_every_gate(verdict: Verdict) -> None:
    shown = convert.rollback_verdict(verdict)
    assert [gate.gate for gate in shown.gates] == list(Gate)
    assert (shown.status == bootstrap_pb2.ROLLBACK_POLICY_STATUS_ALLOWED) == verdict.allowed
    assert all(gate.allowed for gate in shown.gates) == verdict.allowed


@pytest.mark.parametrize("state", ReleaseState)
def test_a_release_is_shown_in_each_of_its_states(state: ReleaseState) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    release = Release(
        release_id="r",
        project_id="web",
        state=state,
        reason="boom" if state is ReleaseState.BAD else "",
        state_time=now,
        create_time=now,
        data_version=2**53,
    )
    shown = convert.release(release, current_release_id="r")
    assert bootstrap_pb2.ReleaseState.Name(shown.state) == f"RELEASE_STATE_{state.name}"
    assert shown.current
    assert shown.data_version == 2**31 - 1


def test_each_kind_of_edit_arrives() -> None:
    message = bootstrap_pb2.CycleRequest(
        edits=[
            bootstrap_pb2.FileEdit(path="a", content=b"\0\r\n"),
            bootstrap_pb2.FileEdit(path="b", content=b"", executable=False),
            bootstrap_pb2.FileEdit(path="c", delete_file=True),
            bootstrap_pb2.FileEdit(path="d", executable=True),
        ]
    )
    assert convert.to_change(message) == [
        WriteFile(path="a", content=b"\0\r\n"),
        WriteFile(path="b", content=b"", executable=False),
        DeleteFile(path="c"),
        SetMode(path="d", executable=True),
    ]
    assert convert.to_change(bootstrap_pb2.CycleRequest(patch=b"p")) == Patch(diff=b"p")
    assert convert.to_change(bootstrap_pb2.CycleRequest(commit="a" * 40)) is None


@given(anything)
def test_any_text_can_be_told_and_bytes_of_it_found_again(value: str) -> None:
    told = text(value)
    told.encode()
    as_bytes = value.encode(errors="surrogatepass").decode(errors="surrogateescape")
    assert text(raw(text(as_bytes))) == text(as_bytes)


def no_enum_is_unset(message: Message, *, allowed: set[str]) -> bool:
    """Whether each enum of the message, at any depth, has a value that means something."""
    for field in message.DESCRIPTOR.fields:
        if field.enum_type is not None and field.name not in allowed:
            if not getattr(message, field.name):
                return False
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            value = getattr(message, field.name)
            inner = value if field.is_repeated else [value] * message.HasField(field.name)
            if not all(no_enum_is_unset(each, allowed=allowed) for each in inner):
                return False
    return True

"""The JSON of cycles, releases and reports: whole ways there and back, and what it bears."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.adapters.stored_cycles import (
    CycleDocument,
    StoredCycle,
    cycle_of,
    cycle_values,
    log_tails_of,
    new_cycle_values,
    release_of,
    release_values,
    report_bytes,
    report_of,
)
from att_server.core.cycles.model import Cycle, CycleFacts, CycleState, CycleStep, StepStatus
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.test_report import TestReport
from att_server.core.releases import Release, ReleaseState
from att_server.core.rollback_verdict import Gate, GateStatus, GateVerdict, Verdict
from tests.contract.test_cycle_journal import START, cycle

T = TypeVar("T")

SMALL = settings(max_examples=50)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
TEXTS = st.text(max_size=5)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as the core would hold them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Verdict:
        return st.builds(_verdict, st.lists(st.sampled_from(GateStatus), min_size=15, max_size=15))
    if hint is Release:
        return st.sampled_from([*_releases()])
    if origin in (Union, types.UnionType):
        return st.one_of([_values(each) for each in arguments])
    if origin is tuple:
        if arguments[0] is StepStatus:
            return _steps()
        return st.lists(_values(arguments[0]), max_size=2).map(tuple)
    if origin is not None:
        return st.dictionaries(TEXTS, TEXTS, max_size=2)
    if hint is type(None):
        return st.none()
    if issubclass(hint, Enum):
        return st.sampled_from(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _few(hint)
    plain: dict[object, st.SearchStrategy[Any]] = {
        str: TEXTS,
        bytes: st.binary(max_size=5),
        bool: st.booleans(),
        int: st.integers(0, 2**53),
        datetime: st.datetimes(timezones=st.just(UTC)),
        timedelta: st.timedeltas(timedelta(days=-1), timedelta(days=36_500)),
    }
    return plain[hint]


@st.composite
def _few(draw: st.DrawFn, kind: type[Any]) -> Any:
    """A dataclass of which a few fields are not at their defaults."""
    hints = get_type_hints(kind)
    required = [
        each.name
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING
    ]
    others = st.sampled_from([name for name in hints if name not in required] or required)
    names = {*required, *draw(st.lists(others, max_size=4))}
    return kind(**{name: draw(_values(hints[name])) for name in hints if name in names})


@st.composite
def _steps(draw: st.DrawFn) -> tuple[StepStatus, ...]:
    statuses = {step: StepStatus(step=step) for step in CycleStep}
    changed: list[StepStatus] = draw(st.lists(_few(StepStatus), max_size=3))
    statuses.update({status.step: status for status in changed})
    return tuple(statuses.values())


def _dataclass(kind: type[T]) -> st.SearchStrategy[T]:
    return _values(kind)


def _verdict(statuses: list[GateStatus]) -> Verdict:
    gates = zip(Gate, statuses, strict=True)
    return Verdict(
        candidate=None,
        gates=tuple(
            GateVerdict(gate=gate, status=status, reason="r", facts={"a": "b"})
            for gate, status in gates
        ),
    )


def _releases() -> Iterator[Release]:
    staged = Release(
        release_id="r", project_id="web", state_time=START, create_time=START, tree_sha="t"
    )
    trying = staged.trying(3, START)
    yield from (staged, trying, trying.started().deployed(START), trying.good(START))
    yield from (trying.bad("größer", START), trying.good(START).removed(START))


CYCLES = _dataclass(Cycle)


def stored(given_cycle: Cycle) -> dict[str, Any]:
    """The row of a cycle, with nothing in it that a call wrote."""
    row = new_cycle_values(given_cycle)
    row["lease_epoch"] = given_cycle.lease_epoch
    return row


def read(row: Mapping[str, Any], **document: object) -> StoredCycle:
    changed = {**json.loads(row["document"]), **document}
    return cycle_of({**row, "document": json.dumps(changed)}, {})


@SMALL
@given(CYCLES)
def test_a_cycle_comes_back_as_it_was(any_cycle: Cycle) -> None:
    kept = replace(any_cycle, cancellation=None, decision=None)
    back = cycle_of(stored(kept), log_tails_of(kept))
    assert back == StoredCycle(cycle=kept, whole=True)


@SMALL
@given(CYCLES, CYCLES, st.lists(st.sampled_from([each.name for each in fields(Cycle)])))
def test_a_cycle_that_changes_is_written_as_one_that_is_new(
    first: Cycle, second: Cycle, names: list[str]
) -> None:
    document = CycleDocument()
    current = first
    for name in names:
        if name == "steps":
            current = current.with_step(second.steps[len(names) % len(second.steps)])
        else:
            current = replace(current, **{name: getattr(second, name)})
        again = cycle_values(current, document)
        anew = cycle_values(current, CycleDocument())
        assert json.loads(again.pop("document")) == json.loads(anew.pop("document"))
        assert again == anew


@SMALL
@given(CYCLES, st.data())
def test_what_an_earlier_release_did_not_write_is_at_its_default(
    any_cycle: Cycle, data: st.DataObject
) -> None:
    row = stored(any_cycle)
    document = json.loads(row["document"])
    required = {"requested_by", "request", "steps"}
    name = data.draw(st.sampled_from(sorted({*document} - required) or ["kind"]))
    document.pop(name, None)
    back = cycle_of({**row, "document": json.dumps(document)}, {})
    assert back.whole
    [field] = [each for each in fields(Cycle) if each.name == name]
    assert getattr(back.cycle, name) in (field.default, CycleFacts(), *_default_results())


def _default_results() -> list[object]:
    made = cycle()
    return [made.result, made.facts]


@settings(max_examples=150)
@given(CYCLES, st.data())
def test_whatever_stands_in_a_document_it_is_read_without_a_crash(
    any_cycle: Cycle, data: st.DataObject
) -> None:
    row = stored(any_cycle)
    document = json.loads(row["document"])
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(ANY_JSON)
        break
    back = cycle_of({**row, "document": json.dumps(document)}, {})
    assert back.cycle.cycle_id == any_cycle.cycle_id
    # What was read can be written, and reads the same.
    again = cycle_of({**row, "document": CycleDocument().text(back.cycle)}, {})
    assert again == StoredCycle(cycle=back.cycle, whole=again.whole)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", '"x"', "{}"])
def test_a_document_that_is_none_is_read_as_far_as_columns_tell(text: str) -> None:
    back = cycle_of({**stored(cycle()), "document": text}, {})
    assert not back.whole
    assert (back.cycle.cycle_id, back.cycle.state) == ("01", CycleState.RUNNING)


def test_settings_in_force_are_kept_whole_though_they_are_defaults() -> None:
    """A later release may have others."""
    facts = CycleFacts(settings=BootstrapSettings())
    document = json.loads(stored(cycle(facts=facts))["document"])
    assert set(document["facts"]["settings"]) == {each.name for each in fields(BootstrapSettings)}
    assert document["facts"]["settings"]["rollback"]["on_deploy_failure"] is False


def test_what_says_nothing_takes_no_room() -> None:
    document = json.loads(stored(cycle())["document"])
    assert document["facts"] == {}
    assert document["steps"][0] == {"step": "prepare", "state": "pending"}
    assert len(stored(cycle())["document"]) < 2_000


def test_times_of_any_zone_are_kept_in_utc() -> None:
    east = START.astimezone(timezone(timedelta(hours=5)))
    row = stored(cycle(wake_time=east))
    assert json.loads(row["document"])["wake_time"] == "2030-01-01T00:00:00+00:00"
    assert cycle_of(row, {}).cycle.wake_time == START


def test_a_time_without_an_offset_is_not_believed() -> None:
    back = read(stored(cycle()), wake_time="2030-01-01T00:00:00")
    assert (back.cycle.wake_time, back.whole) == (None, False)


@SMALL
@given(_dataclass(TestReport))
def test_a_report_comes_back_as_it_was(report: TestReport) -> None:
    assert report_of(report_bytes(report)) == report


@pytest.mark.parametrize("release", [*_releases()])
def test_a_release_comes_back_as_it_was(release: Release) -> None:
    values = release_values(release)
    assert release_of(json.loads(json.dumps({"document": values["document"]}))) == release


def test_a_release_of_a_later_state_is_bad_and_stays_so() -> None:
    [*_, good] = [each for each in _releases() if each.state is ReleaseState.GOOD]
    document = {**release_values(good)["document"], "state": "resting", "colour": "red"}
    release = release_of({"document": document})
    assert release.state is ReleaseState.BAD
    assert release_of({"document": release_values(release)["document"]}) == release

"""What follows from each class of failure."""

from __future__ import annotations

import pytest

from att.v1 import bootstrap_pb2
from att_server.core.failure_class import CycleOutcome, ExternalCause, Failure, FailureClass


def test_three_classes_speak_against_the_release() -> None:
    assert {each for each in FailureClass if each.triggers_rollback} == {
        "deploy_failure",
        "restart_watchdog_failure",
        "health_failure",
    }


@pytest.mark.parametrize("failure_class", FailureClass)
def test_a_failure_without_rollback_ends_the_cycle_as_failed_unless_a_person_ended_it(
    failure_class: FailureClass,
) -> None:
    ended_by_a_person = {"cancelled": CycleOutcome.CANCELLED, "approval_rejected": "rejected"}
    assert failure_class.outcome == ended_by_a_person.get(failure_class, CycleOutcome.FAILED)


@pytest.mark.parametrize("failure_class", FailureClass)
def test_only_an_external_failure_is_external_without_a_cause(failure_class: FailureClass) -> None:
    external = Failure(failure_class=failure_class).external
    assert external == (failure_class is FailureClass.EXTERNAL_FAILURE)


@pytest.mark.parametrize("cause", ExternalCause)
def test_a_cause_outside_makes_any_failure_external(cause: ExternalCause) -> None:
    assert all(Failure(failure_class=each, external_cause=cause).external for each in FailureClass)


def test_values_are_the_names_in_snake_case() -> None:
    assert [each.value for each in FailureClass] == [each.name.lower() for each in FailureClass]


def test_outcomes_are_those_of_the_contract() -> None:
    assert {f"CYCLE_OUTCOME_{each.name}" for each in CycleOutcome} | {
        "CYCLE_OUTCOME_UNSPECIFIED"
    } == set(bootstrap_pb2.CycleOutcome.keys())

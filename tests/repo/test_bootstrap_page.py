"""The page on release cycles says what the code does."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from importlib import import_module
from itertools import product
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from att_server.adapters.store_backup import RESTORED
from att_server.core.cycles import steps
from att_server.core.cycles.admission import BASE_CONTAINS_BAD_CHANGE
from att_server.core.cycles.model import CycleState, CycleStep
from att_server.core.cycles.step import Step
from att_server.core.cycles.steps.rollback import ROLLBACK_FAILED
from att_server.core.failure_class import CycleOutcome, Failure, FailureClass
from att_server.core.release_metadata import MetadataSource, NamedRelease
from att_server.core.releases import DeploymentContext, Release
from att_server.core.repository import RepositoryFailure
from att_server.core.rollback_policy import Question, RollbackSettings, Trigger, evaluate
from att_server.core.rollback_verdict import DENY_REASONS, VALIDATED, Gate, GateStatus

PAGE = (Path(__file__).parents[2] / "docs/bootstrap.md").read_text()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = RollbackSettings()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, less its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_class_with_what_follows() -> None:
    assert {row[0].strip("`"): row[1:] for row in rows("Failure classes")} == {
        failure_class.value: [rolled_back_where(failure_class), failure_class.outcome.name]
        for failure_class in FailureClass
    }


def rolled_back_where(failure_class: FailureClass) -> str:
    if failure_class.triggers_rollback:
        default = str(SETTINGS.enabled_for(failure_class)).lower()
        return f"`rollback_on_{failure_class}` (default {default})"
    if Question(project_id="p", failure=Failure(failure_class=failure_class)).trigger is (
        Trigger.PERSON
    ):
        return "the release was switched to: as if a person asked for it"
    return "never"


def test_the_page_lists_the_gates_in_order_with_their_reasons() -> None:
    table = [(row[0].strip("`"), row[2].strip("`")) for row in rows("Rollback policy")]
    assert table == [(gate.value, DENY_REASONS[gate]) for gate in Gate]
    assert list(DENY_REASONS) == list(Gate)
    assert f"`{VALIDATED}`" in PAGE


def test_the_page_says_when_a_gate_does_not_apply() -> None:
    table = {
        row[0].strip("`"): set(re.findall(r"`(\w+)`", row[3])) for row in rows("Rollback policy")
    }
    assert table == {gate.value: reasons_not_to_apply()[gate] for gate in Gate}


def reasons_not_to_apply() -> defaultdict[Gate, set[str]]:
    """What every gate says where it does not apply, over questions of every shape."""
    known = Release(release_id="known", project_id="p", create_time=NOW, state_time=NOW)
    targets = (
        None,
        NamedRelease(release_id="known", source=MetadataSource.REGISTRY),
        NamedRelease(release_id="unknown", source=MetadataSource.GIT),
    )
    found: defaultdict[Gate, set[str]] = defaultdict(set)
    for context, failure_class, target, deployed in product(
        DeploymentContext, (None, *FailureClass), targets, ("known", "other")
    ):
        question = Question(
            project_id="p",
            context=context,
            failure=Failure(failure_class=failure_class) if failure_class else None,
            deployed_release_id=deployed,
            target=target,
            releases=[known],
        )
        for gate in evaluate(question).gates:
            if gate.status is GateStatus.NOT_APPLICABLE:
                found[gate.gate].add(gate.reason)
    return found


# Steps, states, and the ways out of safe mode -----------------------------------


def test_the_page_lists_every_step_in_order() -> None:
    assert [row[0].strip("`") for row in rows("Steps")] == [step.name for step in CycleStep]


def test_the_failures_of_steps_are_classes() -> None:
    named = {name for row in rows("Steps") for name in re.findall(r"`(\w+)`", row[2])}
    # Those that any step can end with.
    anywhere = {"external_failure", "cancelled", "deadline_exceeded"}
    assert named | anywhere == set(FailureClass)


def test_the_page_says_as_what_a_step_fails() -> None:
    named = {CycleStep[row[0].strip("`")]: row[2] for row in rows("Steps")}
    modules = [import_module(f"{steps.__name__}.{m.name}") for m in iter_modules(steps.__path__)]
    found: list[Any] = [
        each
        for module in modules
        for each in vars(module).values()
        if Step in getattr(each, "__bases__", ())
    ]
    classes = {each.step: each.failure_class for each in found}
    # A decision has classes of its own, and going back is about the failure before.
    own = {CycleStep.APPROVAL, CycleStep.ROLLBACK}
    assert set(classes) == set(CycleStep)
    for step in set(CycleStep) - own:
        assert f"`{classes[step]}`" in named[step], step


def test_the_page_lists_every_state_and_every_outcome() -> None:
    first = [row[0].strip("`") for row in rows("States and outcomes")]
    states = [state.name for state in CycleState]
    assert first[: len(states)] == states
    # The two lines of the second table's head come between.
    assert first[len(states) + 2 :] == [outcome.name for outcome in CycleOutcome]


def test_the_page_says_the_way_out_of_every_reason_for_safe_mode() -> None:
    never = {Gate.NOT_FROZEN, Gate.NOT_IN_SAFE_MODE, Gate.CUT_OVER, Gate.OWN_CAUSE}
    denied = [reason for gate, reason in DENY_REASONS.items() if gate not in never]
    listed = [row[0].strip("`") for row in rows("When a project or a cycle is blocked")]
    safe = listed[: listed.index("held by")]
    assert safe == [*denied, ROLLBACK_FAILED, BASE_CONTAINS_BAD_CHANGE, RESTORED]


def test_the_page_says_what_to_do_about_every_cause_outside_of_git() -> None:
    listed = [row[0] for row in rows("When a project or a cycle is blocked")]
    held = "".join(listed[listed.index("held by") :])
    for failure in RepositoryFailure:
        assert (f"`{failure}`" in held) == failure.external, failure

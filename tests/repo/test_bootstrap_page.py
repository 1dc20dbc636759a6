"""The page on failures and rollback says what the code does."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from att_server.core.failure_class import Failure, FailureClass
from att_server.core.release_metadata import MetadataSource, NamedRelease
from att_server.core.releases import DeploymentContext, Release
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

"""What the options of `att cycle plan` and `run` ask for."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

import att_client
from att_client import CycleStep
from att_client.cli.cycle_options import ChangeOptions, Context, Failing, Until
from att_client.cli.exits import CommandError, ExitCode


@pytest.fixture
def new(tmp_path: Path) -> str:
    file = tmp_path / "new=1.py"
    file.write_bytes(b"\xffnew\n")
    return str(file)


def test_edits_and_deletions_are_one_change(new: str) -> None:
    options = ChangeOptions(edit=[f"src/app.py={new}"], delete=["old.py"], message="Do better")
    assert options.arguments() == {
        "edits": {"src/app.py": b"\xffnew\n", "old.py": None},
        "message": "Do better",
    }


def test_a_patch_is_read_and_a_commit_is_named(new: str) -> None:
    assert ChangeOptions(patch=new).arguments() == {"patch": b"\xffnew\n", "message": ""}
    assert ChangeOptions(commit="a" * 40).arguments() == {"commit": "a" * 40, "message": ""}


def test_what_is_not_given_is_left_to_the_settings() -> None:
    assert set(ChangeOptions(commit="a" * 40).arguments()) == {"commit", "message"}


def test_every_option_asks_for_something_that_the_contract_has() -> None:
    options = ChangeOptions(
        commit="a" * 40,
        base="main",
        branch="mine",
        until=Until.PULL_REQUEST,
        pr=False,
        merge=False,
        ci_timeout="5m",
        require_approval=True,
        keep_worktree=True,
        override_bad=True,
        context=Context.EXTERNAL,
        deploy_target="prod",
        release="b" * 40,
        watchdog_retries=2,
        watchdog_interval="1s",
        health_http="http://127.0.0.1:1/",
        health_retries=3,
        health_interval="2s",
        bake_time="0",
        previous_release="c" * 40,
        rollback_release="d" * 40,
        rollback_on=[Failing.DEPLOY],
        no_rollback_on=[Failing.WATCHDOG, Failing.HEALTH],
    )
    asked = options.arguments()
    request = att_client.CycleRequest(
        **{key: value for key, value in asked.items() if key != "message"}
    )
    given = {field.name for field in fields(request)} & set(asked)
    # Only the wait between looks at a forge's checks is left to the settings.
    assert set(att_client.CycleOptions.__annotations__) - given == {
        "ci_initial_poll",
        "ci_max_poll",
    }
    assert request.until is CycleStep.PULL_REQUEST
    assert request.bake_time == timedelta()
    assert request.rollback_on_deploy_failure is True
    assert request.rollback_on_health_failure is False
    assert request.health_check_target is not None


def test_every_step_that_can_be_the_last_is_one_of_the_contract() -> None:
    assert {until.name for until in Until} <= {step.name for step in CycleStep}


@pytest.mark.parametrize(
    "options",
    [
        ChangeOptions(),
        ChangeOptions(message="nothing else"),
        ChangeOptions(commit="a" * 40, delete=["x"]),
        ChangeOptions(edit=["app.py"]),
        ChangeOptions(edit=["=file"]),
        ChangeOptions(edit=["app.py=/nowhere/at/all"]),
        ChangeOptions(delete=["x", "x"]),
        ChangeOptions(patch="/nowhere/at/all"),
        ChangeOptions(commit="a" * 40, bake_time="a while"),
        ChangeOptions(
            commit="a" * 40, rollback_on=[Failing.HEALTH], no_rollback_on=[Failing.HEALTH]
        ),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(options: ChangeOptions) -> None:
    with pytest.raises(CommandError) as caught:
        options.arguments()
    assert caught.value.exit_code == ExitCode.USAGE

"""The options that say what a cycle changes and how it is carried out."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import att_client
from att_client.cli.exits import usage_error
from att_client.cli.option_group import takes
from att_client.cli.session import parse_duration

_CHANGE = "The change"
_GATES = "Where it goes and what it passes"
_CHECKS = "What the new run has to prove"
_BACK = "The way back"


class Until(StrEnum):
    """The last step of a cycle, as `--until` names it."""

    EDIT = "edit"
    TEST = "test"
    COMMIT = "commit"
    PUSH = "push"
    PULL_REQUEST = "pull-request"
    CI = "ci"
    APPROVAL = "approval"
    MERGE = "merge"
    STAGE = "stage"
    DEPLOY = "deploy"
    WATCHDOG = "watchdog"
    HEALTH = "health"
    FINALIZE = "finalize"


class Failing(StrEnum):
    """The steps whose failure is rolled back, as `--rollback-on` names them."""

    DEPLOY = "deploy"
    WATCHDOG = "watchdog"
    HEALTH = "health"


class Context(StrEnum):
    """Who runs the app, as `--context` names it."""

    SELF_HOSTED = "self-hosted"
    EXTERNAL = "external"


def _option(text: str, metavar: str, panel: str) -> Any:
    return typer.Option(help=text, metavar=metavar, show_default=False, rich_help_panel=panel)


def _flag(text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=text, show_default=False, rich_help_panel=panel)


def _span(text: str, panel: str) -> Any:
    return _option(f"{text}, such as 10s or 2m.", "DURATION", panel)


def _number(text: str, panel: str) -> Any:
    return typer.Option(
        help=text, metavar="N", min=1, max=1000, show_default=False, rich_help_panel=panel
    )


_Text = str | None
_Flag = bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """What the options gave; None where one was not given."""

    edit: Annotated[
        list[str] | None,
        _option(
            "Give the file at PATH of the tree the content of the local FILE (-: standard input); "
            "can be repeated.",
            "PATH=FILE",
            _CHANGE,
        ),
    ] = None
    delete: Annotated[
        list[str] | None, _option("Remove the file at PATH; can be repeated.", "PATH", _CHANGE)
    ] = None
    patch: Annotated[
        _Text, _option("Apply the unified diff in FILE (-: standard input).", "FILE", _CHANGE)
    ] = None
    commit: Annotated[
        _Text, _option("Carry out this commit, which exists: its full sha.", "SHA", _CHANGE)
    ] = None
    message: Annotated[
        _Text,
        typer.Option(
            "-m",
            "--message",
            help="The message of the commit.",
            metavar="TEXT",
            show_default=False,
            rich_help_panel=_CHANGE,
        ),
    ] = None

    base: Annotated[_Text, _option("The branch that is changed.", "BRANCH", _GATES)] = None
    branch: Annotated[
        _Text, _option("The cycle's own branch. Default: att/ and its id.", "BRANCH", _GATES)
    ] = None
    until: Annotated[Until | None, _option("The last step to do.", "STEP", _GATES)] = None
    pr: Annotated[_Flag, _flag("Open a pull request, or do not.", _GATES, "--pr/--no-pr")] = None
    merge: Annotated[
        _Flag,
        _flag(
            "Merge once the checks passed, or leave that to a person.",
            _GATES,
            "--merge/--no-merge",
        ),
    ] = None
    ci_timeout: Annotated[_Text, _span("Bound the wait for checks", _GATES)] = None
    require_approval: Annotated[
        bool,
        _flag("Ask for a decision even where the settings do not.", _GATES, "--require-approval"),
    ] = False
    keep_worktree: Annotated[
        bool, _flag("Keep branch and worktree if the cycle fails.", _GATES, "--keep-worktree")
    ] = False
    override_bad: Annotated[
        bool,
        _flag(
            "Deploy it though a release with its files failed before (admin).",
            _GATES,
            "--override-bad",
        ),
    ] = False
    context: Annotated[
        Context | None,
        _option("Who runs the app: self-hosted or external.", "CONTEXT", _GATES),
    ] = None
    deploy_target: Annotated[
        _Text, _option("What is deployed to, for an external context.", "NAME", _GATES)
    ] = None
    release: Annotated[
        _Text, _option("The release to deploy, for an external context.", "RELEASE", _GATES)
    ] = None

    watchdog_retries: Annotated[int | None, _number("Looks at the new run.", _CHECKS)] = None
    watchdog_interval: Annotated[_Text, _span("The time between them", _CHECKS)] = None
    health_http: Annotated[
        _Text,
        _option(
            "Healthy while a GET of this URL is answered with 200 to 399. Default: the project's "
            "readiness probe.",
            "URL",
            _CHECKS,
        ),
    ] = None
    health_retries: Annotated[int | None, _number("Successes in a row.", _CHECKS)] = None
    health_interval: Annotated[_Text, _span("The time between checks", _CHECKS)] = None
    bake_time: Annotated[_Text, _span("How long it has to stay healthy", _CHECKS)] = None

    previous_release: Annotated[
        _Text, _option("What is deployed now, where the server cannot know.", "RELEASE", _BACK)
    ] = None
    rollback_release: Annotated[
        _Text, _option("The release to return to if this one fails.", "RELEASE", _BACK)
    ] = None
    rollback_on: Annotated[
        list[Failing] | None,
        _option("Roll back if this step fails: deploy, watchdog or health.", "STEP", _BACK),
    ] = None
    no_rollback_on: Annotated[
        list[Failing] | None, _option("Do not roll back if this step fails.", "STEP", _BACK)
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The arguments for `Bootstrap.plan` and `start`, but the project. Raises CommandError."""
        given: dict[str, Any] = {
            "message": self.message or "",
            "base_branch": self.base,
            "branch_name": self.branch,
            "until": _step(self.until),
            "create_pr": self.pr,
            "auto_merge_on_ci_success": self.merge,
            "ci_timeout": _duration(self.ci_timeout),
            "require_approval": self.require_approval or None,
            "keep_worktree": self.keep_worktree or None,
            "override_bad": self.override_bad or None,
            "deployment_context": deployment_context(self.context),
            "deploy_target": self.deploy_target,
            "requested_release_id": self.release,
            "restart_watchdog_retries": self.watchdog_retries,
            "restart_watchdog_interval": _duration(self.watchdog_interval),
            "health_check_target": _http_probe(self.health_http),
            "health_check_retries": self.health_retries,
            "health_check_interval": _duration(self.health_interval),
            "bake_time": _duration(self.bake_time),
            "previous_release_id": self.previous_release,
            "rollback_release_id": self.rollback_release,
        }
        for wanted, steps in ((True, self.rollback_on), (False, self.no_rollback_on)):
            for step in steps or ():
                if given.setdefault(_ROLLBACK_ON[step], wanted) is not wanted:
                    raise usage_error(f"--rollback-on and --no-rollback-on both name {step}.")
        return self._change() | {name: item for name, item in given.items() if item is not None}

    def _change(self) -> dict[str, Any]:
        kinds = {
            "--edit and --delete": bool(self.edit or self.delete),
            "--patch": self.patch is not None,
            "--commit": self.commit is not None,
        }
        named = [name for name, is_given in kinds.items() if is_given]
        if not named:
            raise usage_error("There is no change. Give --edit PATH=FILE, --patch or --commit.")
        if len(named) > 1:
            raise usage_error(f"{' and '.join(named)} do not go together. Give one of them.")
        if self.patch is not None:
            return {"patch": _read("--patch", self.patch)}
        if self.commit is not None:
            return {"commit": self.commit}
        return {"edits": _edits(self.edit or (), self.delete or ())}


_ROLLBACK_ON = {
    Failing.DEPLOY: "rollback_on_deploy_failure",
    Failing.WATCHDOG: "rollback_on_restart_watchdog_failure",
    Failing.HEALTH: "rollback_on_health_failure",
}

takes_change = takes(ChangeOptions)
"""Gives a command these options, for its parameter `options`."""


def deployment_context(context: Context | None) -> att_client.DeploymentContext | None:
    """The contract's value for the option's."""
    if context is None:
        return None
    return {
        Context.SELF_HOSTED: att_client.DeploymentContext.SELF_HOSTED,
        Context.EXTERNAL: att_client.DeploymentContext.EXTERNAL,
    }[context]


def _edits(edits: Iterable[str], deleted: Iterable[str]) -> dict[str, bytes | None]:
    change: dict[str, bytes | None] = {}
    for item in edits:
        path, _, file = item.partition("=")
        if not path or not file:
            raise usage_error(f"--edit {item!r} is not PATH=FILE, such as app.py=new.py.")
        if path in change:
            raise usage_error(f"--edit names {path!r} twice.")
        change[path] = _read("--edit", file)
    for path in deleted:
        if path in change:
            raise usage_error(f"{path!r} is both edited and deleted, or deleted twice.")
        change[path] = None
    return change


def _read(option: str, file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise usage_error(f"{option}: {file!r} cannot be read: {error.strerror}.") from error


def _step(until: Until | None) -> att_client.CycleStep | None:
    return None if until is None else att_client.CycleStep[until.name]


def _duration(text: str | None) -> timedelta | None:
    return None if text is None else parse_duration(text)


def _http_probe(url: str | None) -> att_client.Probe | None:
    return None if url is None else att_client.Probe(http=att_client.HttpProbe(url=url))

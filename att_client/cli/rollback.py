"""`att rollback`: back to an earlier release, or what that would take."""

from __future__ import annotations

from typing import Annotated

import typer

import att_client
from att_client.cli import cycle_follow, cycle_view
from att_client.cli.cycle import Detach, Reason, report_begun
from att_client.cli.cycle_options import Context, deployment_context
from att_client.cli.exits import ExitCode
from att_client.cli.output import Output
from att_client.cli.release import full_id
from att_client.cli.session import Json, ProjectId, Target, parse_duration, reported, run


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(epilog=cycle_follow.OUTCOMES_HELP, rich_help_panel="Releases")(rollback)


def rollback(
    project_id: ProjectId,
    to: Annotated[
        str,
        typer.Option(
            metavar="RELEASE",
            help="The release to return to: its id, or its beginning if no other one begins so. "
            "Default: the last good one before.",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Do nothing; show every gate with its verdict. Exits with 1 if it is denied.",
        ),
    ] = False,
    failure: Annotated[
        str,
        typer.Option(
            metavar="CLASS",
            help="With --dry-run: ask as an automatic rollback would, after this failure, such as "
            "health_failure.",
            show_default=False,
        ),
    ] = "",
    reason: Reason = "",
    timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Bound the whole, such as 2m.", show_default=False),
    ] = None,
    context: Annotated[
        Context | None,
        typer.Option(
            metavar="CONTEXT",
            help="Who runs the app: self-hosted or external.",
            show_default=False,
        ),
    ] = None,
    deploy_target: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What is deployed to, for an external context.", show_default=False
        ),
    ] = "",
    detach: Detach = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Return to an earlier release, if every gate of the policy lets pass.

    Works in safe mode too: there only a person rolls back.
    """
    output = Output(as_json=as_json)
    asked = deployment_context(context) or att_client.DeploymentContext.UNSPECIFIED
    with reported(output):
        bound = None if timeout is None else parse_duration(timeout)

    async def call(att: att_client.Client) -> None:
        release_id = await full_id(att, project_id, to)
        if dry_run:
            verdict = await att.bootstrap.evaluate_rollback(
                project_id,
                target_release_id=release_id,
                failure_class=failure,
                deployment_context=asked,
            )
            _report(output, verdict)
            return
        with output.waiting(f"rolling {project_id} back …"):
            started = await att.bootstrap.rollback(
                project_id,
                target_release_id=release_id,
                reason=reason,
                timeout=bound,
                deployment_context=asked,
                deploy_target=deploy_target,
            )
        if detach:
            report_begun(output, started.started)
        else:
            await cycle_follow.follow(att, started.cycle_id, output)

    run(call, target=target, output=output)


def _report(output: Output, verdict: att_client.RollbackVerdict) -> None:
    if output.as_json:
        output.item(verdict)
    else:
        cycle_view.show_verdict(output, verdict)
    if verdict.status is not att_client.RollbackPolicyStatus.ALLOWED:
        raise typer.Exit(ExitCode.FAILED)

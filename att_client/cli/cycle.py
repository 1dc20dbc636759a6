"""`att cycle`: plan, run, watch, show, list, cancel, approve, reject."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

import att_client
from att_client.cli import cycle_follow, cycle_text, cycle_view
from att_client.cli.cycle_options import ChangeOptions, takes_change
from att_client.cli.exits import EXIT_CODES_HELP, CommandError, usage_error
from att_client.cli.newest import Limit, newest, page_size
from att_client.cli.output import Output, duration_text, local_time, printable
from att_client.cli.session import Json, ProjectId, Target, complete_project, reported, run

commands = typer.Typer(
    help="Carry a change to running and healthy, or back: plan, run, watch, show, list, cancel, "
    "approve, reject.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
)


def complete_cycle(incomplete: str) -> list[str]:
    """The ids of projects and of cycles that have not ended; none without a server."""

    async def ids() -> list[str]:
        async with asyncio.timeout(1), att_client.connect() as att:
            return [c.cycle_id async for c in att.bootstrap.list(active_only=True)]

    try:
        cycles = [name for name in asyncio.run(ids()) if name.startswith(incomplete)]
    except (att_client.AttError, TimeoutError):
        cycles = []
    return [*complete_project(incomplete), *cycles]


CycleId = Annotated[
    str,
    typer.Argument(
        metavar="CYCLE",
        help="The cycle's id; or a project's id, for its newest cycle.",
        autocompletion=complete_cycle,
        show_default=False,
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return once it has begun, and let it go on by itself.")
]
Reason = Annotated[
    str, typer.Option(metavar="TEXT", help="Why; the audit log keeps it.", show_default=False)
]
Commit = Annotated[
    str | None,
    typer.Option(
        metavar="SHA",
        help="The commit that was looked at: refused if the cycle is about another one now.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@commands.command("plan", epilog=EXIT_CODES_HELP)
@takes_change
def plan(
    options: ChangeOptions, project_id: ProjectId, target: Target = None, as_json: Json = False
) -> None:
    """Show the steps a cycle would have and the verdict a rollback would have; do nothing."""
    output = Output(as_json=as_json)
    with reported(output):
        arguments = options.arguments()

    async def call(att: att_client.Client) -> None:
        with output.waiting(f"planning a cycle of {project_id} …"):
            planned = await att.bootstrap.plan(project_id, **arguments)
        if as_json:
            output.item(planned)
            return
        output.facts(
            {
                "base commit": planned.base_commit_sha,
                "plan digest": planned.plan_digest,
                "a person has to decide": planned.approval_reason,
            }
        )
        output.say()
        output.table(
            ("STEP", "", "WHY NOT"),
            [
                (cycle_text.word(s.step), "" if not s.reason else "skipped", printable(s.reason))
                for s in planned.steps
            ],
        )
        if planned.rollback is not None:
            output.say()
            cycle_view.show_verdict(output, planned.rollback)
        for line in cycle_text.no_way_back(project_id, planned):
            output.say(line, style="bold yellow")

    run(call, target=target, output=output)


@commands.command("run", epilog=cycle_follow.OUTCOMES_HELP)
@takes_change
def run_cycle(
    options: ChangeOptions,
    project_id: ProjectId,
    detach: Detach = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Carry a change to running and healthy, or back, and show how it goes.

    The cycle goes on when this command, or the server, ends.
    """
    output = Output(as_json=as_json)
    with reported(output):
        arguments = options.arguments()

    async def call(att: att_client.Client) -> None:
        with output.waiting(f"starting a cycle of {project_id} …"):
            started = await att.bootstrap.start(project_id, **arguments)
        if detach:
            report_begun(output, started.started)
        else:
            await cycle_follow.follow(att, started.cycle_id, output)

    run(call, target=target, output=output)


@commands.command("watch", epilog=cycle_follow.OUTCOMES_HELP)
def watch(cycle_id: CycleId, target: Target = None, as_json: Json = False) -> None:
    """Show how a cycle goes, from now to its end."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        cycle = await cycle_follow.find(att, cycle_id)
        await cycle_follow.follow(att, cycle.cycle_id, output)

    run(call, target=target, output=output)


@commands.command("show", epilog=EXIT_CODES_HELP)
def show(
    cycle_id: CycleId,
    step: Annotated[
        str | None,
        typer.Option(
            metavar="STEP",
            help="Show this step alone, such as test or pull-request, with all that is kept of "
            "its output.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Show a cycle as it is now: its steps, and why it ended or what it waits for."""
    output = Output(as_json=as_json)
    with reported(output):
        wanted = None if step is None else _step(step)

    async def call(att: att_client.Client) -> None:
        cycle = await cycle_follow.find(att, cycle_id)
        if wanted is not None:
            status = next((s for s in cycle.steps if s.step is wanted), None)
            if status is None:
                raise usage_error(f"Cycle {cycle.cycle_id} has no step {step}.")
            if as_json:
                output.item(status)
            else:
                cycle_view.show_step(output, status, lines=None)
        elif as_json:
            output.item(cycle)
        else:
            output.facts(cycle_view.cycle_facts(cycle))
            output.say()
            cycle_view.show_steps(output, cycle)
            if cycle.state is att_client.CycleState.ENDED:
                await cycle_follow.show_ending(att, cycle, output)
            for line in cycle_text.waits_for(cycle):
                output.say(line, style="bold yellow")

    run(call, target=target, output=output)


@commands.command("list", epilog=EXIT_CODES_HELP)
def list_cycles(
    project: Annotated[
        str,
        typer.Argument(
            metavar="[PROJECT]",
            help="The project's id. Default: all projects.",
            autocompletion=complete_project,
            show_default=False,
        ),
    ] = "",
    active: Annotated[bool, typer.Option("--active", help="Only those that go on.")] = False,
    limit: Limit = 20,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """List cycles, the newest first."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        pager = att.bootstrap.list(project, active_only=active, page_size=page_size(limit))
        found = await newest(pager, limit, output)
        if as_json:
            return
        if not found:
            output.note("There are no cycles. Start one with `att cycle run PROJECT --edit …`.")
            return
        output.table(
            ("CYCLE", "PROJECT", "STATE", "STEP", "REASON", "BY", "STARTED", "TOOK"),
            [_row(cycle) for cycle in found],
        )

    run(call, target=target, output=output)


@commands.command("cancel", epilog=EXIT_CODES_HELP)
def cancel(
    cycle_id: CycleId, reason: Reason = "", target: Target = None, as_json: Json = False
) -> None:
    """End a cycle: before MERGE it cleans up, after DEPLOY it is a rollback under policy."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        cycle = await cycle_follow.find(att, cycle_id)
        cancelled = await att.bootstrap.cancel(cycle.cycle_id, reason=reason)
        _report(output, cancelled, "Asked to end")

    run(call, target=target, output=output)


@commands.command("approve", epilog=EXIT_CODES_HELP)
def approve(
    cycle_id: CycleId,
    reason: Reason = "",
    commit: Commit = None,
    yes: Yes = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """Let a cycle go on that waits for a decision. Needs the token of an approver.

    Who asked for a cycle cannot approve it.
    """
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        await _decide(att, output, cycle_id, commit, approve=True, reason=reason, yes=yes)

    run(call, target=target, output=output)


@commands.command("reject", epilog=EXIT_CODES_HELP)
def reject(
    cycle_id: CycleId,
    reason: Reason = "",
    commit: Commit = None,
    yes: Yes = False,
    target: Target = None,
    as_json: Json = False,
) -> None:
    """End a cycle that waits for a decision, as REJECTED. Needs the token of an approver."""
    output = Output(as_json=as_json)

    async def call(att: att_client.Client) -> None:
        await _decide(att, output, cycle_id, commit, approve=False, reason=reason, yes=yes)

    run(call, target=target, output=output)


async def _decide(
    att: att_client.Client,
    output: Output,
    cycle_id: str,
    commit: str | None,
    *,
    approve: bool,
    reason: str,
    yes: bool,
) -> None:
    verb, done = ("Approve", "Approved") if approve else ("Reject", "Rejected")
    cycle, asked = await _waiting(att, cycle_id, commit)
    _confirm(output, verb, cycle, asked, yes=yes or output.as_json)
    decide = att.bootstrap.approve if approve else att.bootstrap.reject
    decided = await decide(
        cycle.cycle_id, commit_sha=asked.commit_sha, plan_digest=asked.plan_digest, reason=reason
    )
    _report(output, decided, f"{done} commit {cycle_text.short(asked.commit_sha)}")


async def _waiting(
    att: att_client.Client, cycle_id: str, commit: str | None
) -> tuple[att_client.Cycle, att_client.ApprovalRequest]:
    """The cycle and what is to be decided on; raises CommandError."""
    cycle = await cycle_follow.find(att, cycle_id)
    if cycle.approval is None:
        state = cycle_text.state_word(cycle)
        raise CommandError(
            "CYCLE_NOT_AWAITING_DECISION",
            f"Cycle {cycle.cycle_id} does not wait for a decision: it is {state}. See `att cycle "
            f"show {cycle.cycle_id}`.",
            metadata={"cycle_id": cycle.cycle_id, "state": state},
        )
    if commit is not None and cycle.approval.commit_sha != commit:
        raise CommandError(
            "APPROVAL_STALE",
            f"Cycle {cycle.cycle_id} is about commit {cycle.approval.commit_sha} now, not about "
            f"{commit!r}. Look at it again.",
            metadata={"cycle_id": cycle.cycle_id, "commit_sha": cycle.approval.commit_sha},
        )
    return cycle, cycle.approval


def _confirm(
    output: Output,
    verb: str,
    cycle: att_client.Cycle,
    asked: att_client.ApprovalRequest,
    *,
    yes: bool,
) -> None:
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    output.facts(
        cycle_view.cycle_facts(cycle)
        | {"commit": asked.commit_sha, "asked because": printable(asked.reason)}
    )
    typer.confirm(f"{verb} this commit?", abort=True, err=True)


def report_begun(output: Output, cycle: att_client.Cycle) -> None:
    """Tells of a cycle that goes on by itself."""
    if output.as_json:
        output.item(cycle)
        return
    output.say(cycle_view.headline(cycle, datetime.now(UTC)))
    output.note(cycle_follow.how_to_come_back(cycle.cycle_id))


def _report(output: Output, cycle: att_client.Cycle, done: str) -> None:
    if output.as_json:
        output.item(cycle)
    elif cycle.state is att_client.CycleState.ENDED:
        output.say(cycle_view.headline(cycle, datetime.now(UTC)))
    else:
        output.say(f"{done}: cycle {cycle.cycle_id} of {cycle.project_id}")
        output.note(f"See how it goes with `att cycle watch {cycle.cycle_id}`.")


def _row(cycle: att_client.Cycle) -> tuple[str, ...]:
    took = ""
    if cycle.create_time is not None:
        took = duration_text((cycle.end_time or datetime.now(UTC)) - cycle.create_time)
    failed = cycle_text.failed_step(cycle)
    return (
        cycle.cycle_id,
        cycle.project_id,
        cycle_text.state_word(cycle),
        cycle_text.word(failed.step if failed is not None else cycle.current_step),
        printable(cycle.outcome_reason),
        printable(cycle.requested_by),
        local_time(cycle.create_time),
        took,
    )


def _step(name: str) -> att_client.CycleStep:
    known = {step.name: step for step in att_client.CycleStep if step.name != "UNSPECIFIED"}
    found = known.get(name.upper().replace("-", "_").replace(" ", "_"))
    if found is None:
        names = ", ".join(each.lower().replace("_", "-") for each in known)
        raise usage_error(f"--step {name!r} is no step. Name one of {names}.")
    return found

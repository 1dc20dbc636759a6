"""`att.bootstrap.*`: a change on its way to running and healthy, or back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

import mcp_types as types
from pydantic import Field

import att_client
from att_client import CycleState, CycleStep
from att_client.mcp.call import LONGEST_WAIT, Call
from att_client.mcp.cycle_view import (
    CycleStarted,
    CycleStatus,
    approve_command,
    cycle_started,
    cycle_status,
    step_lines,
    verdict_text,
    waits_for_person,
)
from att_client.mcp.steps import Refused, Step
from att_client.mcp.text import one_line, word
from att_client.mcp.tool import Arguments, Effect, OfProject, Output, Tool

_MOMENT = 10  # seconds


class Edit(Arguments):
    """A file's new content."""

    path: str
    content: Annotated[str | None, Field(description="whole new content; absent removes it")] = None


class Change(OfProject):
    """Arguments of a plan: the change itself, and how far it goes."""

    edits: Annotated[list[Edit] | None, Field(description="one of edits, patch, commit")] = None
    patch: Annotated[str | None, Field(description="unified diff against the base")] = None
    commit: Annotated[str | None, Field(description="full sha of an existing commit")] = None
    message: Annotated[str, Field(description="of the commit")] = ""
    until: Annotated[
        Literal["test", "push", "ci", "merge", "finalize"],
        Field(description="last step to do"),
    ] = "finalize"


class Start(Change):
    """Arguments of a start."""

    require_approval: Annotated[
        bool, Field(description="wait for a person's decision in any case")
    ] = False
    request_id: Annotated[
        str | None,
        Field(max_length=128, description="of your choice: makes a repeated call safe"),
    ] = None


class Status(Arguments):
    """Arguments of a look at a cycle."""

    cycle: Annotated[str | None, Field(description="default: the project's newest")] = None
    project: str | None = None
    wait_seconds: Annotated[
        int,
        Field(ge=0, le=LONGEST_WAIT, description="wait for its end or for a question"),
    ] = 0


class OfCycle(Arguments):
    """Arguments that name a cycle."""

    cycle: str


class Cancel(OfCycle):
    """Arguments of a cancellation."""

    reason: Annotated[str, Field(max_length=1000)] = ""


class Plan(Output):
    """What a cycle would do."""

    base_commit_sha: str
    steps: list[str]
    approval_reason: Annotated[
        str | None, Field(description="why a person would have to decide")
    ] = None
    rollback: Annotated[str, Field(description="what the policy would say")]


class Decision(Output):
    """What came of asking a person."""

    cycle: str
    decided: str
    state: str
    next: str | None = None


async def _plan(call: Call, given: Change) -> Plan:
    plan = await call.att.bootstrap.plan(given.project, **_change(given))
    return Plan(
        base_commit_sha=plan.base_commit_sha,
        steps=step_lines(plan.steps) or [],
        approval_reason=plan.approval_reason or None,
        rollback=verdict_text(plan.rollback) if plan.rollback is not None else "not evaluated",
    )


async def _start(call: Call, given: Start) -> CycleStarted:
    options: att_client.CycleOptions = {}
    if given.require_approval:
        options["require_approval"] = True
    handle = await call.att.bootstrap.start(
        given.project, request_id=given.request_id, **_change(given), **options
    )
    return cycle_started(call, handle.started)


def _change(given: Change) -> dict[str, Any]:
    """The change and its options as the SDK takes them."""
    if [given.edits, given.patch, given.commit].count(None) != 2:
        raise Refused(
            "A change is exactly one of `edits`, `patch` and `commit`.",
            Step(advice="call the same again with one of them."),
        )
    edits = None
    if given.edits is not None:
        edits = {edit.path: edit.content for edit in given.edits}
        if len(edits) != len(given.edits):
            raise Refused(
                "`edits` names a path twice.",
                Step(advice="give each file one edit, and call again."),
            )
    return {
        "edits": edits,
        "patch": given.patch,
        "commit": given.commit,
        "message": given.message,
        "until": CycleStep[given.until.upper()],
    }


async def _status(call: Call, given: Status) -> CycleStatus:
    cycle_id = given.cycle or await _newest(call, given.project)
    cycle = await call.cycle(cycle_id)
    if given.wait_seconds and not _rests(cycle):
        cycle = await _waited(call, cycle, given.wait_seconds, _rests)
    return cycle_status(call, cycle)


async def _newest(call: Call, project: str | None) -> str:
    project = project or call.options.only_project
    if not project:
        raise Refused(
            "Neither a cycle nor a project is named.",
            Step("att.project.list", advice="Then call the same again with project."),
        )
    async for cycle in call.att.bootstrap.list(project, page_size=1):
        return cycle.cycle_id
    raise Refused(
        f"{project} has had no cycle yet.", Step("att.bootstrap.plan", {"project": project})
    )


async def _waited(
    call: Call,
    cycle: att_client.Cycle,
    seconds: int,
    reached: Callable[[att_client.Cycle], bool],
) -> att_client.Cycle:
    """The cycle when that is reached, or after so many seconds as it is then."""
    watch = call.att.bootstrap.watch(cycle.cycle_id, after_revision=cycle.revision)
    await call.progress(_progress(cycle))
    try:
        async with asyncio.timeout(seconds):
            async for cycle in watch:
                await call.progress(_progress(cycle))
                if reached(cycle):
                    break
    except TimeoutError:
        pass
    finally:
        await watch.aclose()
    return cycle


def _rests(cycle: att_client.Cycle) -> bool:
    return cycle.state is CycleState.ENDED or waits_for_person(cycle)


def _progress(cycle: att_client.Cycle) -> str:
    return f"{word(cycle.state)}: {word(cycle.current_step)}"


async def _cancel(call: Call, given: Cancel) -> CycleStatus:
    await call.cycle(given.cycle)
    cycle = await call.att.bootstrap.cancel(given.cycle, reason=given.reason)
    return cycle_status(call, cycle)


_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "title": "Decision", "enum": ["approve", "reject"]},
        "reason": {"type": "string", "title": "Reason", "maxLength": 1000},
    },
    "required": ["decision"],
}


async def _approval(call: Call, given: OfCycle) -> Decision | types.InputRequiredResult:
    cycle = await call.cycle(given.cycle)
    approval = cycle.approval
    if approval is None or not waits_for_person(cycle):
        raise Refused(
            f"Cycle {cycle.cycle_id} waits for no decision, it is {word(cycle.state)}.",
            Step("att.bootstrap.status", {"cycle": cycle.cycle_id}),
        )
    person = Step(
        advice=f"a person with a token of another principal runs `{approve_command(cycle)}`."
    )
    caller = (await call.att.server.info()).principal
    if caller == cycle.requested_by:
        raise Refused(
            f"{caller} asked for this cycle, and so cannot decide on it (DECIDED_BY_REQUESTER).",
            person,
        )
    if not call.asking.possible:
        raise Refused("This client cannot ask a person.", person)
    answer = await call.asking.ask(
        one_line(
            f"Release of {cycle.project_id}, asked for by {cycle.requested_by}: commit "
            f"{approval.commit_sha}. A person has to decide: {approval.reason}. "
            f"Its diff: att cycle show {cycle.cycle_id}."
        ),
        _FORM,
        f"{cycle.cycle_id} {approval.commit_sha} {approval.plan_digest}",
    )
    if isinstance(answer, types.InputRequiredResult):
        return answer
    form = answer.accepted or {}
    decide = {
        "approve": call.att.bootstrap.approve,
        "reject": call.att.bootstrap.reject,
    }.get(str(form.get("decision")))
    if decide is None:
        return Decision(
            cycle=cycle.cycle_id,
            decided="nothing: declined, cancelled or not answered",
            state=word(cycle.state),
            next=call.told(person),
        )
    decided = await decide(
        cycle.cycle_id,
        commit_sha=approval.commit_sha,
        plan_digest=approval.plan_digest,
        reason=str(form.get("reason") or "")[:1000],
        request_id=answer.question_id,
    )
    if waits_for_person(decided):
        # It is noted, and the cycle goes on in a moment.
        decided = await _waited(call, decided, _MOMENT, lambda cycle: not waits_for_person(cycle))
    return Decision(
        cycle=cycle.cycle_id,
        decided=f"{form['decision']}, by {caller}",
        state=word(decided.state),
        next=call.told(
            Step("att.bootstrap.status", {"cycle": cycle.cycle_id, "wait_seconds": "45"})
        ),
    )


TOOLS = (
    Tool(
        name="att.bootstrap.plan",
        description="What a change would go through: steps, gates, approval. Does nothing.",
        arguments=Change,
        output=Plan,
        effect=Effect.READS,
        run=_plan,
    ),
    Tool(
        name="att.bootstrap.start",
        description="Release a change: edit, test, commit, CI, merge, deploy, health. Returns at "
        "once with a cycle that goes on by itself; what fails after deploy is rolled back.",
        arguments=Start,
        output=CycleStarted,
        effect=Effect.RELEASES,
        run=_start,
    ),
    Tool(
        name="att.bootstrap.status",
        description="How a cycle stands or ended, and why.",
        arguments=Status,
        output=CycleStatus,
        effect=Effect.READS,
        run=_status,
    ),
    Tool(
        name="att.bootstrap.cancel",
        description="End a cycle: before merge it cleans up, after deploy it rolls back.",
        arguments=Cancel,
        output=CycleStatus,
        effect=Effect.ENDS,
        run=_cancel,
    ),
    Tool(
        name="att.bootstrap.approval",
        description="Ask the person at this client to decide on a cycle that waits for it. The "
        "server judges whether the decision counts.",
        arguments=OfCycle,
        output=Decision,
        effect=Effect.ASKS,
        run=_approval,
    ),
)

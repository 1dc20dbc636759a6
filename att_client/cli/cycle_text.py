"""A release cycle in words: its steps, how it ended, and what to do next."""

from __future__ import annotations

from datetime import datetime, timedelta

import att_client
from att_client.cli.output import duration_text, local_time, printable, to_plain

_SHORT = 12  # characters of a sha
_SHA_LENGTHS = (40, 64)
_MOST_FACTS = 4

_OVER = (
    att_client.CycleStepState.SUCCEEDED,
    att_client.CycleStepState.FAILED,
    att_client.CycleStepState.SKIPPED,
)
_NOT_BEGUN = (att_client.CycleStepState.UNSPECIFIED, att_client.CycleStepState.PENDING)


def word(value: object) -> str:
    """An enum's value for people: `rolled back`, `pull request`."""
    return str(to_plain(value)).replace("_", " ")


def short(text: str) -> str:
    """A sha as people name it; anything else as it is."""
    is_sha = len(text) in _SHA_LENGTHS and set(text) <= set("0123456789abcdef")
    return text[:_SHORT] if is_sha else text


def state_word(cycle: att_client.Cycle) -> str:
    """How the cycle stands: its state, or its outcome once it has ended."""
    return word(cycle.outcome if cycle.state is att_client.CycleState.ENDED else cycle.state)


# Steps -------------------------------------------------------------------------


def begun(step: att_client.CycleStepStatus) -> bool:
    """Whether there is anything to tell of the step."""
    return step.state not in _NOT_BEGUN


def times(step: att_client.CycleStepStatus, now: datetime) -> tuple[str, str]:
    """How long the step has worked and how long it has waited; empty where it has not."""
    if step.start_time is None or step.state in (*_NOT_BEGUN, att_client.CycleStepState.SKIPPED):
        return "", ""
    waited = step.waiting_duration or timedelta()
    end = step.end_time if step.state in _OVER else None
    worked = max((end or now) - step.start_time - waited, timedelta())
    if step.state is att_client.CycleStepState.WAITING:
        # Since when it waits this time is not told.
        return "", duration_text(worked + waited)
    return duration_text(worked), duration_text(waited) if waited else ""


def step_note(step: att_client.CycleStepStatus) -> str:
    """Why a step is as it is, and the first of its facts."""
    parts = [f"attempt {step.attempt}"] if step.attempt > 1 else []
    if step.reason:
        parts.append(step.reason)
    if step.state is att_client.CycleStepState.SUCCEEDED:
        parts += facts(step)[:_MOST_FACTS]
    return printable(", ".join(parts))


def facts(step: att_client.CycleStepStatus) -> list[str]:
    """The evidence of a step, one fact each, on one line."""
    return [printable(f"{name} {short(value)}") for name, value in sorted(step.evidence.items())]


def failed_step(cycle: att_client.Cycle) -> att_client.CycleStepStatus | None:
    """The step that everything after it is about: the first that failed."""
    failed = (step for step in cycle.steps if step.state is att_client.CycleStepState.FAILED)
    return next(failed, None)


def waiting_step(cycle: att_client.Cycle) -> att_client.CycleStepStatus | None:
    """The step that waits now."""
    waiting = (step for step in cycle.steps if step.state is att_client.CycleStepState.WAITING)
    return next(waiting, None)


# The cycle ---------------------------------------------------------------------


def waits_for(cycle: att_client.Cycle) -> list[str]:
    """What a cycle that stands still waits for, and what a person can do; empty if it goes on."""
    lines = []
    if cycle.state is att_client.CycleState.HELD:
        reasons = (step.reason for step in cycle.steps if step.step is cycle.current_step)
        trying = waiting_step(cycle) is None
        next_try = f"next try {_clock(cycle.next_try_time)}" if cycle.next_try_time else ""
        lines.append(
            _sentence(
                f"Held at {word(cycle.current_step)}: {next(reasons, '') or 'something outside'}",
                "it tries again now" if trying else next_try,
                f"it gives up {local_time(cycle.deadline_time)}" if cycle.deadline_time else "",
            )
        )
    if cycle.approval is not None and cycle.state in (
        att_client.CycleState.AWAITING_APPROVAL,
        att_client.CycleState.HELD,
    ):
        asked = cycle.approval
        lines += [
            _sentence(
                f"A person has to decide on commit {short(asked.commit_sha)} ({asked.reason})",
                f"until {local_time(asked.expire_time)}" if asked.expire_time else "",
            ),
            f"With the token of an approver: `att cycle approve {cycle.cycle_id}`, or `reject`.",
        ]
    return lines


def ending(cycle: att_client.Cycle) -> list[str]:
    """How an ended cycle ended and why, in sentences; the first one says the outcome."""
    result = cycle.result or att_client.CycleResult()
    match cycle.outcome:
        case att_client.CycleOutcome.SUCCEEDED:
            return [f"SUCCEEDED: {_success(cycle, result)}"]
        case att_client.CycleOutcome.ROLLED_BACK:
            return [
                (
                    f"ROLLED BACK: release {short(result.deployed_release_id)} was not kept, "
                    f"because {_cause(cycle)}."
                ),
                f"{_target(result)} runs again and is healthy. {_base(result)}",
            ]
        case att_client.CycleOutcome.ROLLBACK_FAILED:
            return [
                (
                    f"ROLLBACK FAILED: release {short(result.deployed_release_id)} was not kept, "
                    f"because {_cause(cycle)},"
                ),
                (
                    f"and going back to {_target(result, begin=False)} failed too. A person has "
                    f"to act: `att status {cycle.project_id}`, `att logs {cycle.project_id}`."
                ),
            ]
        case att_client.CycleOutcome.CANCELLED:
            by = f" by {cycle.cancelled_by}" if cycle.cancelled_by else ""
            return [f"CANCELLED{by}. {_what_is_left(cycle, result)}"]
        case att_client.CycleOutcome.REJECTED:
            return [f"REJECTED: the approval was refused. {_what_is_left(cycle, result)}"]
    return [f"{word(cycle.outcome).upper()}: {_cause(cycle)}.", _what_is_left(cycle, result)]


def _success(cycle: att_client.Cycle, result: att_client.CycleResult) -> str:
    if cycle.kind is att_client.CycleKind.ROLLBACK:
        base = f" {_base(result)}" if result.reverted else ""
        target = _target(result, begin=False)
        return f"{target} of {cycle.project_id} runs again and is healthy.{base}"
    skipped = {
        step.step: step.reason
        for step in cycle.steps
        if step.state is att_client.CycleStepState.SKIPPED
    }
    if att_client.CycleStep.DEPLOY not in skipped:
        merged = f", merged as {short(result.merge_commit_sha)}" if result.merged else ""
        return (
            f"{cycle.project_id} runs release {short(result.deployed_release_id)} and is "
            f"healthy{merged}."
        )
    done = [step.step for step in cycle.steps if step.state is att_client.CycleStepState.SUCCEEDED]
    last = word(done[-1]) if done else "nothing"
    where = f" See {result.pr_url}." if result.pr_url and not result.merged else ""
    return printable(f"done up to {last} ({skipped[att_client.CycleStep.DEPLOY]}).{where}")


def _cause(cycle: att_client.Cycle) -> str:
    """Why it failed: the class, and the failed step's own reason."""
    step = failed_step(cycle)
    if step is None:
        return printable(cycle.outcome_reason or "no step says why")
    reason = f" ({step.reason})" if step.reason and step.reason != cycle.outcome_reason else ""
    what = f"{word(step.step)} failed{reason}"
    return printable(f"{what}: {cycle.outcome_reason}" if cycle.outcome_reason else what)


def _what_is_left(cycle: att_client.Cycle, result: att_client.CycleResult) -> str:
    if result.rollback_policy_status is att_client.RollbackPolicyStatus.DENIED:
        return (
            f"The policy denied the rollback ({printable(result.rollback_policy_reason)}): what "
            f"runs stays. {_base(result)}"
        )
    if result.deployed_release_id:
        return f"Release {short(result.deployed_release_id)} stays. {_base(result)}"
    if result.merged:
        return f"Nothing was deployed. {_base(result)}"
    return "Nothing was merged and nothing was deployed: the project is as it was."


def _base(result: att_client.CycleResult) -> str:
    if result.reverted:
        return f"The merge was undone on the base, as {short(result.revert_commit_sha)}."
    if result.merged:
        return f"The base still holds the change, as {short(result.merge_commit_sha)}."
    return "The base does not hold the change."


def _target(result: att_client.CycleResult, *, begin: bool = True) -> str:
    name = "Release" if begin else "release"
    return f"{name} {short(result.rollback_target_release_id)}"


def _clock(time: datetime) -> str:
    return time.astimezone().strftime("%H:%M:%S")


def _sentence(*parts: str) -> str:
    return printable(", ".join(part for part in parts if part) + ".")


# Blocked projects --------------------------------------------------------------


def blocked(project: att_client.Project) -> list[str]:
    """Why nothing happens to a project by itself, and what a person can do; empty if it does."""
    name, reason = project.project_id, printable(project.mode_reason or "no reason given")
    match project.mode:
        case att_client.ProjectMode.SAFE:
            return [
                f"{name} is in SAFE MODE ({reason}): what runs stays, nothing automatic happens.",
                _WAYS_OUT.get(project.mode_reason, _WAY_OUT).format(project=name),
            ]
        case att_client.ProjectMode.FROZEN:
            return [
                f"{name} is FROZEN ({reason}): nothing is released, nothing is rolled back.",
                f"An admin ends that: `att project mode {name} normal`.",
            ]
    return []


def no_way_back(project_id: str, planned: att_client.PlanCycleResponse) -> list[str]:
    """What to do before a cycle that could not be rolled back for want of an earlier release."""
    if planned.rollback is None or planned.rollback.reason not in _NO_EARLIER_RELEASE:
        return []
    return [
        f"{project_id} has no release to return to yet: if this one fails, it stays.",
        f"First release the base: `att cycle run {project_id} --commit {planned.base_commit_sha}`.",
    ]


_NO_EARLIER_RELEASE = ("rollback_target_unspecified", "rollback_target_unknown")

_WAY_OUT = (
    "See every gate with `att rollback {project} --dry-run`. Roll back by hand with `att rollback "
    "{project}`, or repair it; then an admin sets `att project mode {project} normal`."
)
_WAYS_OUT = {
    "base_contains_bad_change": (
        "Revert the change on the base branch by hand and push; then an admin sets `att project "
        "mode {project} normal`."
    ),
    "rollback_failed": (
        "Look at `att status {project}` and `att logs {project} --tail 50`, then at `att release "
        "list {project}`: `att rollback {project} --to RELEASE` tries another one. Then an admin "
        "sets `att project mode {project} normal`."
    ),
}

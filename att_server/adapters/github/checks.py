"""What the checks of a commit say together: check runs and statuses, less what is not required."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from att_server.adapters.github.repository import CheckRun, CommitStatus, RequiredCheck
from att_server.core.cycles.forge import Checks, CheckState

MAX_TAIL_BYTES = 64 * 1024
_SHOWN = 20  # names in the evidence of each kind


class _Verdict(Enum):
    PASSED = auto()
    NEUTRAL = auto()
    """It did not judge: skipped, or neutral by its own word."""
    PENDING = auto()
    FAILED = auto()


_OF_CONCLUSION = {
    "success": _Verdict.PASSED,
    "neutral": _Verdict.NEUTRAL,
    "skipped": _Verdict.NEUTRAL,
    # A person has to let it begin, or it will be begun anew.
    "action_required": _Verdict.PENDING,
    "stale": _Verdict.PENDING,
}
_OF_STATE = {"success": _Verdict.PASSED, "pending": _Verdict.PENDING}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    name: str
    verdict: _Verdict
    word: str
    url: str
    text: str
    app_id: int | None = None


def judged(
    runs: Iterable[CheckRun],
    statuses: Iterable[CommitStatus],
    required: Sequence[RequiredCheck],
) -> Checks:
    """Success only where at least one check passed, every required one is there, and none failed.

    Where none is required all count; then others may be to come, and it is not settled.
    """
    checks = [*_latest(runs), *map(_of_status, statuses)]
    missing: list[str] = []
    if required:
        every, checks = checks, []
        for each in dict.fromkeys((want.context, want.app_id) for want in required):
            found = [check for check in every if _is(check, *each)]
            checks += [check for check in found if check not in checks]
            if not found:
                missing.append(each[0])
    evidence = {
        "checks": _words(f"{check.name}: {check.word}" for check in checks),
        "missing": _words(missing),
    }
    failed = [check for check in checks if check.verdict is _Verdict.FAILED]
    if failed:
        return Checks(
            state=CheckState.FAILURE,
            reason="check_failed",
            evidence=_told(evidence, failed=_words(c.name for c in failed), url=failed[0].url),
            log_tail="\n".join(map(_log, failed)).encode(errors="replace")[-MAX_TAIL_BYTES:],
        )
    if missing or any(check.verdict is _Verdict.PENDING for check in checks):
        state = CheckState.PENDING
    elif any(check.verdict is _Verdict.PASSED for check in checks):
        state = CheckState.SUCCESS
    else:
        state = CheckState.NONE
    return Checks(state=state, evidence=_told(evidence), settled=bool(required))


def _latest(runs: Iterable[CheckRun]) -> list[_Check]:
    """The newest run of each app and name."""
    newest: dict[tuple[int | None, str], CheckRun] = {}
    for run in sorted(runs, key=lambda run: run.id):
        newest[run.app.id if run.app else None, run.name] = run
    return [_of_run(run) for run in newest.values()]


def _of_run(run: CheckRun) -> _Check:
    verdict = _Verdict.PENDING
    if run.status == "completed":
        verdict = _OF_CONCLUSION.get(run.conclusion or "", _Verdict.FAILED)
    return _Check(
        name=run.name,
        verdict=verdict,
        word=run.conclusion or run.status,
        url=run.html_url or "",
        text="\n".join(filter(None, (run.output.title, run.output.summary))),
        app_id=run.app.id if run.app else None,
    )


def _of_status(status: CommitStatus) -> _Check:
    return _Check(
        name=status.context,
        verdict=_OF_STATE.get(status.state, _Verdict.FAILED),
        word=status.state,
        url=status.target_url or "",
        text=status.description or "",
    )


def _is(check: _Check, name: str, app_id: int | None) -> bool:
    """Whether it is the one that is required. GitHub writes -1 for any app."""
    return check.name == name and (app_id in (None, -1) or check.app_id == app_id)


def _words(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = len(listed) - _SHOWN
    shown = ", ".join("".join(filter(str.isprintable, name)) for name in listed[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def _told(evidence: dict[str, str], **more: str) -> dict[str, str]:
    return {
        name: value for name, value in {**evidence, **more}.items() if value or name == "checks"
    }


def _log(check: _Check) -> str:
    return "\n".join(filter(None, (f"{check.name}: {check.word}", check.text, check.url)))

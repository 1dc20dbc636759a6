"""What became of a run that a cycle began: a pure look at what its supervisor says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from att_server.core.model import RunExit, RunStatus, RuntimeState


class RunFate(StrEnum):
    """What is known of the run."""

    UP = "up"
    """It goes on, and has done so since it was begun."""
    SILENT = "silent"
    """Its supervisor does not answer: whether it goes on is not known."""
    ENDED = "ended"
    """It ended, be it that another one was started in its place."""
    LOST = "lost"
    """It went down with its supervisor or the host, which says nothing against the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLook:
    """What a look at the run found.

    run_id: of the run that goes on, which may be one that was begun in place of a
    lost one; else of the run that was looked for. reason: why it does not go on,
    in snake case.
    """

    fate: RunFate
    run_id: str
    reason: str = ""
    exit: RunExit | None = None


_TAKEN_DOWN = frozenset({"supervisor_lost", "host_restarted"})
_OVER = frozenset({RuntimeState.EXITED, RuntimeState.FAILED, RuntimeState.BACKOFF})


def look_at_run(status: RunStatus | None, *, run_id: str, release_id: str) -> RunLook:
    """Looks for the run, whoever was away meanwhile: its supervisor remembers its end.

    run_id: empty where it was not noted; a run of the release is taken for it.
    """
    if status is None:
        return RunLook(fate=RunFate.LOST, run_id=run_id, reason="process_not_running")
    if status.run_id == run_id:
        return _look_at_present(status)
    ended = next((past for past in _past(status) if past[0] == run_id), None)
    lost = ended is not None and _is_lost(ended[1], "")
    goes_on = status.state.alive and status.exit is None
    if goes_on and status.release_id == release_id and (lost or not status.restarts):
        # Only a call begins a run that is no restart, and the project is held: it
        # is the cycle's own, begun by a server that died before it noted it.
        present = _look_at_present(status)
        return RunLook(fate=present.fate, run_id=status.run_id, reason=present.reason)
    if lost:
        return RunLook(fate=RunFate.LOST, run_id=run_id, reason="supervisor_lost")
    if ended is not None:
        return RunLook(fate=RunFate.ENDED, run_id=run_id, reason=_why(ended[1]), exit=ended[1])
    return RunLook(fate=RunFate.ENDED, run_id=run_id, reason="process_replaced")


def _look_at_present(status: RunStatus) -> RunLook:
    if status.state is RuntimeState.UNKNOWN and status.exit is None:
        return RunLook(fate=RunFate.SILENT, run_id=status.run_id, reason="supervisor_unreachable")
    taken_down = status.state is RuntimeState.STOPPED or not (
        status.this_boot or status.state in _OVER
    )
    if taken_down or _is_lost(status.exit, status.reason):
        # No call stops it while the project is held: its supervisor was told to end.
        reason = status.reason if status.reason in _TAKEN_DOWN else "supervisor_lost"
        return RunLook(fate=RunFate.LOST, run_id=status.run_id, reason=reason)
    if status.exit is not None or status.state in _OVER:
        reason = status.start_failure or status.reason or _why(status.exit)
        return RunLook(fate=RunFate.ENDED, run_id=status.run_id, reason=reason, exit=status.exit)
    if status.restarts:
        ended = status.past[-1].exit if status.past else None
        return RunLook(
            fate=RunFate.ENDED, run_id=status.run_id, reason="process_restarted", exit=ended
        )
    return RunLook(fate=RunFate.UP, run_id=status.run_id)


def _past(status: RunStatus) -> Iterator[tuple[str, RunExit]]:
    for past in (*status.past, *status.earlier):
        yield past.run_id, past.exit


def _is_lost(ended: RunExit | None, reason: str) -> bool:
    return reason in _TAKEN_DOWN or (
        ended is not None and (ended.supervisor_lost or ended.reason in _TAKEN_DOWN)
    )


def _why(ended: RunExit | None) -> str:
    if ended is None:
        return "process_not_running"
    if ended.reason:
        return ended.reason
    return "start_error" if ended.start_error is not None else "process_exited"

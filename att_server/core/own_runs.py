"""Starts of this server as runs of its project, by what its launcher has on record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from att_server.core.cycles.server_launcher import LaunchEnd, ServerLauncher
from att_server.core.model import PastRun, RunExit, RunStatus, RuntimeState


def run_id(launcher: ServerLauncher) -> str:
    """The id of the run that this server is."""
    return f"launch-{launcher.launch}"


def this_run(launcher: ServerLauncher, pid: int) -> RunStatus:
    """This start of the server as a run, and those before it."""
    past, earlier = _runs_before(launcher.state().ended, launcher.launch, launcher.release_id)
    return RunStatus(
        supervisor_id="launcher",
        spec_digest="",
        state=RuntimeState.READY,
        run_id=run_id(launcher),
        pid=pid,
        start_time=launcher.start_time,
        ready_time=launcher.start_time,
        restarts=sum(not run.exit.supervisor_lost for run in past),
        release_id=launcher.release_id,
        past=past,
        earlier=earlier,
    )


def run_now(launcher: ServerLauncher, pid: int) -> RunStatus:
    """The same; but where this server serves again after a later one, that one at first.

    Until the launcher has noted its end, nobody can say whether it speaks against its
    release: it is UNKNOWN.
    """
    state = launcher.state()
    missed = next((each for each in state.missed if each.launch > launcher.launch), None)
    if missed is None:
        return this_run(launcher, pid)
    return RunStatus(
        supervisor_id="launcher",
        spec_digest="",
        state=RuntimeState.UNKNOWN,
        run_id=f"launch-{missed.launch}",
        pid=missed.pid,
        start_time=launcher.start_time,
        release_id=missed.release_id,
        earlier=tuple(map(_run, state.ended)),
    )


def _runs_before(
    ended: Sequence[LaunchEnd], launch: int, release_id: str
) -> tuple[tuple[PastRun, ...], tuple[PastRun, ...]]:
    """The runs that this one was begun in place of, and all others that are known."""
    by_launch = {end.launch: end for end in ended}
    past: list[LaunchEnd] = []
    before = by_launch.get(launch - 1)
    while before is not None and before.release_id == release_id:
        past.append(before)
        before = by_launch.get(before.launch - 1)
    others = [end for end in ended if end not in past]
    return tuple(map(_run, reversed(past))), tuple(map(_run, others))


def _run(end: LaunchEnd) -> PastRun:
    code = end.exit_code
    return PastRun(
        run_id=f"launch-{end.launch}",
        pid=end.pid,
        start_time=end.start_time,
        exit=RunExit(
            exit_code=code if code is not None and code >= 0 and not end.lost else None,
            signal=-code if code is not None and code < 0 and not end.lost else None,
            supervisor_lost=end.lost,
            time=end.end_time,
            duration=max(timedelta(), end.end_time - end.start_time),
            reason="" if end.lost or end.reason.startswith(("exited", "killed")) else end.reason,
        ),
    )

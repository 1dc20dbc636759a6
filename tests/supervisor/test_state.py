"""`state.json` and `spec.json` say the same before and after, and to other releases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from att_server.core.model import RuntimeState
from att_server.supervisor import state as states
from att_server.supervisor.limits import Limits
from att_server.supervisor.restart import RestartPolicy
from att_server.supervisor.spec import Inherited, Spec
from att_server.supervisor.state import Run, RunEnd, State

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

ENDS = [
    RunEnd(exit_code=0, time=NOW, duration=timedelta(seconds=1.5)),
    RunEnd(signal=9, time=NOW, duration=timedelta(0)),
    RunEnd(start_error="no: such", time=NOW, duration=timedelta(0)),
    RunEnd(supervisor_lost=True, time=NOW, duration=timedelta(days=3)),
    RunEnd(exit_code=0, time=NOW, duration=timedelta(1), reason=states.LIVENESS_FAILED),
    RunEnd(signal=9, time=NOW, duration=timedelta(1), reason=states.OOM_KILLED),
]


def state(**changes: object) -> State:
    values: dict[str, object] = {
        "supervisor_id": "S",
        "project_id": "app",
        "log_id": "L",
        "pid": 5,
        "start_ticks": 6,
        "boot_id": "b",
        "epoch": 7,
        "spec_digest": "d",
        "state": states.RUNNING,
        "command": ("sh", "-c", "ä\udcff"),
        "marker_sequence": 2**40,
    }
    return State(**{**values, **changes})  # type: ignore[arg-type]  # the fields' own types


@pytest.mark.parametrize("end", [None, *ENDS])
def test_a_state_is_read_as_it_was_written(end: RunEnd | None, tmp_path: Path) -> None:
    run = Run(run_id="R", pid=1, start_ticks=2, start_time=NOW, ready_time=NOW, end=end)
    written = state(run=run)
    written.save(str(tmp_path))
    assert State.load(str(tmp_path)) == written
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_wait_and_the_runs_before_are_read_as_they_were_written(tmp_path: Path) -> None:
    past = tuple(
        Run(run_id=f"R{number}", pid=number, start_time=NOW, end=end)
        for number, end in enumerate(ENDS)
    )
    written = state(
        state=states.BACKOFF,
        reason=states.SIGNALLED,
        restarts=9,
        attempt=3,
        restart_times=(1.5, 2.25),
        next_restart_time=NOW,
        run=Run(run_id="R", pid=1, start_time=NOW, end=ENDS[1]),
        past=past,
    )
    written.save(str(tmp_path))
    assert State.load(str(tmp_path)) == written
    assert not written.ended


@pytest.mark.parametrize(
    ("end", "failed", "cause", "conclusion"),
    [
        (ENDS[0], False, "exited", ("exited", "")),
        (ENDS[1], True, "signalled", ("exited", "")),
        (ENDS[2], True, "start_error", ("failed", "start_error")),
        (ENDS[3], True, "supervisor_lost", ("exited", "supervisor_lost")),
        (ENDS[4], True, "liveness_failed", ("failed", "liveness_failed")),
        (ENDS[5], True, "oom_killed", ("exited", "oom_killed")),
    ],
)
def test_an_end_says_whether_it_failed_and_what_is_left_without_a_policy(
    end: RunEnd, failed: bool, cause: str, conclusion: tuple[str, str]
) -> None:
    assert (end.failed, end.cause, end.conclusion) == (failed, cause, conclusion)


@pytest.mark.parametrize("end", ENDS)
def test_an_end_marker_says_the_same_as_the_state(end: RunEnd) -> None:
    assert RunEnd.from_marker(json.loads(json.dumps(end.marker())), NOW) == end


def test_a_later_release_may_add_fields(tmp_path: Path) -> None:
    run = Run(run_id="R", start_time=NOW, end=ENDS[0])
    form = json.loads(json.dumps(state(run=run).form()))
    form["new"] = form["run"]["new"] = form["run"]["exit"]["new"] = {"deep": [1]}
    (tmp_path / "state.json").write_text(json.dumps(form))
    assert State.load(str(tmp_path)) == state(run=run)


def test_an_earlier_release_may_lack_fields() -> None:
    form = {"supervisor_id": "S", "project_id": "app", "log_id": "L", "state": "running"}
    read = State.from_form({**form, "run": {"run_id": "R", "start_time": "2030-01-02T03:04:05Z"}})
    assert (read.reason, read.restarts, read.command) == ("", 0, ())
    assert read.run is not None
    assert (read.run.pid, read.run.end) == (0, None)


def test_no_state_is_none_and_a_torn_one_is_an_error(tmp_path: Path) -> None:
    assert State.load(str(tmp_path)) is None
    (tmp_path / "state.json").write_text('{"state": ')
    with pytest.raises(ValueError, match="Expecting"):
        State.load(str(tmp_path))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 10_000,
        '{"state": "ready"}',
        '{"supervisor_id": 1, "project_id": 2, "log_id": 3, "state": 4, "pid": "x"}',
        '{"supervisor_id": 1, "project_id": 2, "log_id": 3, "state": 4, "run": {}}',
        '{"supervisor_id": 1, "project_id": 2, "log_id": 3, "state": 4, "restart_times": [{}]}',
        (
            '{"supervisor_id": 1, "project_id": 2, "log_id": 3, "state": 4, "run": {"run_id": "R", '
            '"start_time": "2030-01-02T03:04:05Z", "exit": {"time": "2030-01-02T03:04:05Z", '
            '"exit_code": 1, "duration": 1e300}}}'
        ),
    ],
)
def test_whatever_is_no_state_or_specification_is_one_kind_of_error(
    data: str, tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_text(data)
    (tmp_path / "spec.json").write_text(data)
    with pytest.raises(ValueError):  # noqa: PT011  # the message is the parser's
        State.load(str(tmp_path))
    with pytest.raises(ValueError):  # noqa: PT011  # the message is the parser's
        Spec.load(str(tmp_path))


def test_a_spec_is_read_as_it_was_written_by_its_owner_only(tmp_path: Path) -> None:
    spec = Spec(
        supervisor_id="S",
        project_id="app",
        log_id="L",
        epoch=1,
        digest="d",
        command=("a", "b c"),
        directory="/x",
        env={"KEY": "value\n\udcff"},
        grace=timedelta(seconds=0.5),
        probed=True,
        release_id="r",
        restart=RestartPolicy(condition="always", initial=0.25, max_restarts=3),
        limits=Limits(memory_bytes=5, cpu_time=1.5),
        history=Inherited(
            restarts=4,
            attempt=2,
            restart_times=(1.0,),
            past=(Run(run_id="R", pid=3, start_time=NOW, end=ENDS[0]),),
        ),
        after_loss=True,
    )
    spec.save(str(tmp_path))
    assert Spec.load(str(tmp_path)) == spec
    assert (tmp_path / "spec.json").stat().st_mode & 0o777 == 0o600


def test_a_specification_of_an_earlier_release_restarts_nothing(tmp_path: Path) -> None:
    form = {
        "supervisor_id": "S",
        "project_id": "app",
        "log_id": "L",
        "epoch": 1,
        "digest": "d",
        "command": ["a"],
        "directory": "/",
        "env": {},
        "grace": 1,
        "probed": False,
    }
    (tmp_path / "spec.json").write_text(json.dumps(form))
    read = Spec.load(str(tmp_path))
    assert (read.restart, read.limits) == (RestartPolicy(), Limits())
    assert (read.history, read.after_loss) == (Inherited(), False)


def test_every_state_is_one_that_clients_know() -> None:
    names = {states.STARTING, states.RUNNING, states.READY, states.STOPPING, states.BACKOFF}
    names |= states.ENDED
    assert names <= {str(name) for name in RuntimeState}
    assert {name for name in names if not RuntimeState(name).alive} == states.ENDED

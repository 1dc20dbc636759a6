"""Conversions lose nothing that the contract can say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from att.v1 import event_service_pb2, log_pb2, project_pb2
from att_server.core.log_selection import LogPosition
from att_server.core.model import (
    DesiredState,
    Event,
    EventFilter,
    GapReason,
    LogChunk,
    LogGap,
    LogStream,
    ProbeResult,
    Project,
    ProjectMode,
    RunEnded,
    RunExit,
    RunStarted,
    RunStatus,
    Runtime,
    RuntimeState,
)
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from att_server.core.settings_rules import violations
from att_server.rpc import convert, convert_settings, convert_time

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SPANS = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=4000))


@pytest.mark.parametrize(
    ("members", "table"),
    [
        (ProjectMode, convert.PROJECT_MODES),
        (RuntimeState, convert.RUNTIME_STATES),
        (DesiredState, convert.DESIRED_STATES),
        (LogStream, convert.LOG_STREAMS),
        (GapReason, convert.GAP_REASONS),
    ],
)
def test_every_member_has_a_value_of_its_own(members: type[Enum], table: Mapping[Any, int]) -> None:
    assert set(table) == set(members)
    assert len(set(table.values())) == len(table)
    assert 0 not in table.values()


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_survive(time: datetime) -> None:
    message = convert_time.timestamp(time)
    assert convert_time.to_datetime(message) == time
    assert message.ToDatetime(UTC) == time


@given(SPANS)
def test_durations_survive(span: timedelta) -> None:
    assert convert_time.to_timedelta(convert_time.duration(span)) == span


TEXTS = st.text("ab:/", min_size=1, max_size=5)
WORDS = st.lists(st.text("abc"), max_size=3).map(tuple)
NUMBERS = st.none() | st.integers(0, 2**53)
PROBES = st.builds(
    Probe,
    kind=st.one_of(
        st.builds(HttpProbe, url=TEXTS),
        st.builds(TcpProbe, host=TEXTS, port=st.integers(1, 65_535)),
        st.builds(CommandProbe, command=WORDS),
        st.builds(GrpcProbe, target=TEXTS, service=st.text("ab.")),
        st.builds(LogProbe, pattern=TEXTS),
    ),
    interval=SPANS,
    timeout=SPANS,
    threshold=st.integers(1, 1000),
    deadline=st.none() | SPANS,
)


@given(
    st.builds(
        RuntimeSettings,
        command=WORDS,
        env=st.dictionaries(st.text("AB", min_size=1), st.text("x")),
        env_file=st.none() | TEXTS,
        run_as=st.none() | TEXTS,
        stop_grace=st.none() | SPANS,
        restart=st.none()
        | st.builds(
            RestartPolicy,
            condition=st.sampled_from(RestartCondition),
            initial_backoff=SPANS,
            max_backoff=SPANS,
            backoff_factor=st.floats(0, 100),
            backoff_jitter=st.floats(0, 1),
            max_restarts=st.integers(0, 10_000),
            window=SPANS,
            stable_after=SPANS,
        ),
        limits=st.none()
        | st.builds(
            ResourceLimits,
            memory_bytes=NUMBERS,
            open_files=NUMBERS,
            processes=NUMBERS,
            cpu_time=st.none() | SPANS,
        ),
        readiness=st.none() | PROBES,
        liveness=st.none() | PROBES,
    )
)
def test_settings_survive(settings: RuntimeSettings) -> None:
    message = convert_settings.runtime_settings(settings)
    assert convert_settings.to_runtime_settings(message) == settings


def test_unset_settings_are_unset() -> None:
    message = project_pb2.RuntimeSettings()
    assert convert_settings.to_runtime_settings(message) == RuntimeSettings()
    assert convert_settings.runtime_settings(RuntimeSettings()) == message


def test_a_probe_takes_the_documented_defaults() -> None:
    http = project_pb2.Probe(http=project_pb2.HttpProbe(url="http://localhost/"))
    tcp = project_pb2.Probe(tcp=project_pb2.TcpProbe(port=80))
    settings = convert_settings.to_runtime_settings(
        project_pb2.RuntimeSettings(readiness=http, liveness=tcp)
    )
    assert settings.readiness == Probe(
        kind=HttpProbe(url="http://localhost/"),
        interval=timedelta(seconds=1),
        timeout=timedelta(seconds=2),
        threshold=1,
        deadline=None,
    )
    assert settings.liveness == Probe(kind=TcpProbe(host="127.0.0.1", port=80), threshold=3)


def test_a_policy_takes_the_documented_defaults() -> None:
    settings = convert_settings.to_runtime_settings(
        project_pb2.RuntimeSettings(
            restart=project_pb2.RestartPolicy(), limits=project_pb2.ResourceLimits()
        )
    )
    assert settings.restart == RestartPolicy(
        condition=RestartCondition.NEVER,
        initial_backoff=timedelta(seconds=1),
        max_backoff=timedelta(minutes=1),
        backoff_factor=2,
        backoff_jitter=0.1,
        max_restarts=10,
        window=timedelta(minutes=10),
        stable_after=timedelta(minutes=1),
    )
    assert settings.limits == ResourceLimits()


def test_every_restart_condition_has_a_value_of_its_own() -> None:
    table = convert_settings.RESTART_CONDITIONS
    assert set(table) == set(RestartCondition)
    known = project_pb2.RestartPolicy.Condition.DESCRIPTOR.values_by_number.keys()
    assert {0, *table.values()} == set(known)


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(),
    st.integers(-(2**31), 2**31 - 1),
)
def test_whatever_a_message_holds_is_some_setting(
    seconds: int, nanos: int, number: float, integer: int
) -> None:
    span = Duration(seconds=seconds, nanos=nanos)
    probe = project_pb2.Probe(
        tcp=project_pb2.TcpProbe(port=integer),
        interval=span,
        timeout=span,
        threshold=integer,
        deadline=span,
    )
    settings = convert_settings.to_runtime_settings(
        project_pb2.RuntimeSettings(
            stop_grace=span,
            restart=project_pb2.RestartPolicy(
                condition=integer,  # type: ignore[arg-type]  # unknown on purpose
                initial_backoff=span,
                max_backoff=span,
                backoff_factor=number,
                backoff_jitter=number,
                max_restarts=integer,
                window=span,
                stable_after=span,
            ),
            limits=project_pb2.ResourceLimits(
                memory_bytes=seconds, open_files=seconds, processes=seconds, cpu_time=span
            ),
            readiness=probe,
            liveness=probe,
        )
    )
    # The rules, too, take whatever that is.
    assert violations(settings, allowed_hosts=frozenset()) is not None


def test_a_project_says_what_is_kept_and_what_a_start_would_use() -> None:
    kept = Project(
        project_id="web",
        path=Path("/srv/web"),
        runtime=RuntimeSettings(env={"A": "1"}),
        mode=ProjectMode.NORMAL,
        log_id="log-1",
        desired=DesiredState.STOPPED,
        desired_runtime=RuntimeSettings(),
        create_time=NOW,
        update_time=NOW + timedelta(seconds=1),
    )
    message = convert.project(kept, effective=RuntimeSettings(command=("run",)), settings_error="")
    assert (message.project_id, message.path, message.log_id) == ("web", "/srv/web", "log-1")
    assert message.mode == project_pb2.PROJECT_MODE_NORMAL
    assert dict(message.runtime.env) == {"A": "1"}
    assert list(message.effective_runtime.command) == ["run"]
    assert message.create_time.ToDatetime(UTC) == NOW
    assert message.update_time.ToDatetime(UTC) == NOW + timedelta(seconds=1)
    broken = convert.project(kept, effective=None, settings_error="line 3")
    assert not broken.HasField("effective_runtime")
    assert broken.settings_error == "line 3"


@pytest.mark.parametrize(
    ("cause", "field", "value"),
    [
        ({"exit_code": 0}, "exit_code", 0),
        ({"signal": 9}, "signal", 9),
        ({"start_error": "no such file"}, "start_error", "no such file"),
        ({"supervisor_lost": True}, "supervisor_lost", True),
    ],
)
def test_an_end_has_exactly_one_cause(cause: dict[str, Any], field: str, value: object) -> None:
    ended = RunExit(**cause, time=NOW, duration=timedelta(seconds=2.5))
    message = convert.runtime_exit(ended)
    assert message.WhichOneof("cause") == field
    assert getattr(message, field) == value
    assert message.exit_time.ToDatetime(UTC) == NOW
    record = convert.log_record(RunEnded(sequence=7, run_id="run-1", exit=ended))
    assert record.run.sequence == 7
    assert record.run.time.ToDatetime(UTC) == NOW
    assert record.run.ended.WhichOneof("cause") == field
    assert getattr(record.run.ended, field) == value
    assert record.run.ended.duration.ToTimedelta() == timedelta(seconds=2.5)


def test_an_app_that_never_ran_is_all_unset() -> None:
    state = Runtime(
        project_id="web", state=RuntimeState.STOPPED, desired=DesiredState.STOPPED, revision=3
    )
    message = convert.runtime(state, log_end_cursor=0)
    assert message.run_id == ""
    assert not message.HasField("start_time")
    assert not message.HasField("exit")
    assert not message.HasField("healthy")


def test_an_app_that_runs_is_all_there() -> None:
    status = RunStatus(
        supervisor_id="sup-1",
        spec_digest="d",
        state=RuntimeState.READY,
        run_id="run-1",
        pid=42,
        command=("python", "app.py"),
        start_time=NOW,
        ready_time=NOW + timedelta(seconds=1),
        restarts=2,
        reason="exited",
        release_id="r",
    )
    health = ProbeResult(healthy=False, probe="http", reason="http_status", checked_at=NOW)
    state = Runtime(
        project_id="web",
        state=RuntimeState.READY,
        desired=DesiredState.RUNNING,
        revision=3,
        status=status,
        health=health,
    )
    message = convert.runtime(state, log_end_cursor=17)
    assert (message.pid, list(message.command)) == (42, ["python", "app.py"])
    assert (message.run_id, message.supervisor_id) == ("run-1", "sup-1")
    assert (message.revision, message.log_end_cursor, message.restarts) == (3, 17, 2)
    assert (message.reason, message.release_id) == ("exited", "r")
    assert message.start_time.ToDatetime(UTC) == NOW
    assert message.ready_time.ToDatetime(UTC) == NOW + timedelta(seconds=1)
    assert message.HasField("healthy")
    assert not message.healthy
    assert (message.health_probe, message.health_reason) == ("http", "http_status")


@pytest.mark.parametrize("state", [RuntimeState.BACKOFF, RuntimeState.EXITED, RuntimeState.STOPPED])
@pytest.mark.parametrize("healthy", [True, False])
def test_an_app_between_two_runs_has_no_process_and_is_not_well(
    state: RuntimeState, healthy: bool
) -> None:
    status = RunStatus(
        supervisor_id="sup-1",
        spec_digest="d",
        state=state,
        run_id="run-1",
        pid=42,
        exit=RunExit(time=NOW, duration=timedelta(seconds=1), exit_code=3),
    )
    message = convert.runtime(
        Runtime(
            project_id="web",
            state=state,
            desired=DesiredState.RUNNING,
            revision=3,
            status=status,
            health=ProbeResult(healthy=healthy, probe="tcp", reason="tcp_x", checked_at=NOW),
        ),
        log_end_cursor=17,
    )
    assert message.pid == 0
    assert not message.healthy
    assert message.health_reason == ("" if healthy else "tcp_x")


@pytest.mark.parametrize(
    ("message", "position"),
    [
        (log_pb2.LogPosition(), LogPosition()),
        (log_pb2.LogPosition(cursor=0, log_id="l"), LogPosition(cursor=0, log_id="l")),
        (log_pb2.LogPosition(tail=0), LogPosition(tail=0)),
        (log_pb2.LogPosition(since=convert_time.timestamp(NOW)), LogPosition(since=NOW)),
        (log_pb2.LogPosition(anchor=log_pb2.LOG_ANCHOR_BEGINNING), LogPosition()),
        (log_pb2.LogPosition(anchor=log_pb2.LOG_ANCHOR_END), LogPosition(at_end=True)),
    ],
)
def test_positions_mean_what_they_say(message: log_pb2.LogPosition, position: LogPosition) -> None:
    assert convert.to_log_position(message) == position


def test_lines_are_sent_as_the_app_wrote_them() -> None:
    chunk = LogChunk(
        first_sequence=5,
        line_count=2,
        time=NOW,
        stream=LogStream.STDERR,
        run_id="run-1",
        lines=b"\xff\0\n\r\n",
        partial=True,
        unterminated=True,
    )
    message = convert.log_record(chunk).chunk
    assert message.lines == b"\xff\0\n\r\n"
    assert (message.first_sequence, message.line_count) == (5, 2)
    assert message.stream == log_pb2.LOG_STREAM_STDERR
    assert message.partial
    assert message.unterminated
    assert message.time.ToDatetime(UTC) == NOW


def test_markers_and_gaps_are_records_of_their_own() -> None:
    started = RunStarted(sequence=4, time=NOW, run_id="run-1", command=("a", "b"), pid=3)
    message = convert.log_record(started).run
    assert (message.sequence, list(message.started.command)) == (4, ["a", "b"])
    known = LogGap(first_sequence=1, count=9, reason=GapReason.STORAGE_FULL, lost_lines=0)
    assert convert.log_record(known).gap.HasField("lost_lines")
    unknown = LogGap(first_sequence=1, count=9, reason=GapReason.MACHINE_CRASH)
    assert not convert.log_record(unknown).gap.HasField("lost_lines")


def test_events_and_their_filters_survive() -> None:
    kept = Event(
        event_type="project.created",
        time=NOW,
        project_id="web",
        principal="local:7",
        attributes={"path": "/srv/web"},
        sequence=3,
    )
    message = convert.event(kept)
    assert (message.sequence, message.event_type) == (3, "project.created")
    assert dict(message.attributes) == {"path": "/srv/web"}
    selected = EventFilter(project_id="web", event_types=("project.",))
    assert selected == convert.to_event_filter(
        event_service_pb2.EventFilter(project_id="web", event_types=["project."])
    )

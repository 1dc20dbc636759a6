"""The rules name each fault by its field, and never what is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.launch import run_spec
from att_server.core.model import DesiredState, Project, ProjectMode
from att_server.core.settings import (
    LIVENESS_THRESHOLD,
    READINESS_THRESHOLD,
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
from att_server.core.settings_rules import (
    environment_rule,
    host_rule,
    probe_violations,
    split_target,
    variable_rule,
    violations,
)
from att_server.core.violations import SettingPath, span_text
from att_server.testing.artifacts import MemoryArtifacts

NOWHERE: frozenset[str] = frozenset()
SECOND = timedelta(seconds=1)


def broken(settings: RuntimeSettings) -> list[SettingPath]:
    return [path for path, _ in violations(settings, allowed_hosts=NOWHERE)]


def test_settings_that_are_unset_break_no_rule() -> None:
    assert broken(RuntimeSettings()) == []
    assert broken(RuntimeSettings().filled) == []


def test_every_fault_is_named_by_its_field() -> None:
    wrong = RuntimeSettings(
        command=("", "a\0"),
        env={"B": "\0", "ATT_A": ""},
        env_file="",
        run_as="",
        stop_grace=-SECOND,
        restart=RestartPolicy(
            condition=RestartCondition.ALWAYS,
            initial_backoff=timedelta(0),
            max_backoff=timedelta(days=2),
            backoff_factor=0.5,
            backoff_jitter=2,
            max_restarts=-1,
            window=timedelta(0),
            stable_after=-SECOND,
        ),
        limits=ResourceLimits(memory_bytes=0, open_files=0, processes=0, cpu_time=timedelta(0)),
        readiness=Probe(
            kind=TcpProbe(host="", port=0),
            interval=timedelta(0),
            timeout=timedelta(0),
            threshold=0,
            deadline=timedelta(0),
        ),
        liveness=Probe(kind=LogProbe(pattern="(")),
    )
    assert broken(wrong) == [
        ("command",),
        ("command", 0),
        ("env", "ATT_A"),
        ("env", "B"),
        ("env_file",),
        ("run_as",),
        ("stop_grace",),
        ("restart", "initial_backoff"),
        ("restart", "max_backoff"),
        ("restart", "backoff_factor"),
        ("restart", "backoff_jitter"),
        ("restart", "max_restarts"),
        ("restart", "window"),
        ("restart", "stable_after"),
        ("limits", "memory_bytes"),
        ("limits", "open_files"),
        ("limits", "processes"),
        ("limits", "cpu_time"),
        ("readiness", "tcp", "host"),
        ("readiness", "tcp", "port"),
        ("readiness", "interval"),
        ("readiness", "timeout"),
        ("readiness", "threshold"),
        ("readiness", "deadline"),
        ("liveness", "log"),
        ("liveness", "log", "pattern"),
    ]


@pytest.mark.parametrize(
    "user", ["web", "_apt", "a.b-c_d", "pc$", "alice@example.org", "0", "4294967294"]
)
def test_a_user_has_a_name_or_a_number(user: str) -> None:
    assert broken(RuntimeSettings(run_as=user)) == []


@pytest.mark.parametrize(
    "user",
    [
        "",
        "-1",
        "4294967295",
        "9" * 40,
        "1a",
        "a b",
        "a:b",
        "a/b",
        "a\0",
        "\u00e4",
        "a" * 65,
        "\u0663",
    ],
)
def test_what_is_no_name_of_a_user_is_refused(user: str) -> None:
    assert broken(RuntimeSettings(run_as=user)) == [("run_as",)]


def test_the_wait_may_not_shrink() -> None:
    policy = RestartPolicy(initial_backoff=timedelta(minutes=2), max_backoff=timedelta(minutes=1))
    found = violations(RuntimeSettings(restart=policy), allowed_hosts=NOWHERE)
    assert found == [(("restart", "max_backoff"), "must be at least the initial wait, 2m")]


@pytest.mark.parametrize(
    "settings",
    [
        RuntimeSettings(env={"A": "hunter2\0"}),
        RuntimeSettings(env={"ATT_A": "hunter2"}),
        RuntimeSettings(command=("hunter2\0",)),
        RuntimeSettings(env_file="hunter2\0"),
        RuntimeSettings(readiness=Probe(kind=HttpProbe(url="http://hunter2@localhost/"))),
        RuntimeSettings(readiness=Probe(kind=HttpProbe(url="http://hunter2/"))),
        RuntimeSettings(readiness=Probe(kind=GrpcProbe(target="hunter2"))),
        RuntimeSettings(readiness=Probe(kind=LogProbe(pattern="hunter2("))),
        RuntimeSettings(readiness=Probe(kind=LogProbe(pattern="[hunter2"))),
        RuntimeSettings(readiness=Probe(kind=CommandProbe(command=("", "hunter2")))),
    ],
)
def test_a_rule_never_repeats_a_value(settings: RuntimeSettings) -> None:
    ((_, rule),) = violations(settings, allowed_hosts=NOWHERE)
    assert "hunter2" not in rule


def test_the_paths_of_a_probe_alone_are_its_own() -> None:
    probe = Probe(kind=HttpProbe(url=""), threshold=0)
    assert [path for path, _ in probe_violations(probe, allowed_hosts=NOWHERE)] == [
        ("http", "url"),
        ("threshold",),
    ]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_host_may_always_be_asked(host: str) -> None:
    assert host_rule(host, NOWHERE) == ""


@pytest.mark.parametrize(
    "host",
    [
        *("", "example.com", "localhost.", "0.0.0.0", "::", "::ffff:127.0.0.1", "169.254.169.254"),
        *("0x7f.1", "2130706433", "127.1", "lоcalhost", "localhost\0", "[::1]", "::1%lo"),
    ],
)
def test_another_host_may_not_be_asked_unless_it_is_allowed(host: str) -> None:
    assert host_rule(host, NOWHERE) != ""
    assert host_rule(host, frozenset({"db.internal"})) != ""
    assert host_rule("db.internal", frozenset({host})) != ""


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("db.internal", "db.internal"),
        ("DB.Internal", "db.internal"),
        ("db.internal", "DB.internal"),
        ("10.0.0.7", "10.0.0.7"),
        ("fd00:0:0::7", "fd00::7"),
    ],
)
def test_an_allowed_host_may_be_asked_however_it_is_written(host: str, allowed: str) -> None:
    assert host_rule(host, frozenset({allowed})) == ""


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65_535)),
        ("::1:80", None),
        ("localhost", None),
        ("localhost:", None),
        (":80", None),
        ("localhost:0", None),
        ("localhost:65536", None),
        ("localhost:+1", None),
        ("localhost:1\n", None),
        ("localhost:²", None),
        ("a:b:1", None),
    ],
)
def test_a_target_is_a_host_and_a_port(target: str, found: tuple[str, int] | None) -> None:
    assert split_target(target) == found


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=10), "10ms"),
        (timedelta(milliseconds=1_500), "1500ms"),
        (SECOND, "1s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(hours=1), "1h"),
        (timedelta(days=30), "30d"),
    ],
)
def test_a_span_reads_as_it_is_written(span: timedelta, text: str) -> None:
    assert span_text(span) == text


def test_an_environment_is_bounded_in_all() -> None:
    assert environment_rule({}) == ""
    assert environment_rule({f"A{n}": "x" for n in range(1_000)}) == ""
    assert environment_rule({f"A{n}": "x" for n in range(1_001)}) != ""
    # What the kernel takes as one string, with `=` and the byte that ends it.
    assert environment_rule({"A": "x" * (131_072 - 3)}) == ""
    assert environment_rule({"A": "x" * (131_072 - 2)}) != ""
    assert environment_rule({"A": "ß" * 65_535}) != ""


@pytest.mark.parametrize("name", ["A", "b.c", "größe", "A B", "X-Y", "_", "att_a"])
def test_a_variable_may_have_any_printable_name(name: str) -> None:
    assert variable_rule(name, "any\nvalue") == ""


@pytest.mark.parametrize("name", ["", "A=", "A\0", "A\n", "ATT_", "ATT_RUN_ID", "\u202e"])
def test_a_variable_may_not_have_another_name(name: str) -> None:
    assert variable_rule(name, "") != ""


def test_liveness_without_a_policy_restarts_on_failure() -> None:
    live = RuntimeSettings(liveness=Probe(kind=TcpProbe(port=1)))
    assert live.filled.restart == RestartPolicy(condition=RestartCondition.ON_FAILURE)
    assert RuntimeSettings().filled.restart == RestartPolicy(condition=RestartCondition.NEVER)
    given = RestartPolicy(condition=RestartCondition.ALWAYS)
    assert RuntimeSettings(restart=given, liveness=live.liveness).filled.restart == given


def test_filled_settings_leave_nothing_open_that_has_a_default() -> None:
    probe = Probe(kind=TcpProbe(port=1))
    filled = RuntimeSettings(readiness=probe, liveness=probe).filled
    assert filled.stop_grace == timedelta(seconds=10)
    assert filled.readiness is not None
    assert filled.liveness is not None
    assert filled.readiness.threshold == READINESS_THRESHOLD == 1
    assert filled.liveness.threshold == LIVENESS_THRESHOLD == 3
    assert filled.filled == filled


def test_settings_win_key_by_key() -> None:
    base = RuntimeSettings(
        command=("base",),
        env={"A": "base", "B": "base"},
        env_file="base.env",
        restart=RestartPolicy(max_restarts=1),
        limits=ResourceLimits(processes=1),
        readiness=Probe(kind=TcpProbe(port=1)),
        liveness=Probe(kind=TcpProbe(port=1)),
    )
    over = RuntimeSettings(
        env={"B": "over"},
        env_file="over.env",
        limits=ResourceLimits(),
        liveness=Probe(kind=TcpProbe(port=2)),
    )
    assert over.over(base) == RuntimeSettings(
        command=("base",),
        env={"A": "base", "B": "over"},
        env_file="over.env",
        restart=RestartPolicy(max_restarts=1),
        limits=ResourceLimits(),
        readiness=Probe(kind=TcpProbe(port=1)),
        liveness=Probe(kind=TcpProbe(port=2)),
    )
    assert RuntimeSettings().over(base) == base


def test_an_app_is_not_started_with_more_variables_than_it_can_be_given() -> None:
    project = Project(
        project_id="web",
        path=Path("/srv/web"),
        runtime=RuntimeSettings(),
        mode=ProjectMode.NORMAL,
        log_id="log",
        desired=DesiredState.STOPPED,
        desired_runtime=RuntimeSettings(),
        create_time=datetime(2030, 1, 1, tzinfo=UTC),
        update_time=datetime(2030, 1, 1, tzinfo=UTC),
    )
    settings = RuntimeSettings(command=("app",), env={"A": "x" * 70_000})
    secrets = {"B": "hunter2" * 10_000}
    assert run_spec(project, settings, {}, {"A": "y" * 70_000}, MemoryArtifacts()).secrets == {}
    with pytest.raises(AttError) as caught:
        run_spec(project, settings, {}, secrets, MemoryArtifacts())
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert set(caught.value.metadata) == {"path", "line", "key"}
    assert "hunter2" not in caught.value.message

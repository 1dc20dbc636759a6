"""The options that say how an app is run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from att_client import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ResourceLimits,
    RestartPolicy,
    RestartPolicyCondition,
    RuntimeSettings,
    TcpProbe,
)
from att_client.cli.exits import CommandError, ExitCode
from att_client.cli.project import without
from att_client.cli.settings_options import SettingsOptions, parse_size
from att_client.cli.settings_text import limits_text, probe_text, restart_text, size_text

NONE = RuntimeSettings()
FULL = RuntimeSettings(
    command=["a"],
    env={"A": "1", "B.C": "2"},
    env_file=".env",
    run_as="web",
    stop_grace=timedelta(seconds=3),
    restart=RestartPolicy(condition=RestartPolicyCondition.ALWAYS, max_restarts=3),
    limits=ResourceLimits(processes=4),
    readiness=Probe(http=HttpProbe(url="http://localhost/"), interval=timedelta(seconds=9)),
    liveness=Probe(tcp=TcpProbe(port=1), threshold=9),
)


def over(settings: RuntimeSettings = NONE, **options: Any) -> RuntimeSettings:
    return SettingsOptions(**options).over(settings)


@pytest.mark.parametrize("settings", [NONE, FULL])
def test_no_option_changes_nothing(settings: RuntimeSettings) -> None:
    assert not SettingsOptions().given
    assert over(settings) == settings


@pytest.mark.parametrize(
    ("option", "text", "probe"),
    [
        ("http", "http://localhost/", Probe(http=HttpProbe(url="http://localhost/"))),
        ("tcp", "80", Probe(tcp=TcpProbe(port=80))),
        ("tcp", "localhost:80", Probe(tcp=TcpProbe(host="localhost", port=80))),
        ("tcp", "[::1]:80", Probe(tcp=TcpProbe(host="::1", port=80))),
        ("grpc", "unix:a", Probe(grpc=GrpcProbe(target="unix:a"))),
        ("log", "a b", Probe(log=LogProbe(pattern="a b"))),
        ("command", "a 'b c'", Probe(command=CommandProbe(command=["a", "b c"]))),
    ],
)
def test_a_probe_is_of_the_kind_that_was_named(option: str, text: str, probe: Probe) -> None:
    ready: dict[str, Any] = {f"ready_{option}": text}
    assert over(**ready) == RuntimeSettings(readiness=probe)
    changed = over(FULL, **ready)
    assert changed.readiness == replace(probe, interval=timedelta(seconds=9))
    if option != "log":
        live: dict[str, Any] = {f"live_{option}": text}
        assert over(**live) == RuntimeSettings(liveness=probe)


def test_the_bounds_of_a_probe_change_alone() -> None:
    changed = over(FULL, live_interval="2m", live_threshold=4, live_timeout="1s").liveness
    assert changed == Probe(
        tcp=TcpProbe(port=1),
        interval=timedelta(minutes=2),
        timeout=timedelta(seconds=1),
        threshold=4,
    )


@pytest.mark.parametrize(
    ("text", "condition", "restarts"),
    [
        ("never", RestartPolicyCondition.NEVER, 3),
        ("no", RestartPolicyCondition.NEVER, 3),
        ("on-failure", RestartPolicyCondition.ON_FAILURE, 3),
        ("on-failure:0", RestartPolicyCondition.ON_FAILURE, 0),
        ("always:7", RestartPolicyCondition.ALWAYS, 7),
    ],
)
def test_a_policy_is_a_word_and_a_number(
    text: str, condition: RestartPolicyCondition, restarts: int
) -> None:
    policy = over(FULL, restart=text).restart
    assert policy == RestartPolicy(condition=condition, max_restarts=restarts)


def test_limits_change_one_by_one() -> None:
    changed = over(FULL, memory="1g", cpu_time="1h").limits
    assert changed == ResourceLimits(memory_bytes=1 << 30, processes=4, cpu_time=timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("100b", 100),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("2g", 2 << 30),
        ("1TiB", 1 << 40),
    ],
)
def test_a_size_is_written_as_elsewhere(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "options",
    [
        {"command": "'open"},
        {"command": ""},
        {"env": ["A"]},
        {"env": ["=1"]},
        {"restart": "unless-stopped"},
        {"restart": "always:"},
        {"restart": "always:-1"},
        {"restart": ""},
        {"stop_grace": "soon"},
        {"ready_tcp": "http"},
        {"ready_tcp": "1", "ready_log": "x"},
        {"ready_interval": "1s"},
        {"ready_command": ""},
        {"live_deadline": "1s"},
        {"live_http": "http://localhost/", "live_timeout": "x"},
        {"memory": "m"},
        {"memory": "-1"},
        {"memory": "1.5g"},
        {"memory": "512mb"},
        {"memory": "999999999999999999t"},
        {"cpu_time": "x"},
        {"env": ["A=\udcff"]},
        {"ready_log": "\udcff"},
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options: dict[str, Any]) -> None:
    with pytest.raises(CommandError) as caught:
        over(**options)
    assert caught.value.exit_code is ExitCode.USAGE


def test_what_is_named_is_taken_back() -> None:
    assert without(FULL, ["env.B.C"]).env == {"A": "1"}
    assert without(FULL, ["env.D"]) == FULL
    everything = ["command", "env", "env_file", "run_as", "restart", "stop_grace"]
    assert without(FULL, [*everything, "readiness", "liveness", "limits"]) == NONE


@pytest.mark.parametrize("name", ["x", "", "env.", "Command", "readiness.http", "data_directories"])
def test_only_settings_can_be_taken_back(name: str) -> None:
    with pytest.raises(CommandError) as caught:
        without(FULL, [name])
    assert caught.value.exit_code is ExitCode.USAGE


def test_settings_read_as_words() -> None:
    assert probe_text(None) == restart_text(None) == limits_text(None) == ""
    assert probe_text(FULL.readiness) == "GET http://localhost/, every 9.0 s"
    assert probe_text(Probe(tcp=TcpProbe(host="::1", port=1), threshold=1)) == "connect [::1]:1"
    assert probe_text(Probe(grpc=GrpcProbe(target="a:1", service="b.C"))) == "grpc a:1 b.C"
    assert restart_text(RestartPolicy()) == "never"
    assert restart_text(FULL.restart) == "always, at most 3 times"
    assert limits_text(ResourceLimits(cpu_time=timedelta(minutes=1))) == "CPU 1 min 0 s"
    assert [size_text(size) for size in (7, 1 << 10, 3 << 29)] == ["7 B", "1 KiB", "1.5 GiB"]

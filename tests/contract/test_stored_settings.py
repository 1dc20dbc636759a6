"""The settings in the state store are read by the release before and the one after."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from att_server.adapters.stored_settings import settings_of, settings_values
from att_server.core.settings import (
    HttpProbe,
    Probe,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)

PROBE = {"interval": 1.0, "timeout": 2.0, "threshold": 1, "deadline": None}
HTTP = {"http": {"url": "http://localhost/"}, **PROBE}


def test_what_release_0_1_wrote_is_read() -> None:
    written = {"command": ["a", "b"], "env": {"A": "1"}, "stop_grace": 1.5, "readiness": HTTP}
    assert settings_of(written) == RuntimeSettings(
        command=("a", "b"),
        env={"A": "1"},
        stop_grace=timedelta(seconds=1.5),
        readiness=Probe(kind=HttpProbe(url="http://localhost/"), threshold=1),
    )
    assert settings_of({"command": [], "env": {}, "stop_grace": None, "readiness": None}) == (
        RuntimeSettings()
    )


def test_what_release_0_1_reads_is_written_as_it_reads_it() -> None:
    probe = Probe(kind=HttpProbe(url="http://localhost/"))
    values = json.loads(
        json.dumps(settings_values(RuntimeSettings(command=("a",), readiness=probe)))
    )
    # It takes no other form of these, and no null for the threshold.
    assert values["command"] == ["a"]
    assert values["env"] == {}
    assert values["stop_grace"] is None
    assert values["readiness"] == HTTP


def test_a_probe_that_release_0_1_does_not_know_is_none_to_it() -> None:
    values = settings_values(RuntimeSettings(readiness=Probe(kind=TcpProbe(port=1))))
    assert "http" not in values["readiness"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"colour": "red", "readiness": {"smell": {}, **PROBE}}, RuntimeSettings()),
        (
            {"readiness": {**HTTP, "colour": "red", "http": {"url": "http://x/", "verb": "PUT"}}},
            RuntimeSettings(readiness=Probe(kind=HttpProbe(url="http://x/"), threshold=1)),
        ),
        (
            {
                "limits": {
                    "disk": 3,
                    "memory_bytes": 7,
                    "open_files": None,
                    "processes": None,
                    "cpu_time": None,
                }
            },
            RuntimeSettings(limits=ResourceLimits(memory_bytes=7)),
        ),
    ],
)
def test_what_a_later_release_added_is_left_out(
    written: dict[str, Any], read: RuntimeSettings
) -> None:
    assert settings_of(written) == read


def test_a_condition_of_a_later_release_restarts_nothing() -> None:
    policy = RestartPolicy(condition=RestartCondition.ALWAYS, max_restarts=7)
    values = settings_values(RuntimeSettings(restart=policy))
    values["restart"]["condition"] = "on-tuesdays"
    values["restart"]["colour"] = "red"
    assert settings_of(values).restart == RestartPolicy(max_restarts=7)

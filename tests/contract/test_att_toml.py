"""What `att.toml` may say, and that the page about it says the same."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.settings import TomlSettingsReader
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from tests.contract.test_settings_reader import HEAD, URL, project, read

PAGE = (Path(__file__).parents[2] / "docs" / "att-toml.md").read_text()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


async def test_every_key_is_read(directory: Path) -> None:
    text = f"""
        [runtime]
        command = ["python", "app.py", "--name", "Größe"]
        env = {{ A = "1", "b.c" = "" }}
        env_file = ".env"
        stop_grace = "1.5s"

        [runtime.restart]
        condition = "on-failure"
        backoff = {{ initial = "2s", max = "5m", factor = 1.5, jitter = 0 }}
        max_restarts = 3
        window = "1d"
        stable_after = "90s"

        [runtime.limits]
        memory = "512MiB"
        open_files = 1024
        processes = 64
        cpu_time = "10m"

        [runtime.readiness]
        http = "{URL}"
        interval = "250ms"
        timeout = "1m"
        threshold = 3
        deadline = "1h"

        [runtime.liveness]
        grpc = "localhost:50051"
        service = "a.B"
        interval = "10s"

        [bootstrap]
        anything = ["is", "read", "elsewhere"]
        [bootstrap.test]
        command = ["pytest"]
        [notify]
        command = ["tell"]
    """
    assert await read(directory, text) == RuntimeSettings(
        command=("python", "app.py", "--name", "Größe"),
        env={"A": "1", "b.c": ""},
        env_file=".env",
        stop_grace=timedelta(seconds=1.5),
        restart=RestartPolicy(
            condition=RestartCondition.ON_FAILURE,
            initial_backoff=timedelta(seconds=2),
            max_backoff=timedelta(minutes=5),
            backoff_factor=1.5,
            backoff_jitter=0,
            max_restarts=3,
            window=timedelta(days=1),
            stable_after=timedelta(seconds=90),
        ),
        limits=ResourceLimits(
            memory_bytes=512 << 20,
            open_files=1024,
            processes=64,
            cpu_time=timedelta(minutes=10),
        ),
        readiness=Probe(
            kind=HttpProbe(url=URL),
            interval=timedelta(milliseconds=250),
            timeout=timedelta(minutes=1),
            threshold=3,
            deadline=timedelta(hours=1),
        ),
        liveness=Probe(
            kind=GrpcProbe(target="localhost:50051", service="a.B"),
            interval=timedelta(seconds=10),
            threshold=3,
        ),
    )


async def test_an_inline_table_says_the_same_and_the_rest_has_its_defaults(
    directory: Path,
) -> None:
    settings = await read(directory, f"runtime.readiness = {{ http = '{URL}' }}")
    assert settings == RuntimeSettings(readiness=Probe(kind=HttpProbe(url=URL), threshold=1))


@pytest.mark.parametrize("condition", list(RestartCondition))
async def test_a_policy_may_be_its_condition_alone(
    directory: Path, condition: RestartCondition
) -> None:
    settings = await read(directory, HEAD + f"restart = '{condition.value}'")
    assert settings == RuntimeSettings(restart=RestartPolicy(condition=condition))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("tcp = 8000", TcpProbe(host="127.0.0.1", port=8000)),
        ("tcp = 'localhost:8000'", TcpProbe(host="localhost", port=8000)),
        ("tcp = '[::1]:8000'", TcpProbe(host="::1", port=8000)),
        ("tcp = 'db.internal:5432'", TcpProbe(host="db.internal", port=5432)),
        ("command = ['curl', '-f', 'x']", CommandProbe(command=("curl", "-f", "x"))),
        ("grpc = '127.0.0.1:50051'", GrpcProbe(target="127.0.0.1:50051")),
        ("grpc = 'unix:run/app.sock'", GrpcProbe(target="unix:run/app.sock")),
        ("http = 'http://db.internal/'", HttpProbe(url="http://db.internal/")),
        ("log = '(?i)listening on'", LogProbe(pattern="(?i)listening on")),
    ],
)
async def test_a_probe_is_of_the_kind_that_it_names(
    directory: Path, text: str, kind: ProbeKind
) -> None:
    settings = await read(directory, HEAD + f"readiness = {{ {text} }}", frozenset({"db.internal"}))
    assert settings.readiness == Probe(kind=kind, threshold=1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("'1048576'", 1 << 20),
        ("'1048576B'", 1 << 20),
        ("'1024K'", 1 << 20),
        ("'1024KiB'", 1 << 20),
        ("'3M'", 3 << 20),
        ("'3m'", 3 << 20),
        ("'2GiB'", 2 << 30),
        ("'1TiB'", 1 << 40),
    ],
)
async def test_memory_is_bytes_or_a_size(directory: Path, text: str, size: int) -> None:
    settings = await read(directory, HEAD + f"limits.memory = {text}")
    assert settings.limits == ResourceLimits(memory_bytes=size)


async def test_the_example_of_the_page_is_read_and_has_every_setting(directory: Path) -> None:
    example, *_ = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    settings = await read(directory, example)
    assert settings.filled == settings
    assert all(getattr(settings, field.name) for field in fields(settings))
    assert await TomlSettingsReader().notify(project(directory)) is not None


@pytest.mark.parametrize(
    ("table", "defaults"),
    [
        ("restart", RestartPolicy(condition=RestartCondition.ALWAYS)),
        ("readiness", Probe(kind=TcpProbe(port=1), threshold=1)),
        ("liveness", Probe(kind=TcpProbe(port=1), threshold=3)),
    ],
)
async def test_the_defaults_of_the_page_are_those_of_the_code(
    directory: Path, table: str, defaults: RestartPolicy | Probe
) -> None:
    """Writing down every default that the page names changes nothing."""
    heading = "runtime.restart" if table == "restart" else "runtime.readiness"
    section = PAGE.split(f"## [{heading}]")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| [^|]+ \| (`[^|]+) \|", section, re.MULTILINE)
    given = "condition = 'always'\n" if table == "restart" else "tcp = 1\n"
    for key, text in rows:
        values = re.findall(r"`([^`]+)`", text)
        given += f"{key} = {values[-1 if table == 'liveness' else 0]}\n"
    assert len(rows) >= 3
    settings = await read(directory, f"[runtime.{table}]\n{given}")
    assert getattr(settings, table) == defaults

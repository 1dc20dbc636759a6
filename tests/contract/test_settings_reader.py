"""What every settings reader keeps to, and what `att.toml` may say."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.settings import MAX_FILE_BYTES, TomlSettingsReader
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.ports import SettingsReader
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
from att_server.testing.settings import FakeSettingsReader
from tests.contract.test_state_store import project as stored_project

URL = "http://127.0.0.1:8000/health"
HEAD = "# the app\n[runtime]\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


async def read(
    directory: Path, text: str | bytes, allowed_hosts: frozenset[str] = frozenset()
) -> RuntimeSettings:
    content = text if isinstance(text, bytes) else text.encode()
    (directory / "att.toml").write_bytes(content)
    return await TomlSettingsReader(allowed_hosts=allowed_hosts).read(project(directory))


async def failure(directory: Path, text: str | bytes) -> AttError:
    with pytest.raises(AttError) as caught:
        await read(directory, text)
    return caught.value


def project(directory: Path) -> Project:
    return replace(stored_project("web"), path=directory)


Write = Callable[[RuntimeSettings | None], SettingsReader]


@pytest.fixture(params=["toml", "fake"])
def write(request: pytest.FixtureRequest, directory: Path) -> Write:
    """Makes a reader of a project with a command, or of one that nothing is written about,
    or, for None, of one whose settings are wrong."""

    def fake(settings: RuntimeSettings | None) -> SettingsReader:
        wrong = AttError(Reason.SETTINGS_INVALID, "wrong", path="", line="1", key="x")
        return FakeSettingsReader({"web": wrong if settings is None else settings})

    def toml(settings: RuntimeSettings | None) -> SettingsReader:
        if settings is None:
            (directory / "att.toml").write_text("x = 1\n")
        elif settings.command:
            words = ", ".join(f"'{word}'" for word in settings.command)
            (directory / "att.toml").write_text(f"[runtime]\ncommand = [{words}]\n")
        return TomlSettingsReader()

    return toml if request.param == "toml" else fake


async def test_a_project_that_nothing_is_written_about_has_empty_settings(
    write: Write, directory: Path
) -> None:
    assert await write(RuntimeSettings()).read(project(directory)) == RuntimeSettings()


async def test_what_is_written_is_read(write: Write, directory: Path) -> None:
    settings = RuntimeSettings(command=("python", "app.py"))
    assert await write(settings).read(project(directory)) == settings


async def test_settings_that_are_wrong_are_refused(write: Write, directory: Path) -> None:
    with pytest.raises(AttError) as caught:
        await write(None).read(project(directory))
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert set(caught.value.metadata) == {"path", "line", "key"}


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


@pytest.mark.parametrize("text", ["", "# nothing\r\n", "[runtime]\n", "[bootstrap]\n"])
async def test_a_file_that_says_nothing_of_the_runtime_is_empty(directory: Path, text: str) -> None:
    assert await read(directory, text) == RuntimeSettings()


async def test_a_changed_file_is_read_anew(directory: Path) -> None:
    assert (await read(directory, "[runtime]\ncommand = ['a']")).command == ("a",)
    assert (await read(directory, "[runtime]\ncommand = ['b']")).command == ("b",)


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (HEAD + "comand = ['a']\n", 3, "runtime.comand"),
        (HEAD + "command = ['a']\n\n\nx.y = 1\n", 6, "runtime.x"),
        ("runtime.x = 1\n", 1, "runtime.x"),
        ("\n[runtme]\n", 2, "runtme"),
        ("\n[runtime.x]\n", 2, "runtime.x"),
        ("\n\n[runtime.readiness]\nhttp='" + URL + "'\nx = 1\n", 5, "runtime.readiness.x"),
        (f"[runtime]\nreadiness = {{ http = '{URL}', x = 1 }}", 2, "runtime.readiness.x"),
        ("[bootstrap]\nx = 1\n[other]\n", 3, "other"),
        # What looks like keys and tables within strings, arrays and comments.
        (HEAD + 'command = ["""\n[runtime]\nx = 1\n\\""" ]\n"""]\nx = 1', 8, "runtime.x"),
        (HEAD + "command = ['''\n[a]\n''''']\nx = 1", 6, "runtime.x"),
        (HEAD + 'command = [ # ]\n"a", "[", \'{\', "\\"]", # x = 1\n]\nx = 1', 6, "runtime.x"),
        (HEAD + '"x y" = 1 # [runtime]\n', 3, "runtime.x y"),
        (HEAD + "command = ['a']\r\nx = 1\r\n", 4, "runtime.x"),
        (HEAD + "env = { A = 1 }\n", 3, "runtime.env.A"),
        (HEAD + "command = [\n'a',\n1\n]\n", 3, "runtime.command.1"),
        ("[[runtime]]\n[[runtime]]\n", 1, "runtime"),
        ("\n[runtime.readiness]\ninterval = '1s'\n", 2, "runtime.readiness"),
        ("[runtime.readiness]\ntcp = 1\nlog = 'x'\n", 1, "runtime.readiness"),
        ("[runtime.readiness]\ntcp = 1\nservice = 'x'\n", 1, "runtime.readiness"),
        ("[runtime.readiness]\nhttp = 'x'\n", 2, "runtime.readiness.http"),
        ("[runtime.readiness]\n\ntcp = 'x:1'\n", 3, "runtime.readiness.tcp"),
        ("[runtime.readiness]\n\ntcp = 65536\n", 3, "runtime.readiness.tcp"),
        ("[runtime.readiness]\ncommand = [\n'']\n", 2, "runtime.readiness.command.0"),
        ("[runtime.readiness]\n\ngrpc = 'x'\n", 3, "runtime.readiness.grpc"),
        (
            "[runtime.liveness]\ngrpc = 'localhost:1'\nservice = \"a\\n\"\n",
            3,
            "runtime.liveness.service",
        ),
        ("[runtime.liveness]\ntimeout = '1s'\nlog = 'x'\n", 3, "runtime.liveness.log"),
        ("[runtime.restart]\nmax_restarts = 3\n", 1, "runtime.restart.condition"),
        (
            "[runtime.restart]\ncondition = 'always'\n[runtime.restart.backoff]\nfactor = 0\n",
            4,
            "runtime.restart.backoff.factor",
        ),
        (
            "[runtime.restart]\ncondition = 'always'\nbackoff = { initial = '2m' }\n",
            3,
            "runtime.restart.backoff.max",
        ),
        ("[runtime.limits]\nopen_files = 16\nmemory = 1\n", 3, "runtime.limits.memory"),
        (HEAD + "env.B = ''\nenv.A = \"\\u0000\"\n", 4, "runtime.env.A"),
    ],
)
async def test_what_is_wrong_is_named_with_its_line(
    directory: Path, text: str, line: int, key: str
) -> None:
    error = await failure(directory, text)
    assert error.reason is Reason.SETTINGS_INVALID
    assert error.metadata == {"path": f"{directory}/att.toml", "line": str(line), "key": key}
    assert f"line {line}: {key} " in error.message


async def test_everything_that_is_wrong_is_named_in_order(directory: Path) -> None:
    error = await failure(directory, "a = 1\nb = 1\n[runtime]\nstop_grace = 3\nc = 1\n")
    places = ["line 1: a ", "line 2: b ", "line 4: runtime.stop_grace ", "line 5: runtime.c "]
    found = [error.message.index(place) for place in places]
    assert found == sorted(found)
    assert error.metadata["line"] == "1"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("comand = []", "command"),
        ("readyness.tcp = 1", "readiness"),
        ("readiness.treshold = 1", "threshold"),
        ("liveness.intervall = 1", "interval"),
        ("restart = 'onfailure'", "on-failure"),
        ("restart = 'no'", "never"),
        ("restart.max_restart = 1", "max_restarts"),
        ("restart = { condition = 'always', backoff = { inital = '1s' } }", "initial"),
        ("limits.memory_bytes = 1", "memory"),
        ("limits.open_file = 1", "open_files"),
    ],
)
async def test_a_slip_in_a_name_is_told_the_right_one(
    directory: Path, text: str, meant: str
) -> None:
    error = await failure(directory, HEAD + text)
    assert error.reason is Reason.SETTINGS_INVALID
    assert f"is {meant!r} meant?" in error.message


async def test_a_host_that_a_probe_may_not_ask_is_told_how_to_allow_it(directory: Path) -> None:
    error = await failure(directory, HEAD + "readiness.tcp = 'db.internal:5432'")
    assert "--probe-host" in error.message


async def test_the_value_of_a_variable_is_never_repeated(directory: Path) -> None:
    error = await failure(directory, HEAD + 'env = { ATT_X = "hunter2", A = "hunter2\\u0000" }')
    assert "hunter2" not in error.message
    error = await failure(directory, HEAD + "env = { A = ['hunter2'] }")
    assert "hunter2" not in error.message


@pytest.mark.parametrize(
    "setting",
    [
        "command = 'python app.py'",
        "command = []",
        "command = ['']",
        'command = ["a\\u0000"]',
        pytest.param(f"command = ['a', '{'x' * 131_072}']", id="command of many bytes"),
        pytest.param(f"command = {['x'] * 1_001}", id="command of many words"),
        "env = 'A=1'",
        "env = { ATT_RUN_ID = 'x' }",
        "env = { '' = 'x' }",
        "env = { 'A=B' = 'x' }",
        'env = { A = "a\\u0000" }',
        pytest.param("\n".join(f"env.A{n} = ''" for n in range(1_001)), id="env of many entries"),
        "env = { A = true }",
        "stop_grace = 10",
        "stop_grace = '10'",
        "stop_grace = '-1s'",
        "stop_grace = '1d'",
        "stop_grace = '61m'",
        "stop_grace = ''",
        f"readiness = '{URL}'",
        "readiness = { http = 'https://127.0.0.1/' }",
        "readiness = { http = 'http://192.0.2.1/' }",
        "readiness = { http = 'http://example.com/' }",
        "readiness = { http = 'http://localhost:0/' }",
        "readiness = { http = 'http://localhost:x/' }",
        "readiness = { http = 'http://u@localhost/' }",
        "readiness = { http = 'http://localhost/a b' }",
        "readiness = { http = 'localhost:8000' }",
        f"readiness = {{ http = '{URL}', interval = '9ms' }}",
        f"readiness = {{ http = '{URL}', timeout = '0s' }}",
        f"readiness = {{ http = '{URL}', timeout = '2h' }}",
        f"readiness = {{ http = '{URL}', threshold = 0 }}",
        f"readiness = {{ http = '{URL}', threshold = 1001 }}",
        f"readiness = {{ http = '{URL}', threshold = true }}",
        f"readiness = {{ http = '{URL}', deadline = '0s' }}",
        f"readiness = {{ http = '{URL}', deadline = '25h' }}",
        f"readiness = {{ http = '{URL}', interval = '25h' }}",
        "readiness = {}",
        "readiness = { tcp = 0 }",
        "readiness = { tcp = true }",
        "readiness = { tcp = 'localhost' }",
        "readiness = { tcp = ['localhost:1'] }",
        "readiness = { command = [] }",
        "readiness = { command = 'true' }",
        "readiness = { grpc = 'dns:///localhost:1' }",
        "readiness = { grpc = 'unix:' }",
        "readiness = { log = '' }",
        "readiness = { log = '(' }",
        pytest.param(f"readiness = {{ log = '{'x' * 1001}' }}", id="pattern of many bytes"),
        "liveness = { log = 'x' }",
        "liveness = { tcp = 1, threshold = 0 }",
        "env_file = ''",
        'env_file = "a\\u0000"',
        "env_file = 1",
        pytest.param(f"env_file = '{'x' * 4097}'", id="path of many bytes"),
        "restart = ''",
        "restart = 3",
        "restart = { condition = 'always', max_restarts = -1 }",
        "restart = { condition = 'always', max_restarts = 10_001 }",
        "restart = { condition = 'always', max_restarts = 1.0 }",
        "restart = { condition = 'always', window = '0s' }",
        "restart = { condition = 'always', window = '31d' }",
        "restart = { condition = 'always', stable_after = '31d' }",
        "restart = { condition = 'always', backoff = '1s' }",
        "restart = { condition = 'always', backoff = { initial = '9ms' } }",
        "restart = { condition = 'always', backoff = { max = '25h' } }",
        "restart = { condition = 'always', backoff = { factor = 101 } }",
        "restart = { condition = 'always', backoff = { factor = nan } }",
        "restart = { condition = 'always', backoff = { jitter = inf } }",
        "limits = 3",
        "limits.memory = '512MB'",
        "limits.memory = 1_048_575",
        "limits.memory = 99999999999999999999999999",
        "limits.memory = true",
        "limits.open_files = 15",
        "limits.open_files = '16'",
        "limits.processes = 0",
        "limits.cpu_time = '999ms'",
        "limits.cpu_time = '999999999.999999d'",
    ],
)
async def test_a_value_out_of_its_rule_is_refused(directory: Path, setting: str) -> None:
    error = await failure(directory, HEAD + setting)
    assert error.reason is Reason.SETTINGS_INVALID
    assert error.metadata["line"] == "3"


@pytest.mark.parametrize(
    "url", [URL, "http://localhost", "http://127.8.9.1:1/?a=b", "http://[::1]:8000/"]
)
async def test_a_probe_may_ask_any_loopback_address(directory: Path, url: str) -> None:
    settings = await read(directory, HEAD + f"readiness = {{ http = '{url}' }}")
    assert settings.readiness == Probe(kind=HttpProbe(url=url), threshold=1)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + "command = [\n", 3),
        (HEAD + "command\n", 3),
        ("a = 1\na = 2\n", 2),
        (HEAD + "x = 'a\n", 3),
        (b"a = 1\n[runtime]\n" + b"command = ['\xff']\n", 3),
    ],
)
async def test_text_that_is_no_toml_is_refused_with_its_line(
    directory: Path, text: str | bytes, line: int
) -> None:
    error = await failure(directory, text)
    assert error.reason is Reason.SETTINGS_INVALID
    assert error.metadata["line"] == str(line)


@pytest.mark.parametrize(
    ("setting", "capability"),
    [
        ("data = ['cache']", "settings.data_directories"),
        ("data_directories = ['cache']", "settings.data_directories"),
    ],
)
async def test_what_comes_later_is_refused_by_its_capability(
    directory: Path, setting: str, capability: str
) -> None:
    error = await failure(directory, HEAD + setting)
    assert error.reason is Reason.NOT_IMPLEMENTED
    assert error.metadata == {"capability": capability}


@pytest.mark.parametrize("path", ["missing", "file"])
async def test_a_path_that_is_no_directory_is_refused(directory: Path, path: str) -> None:
    (directory / "file").touch()
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().read(project(directory / path))
    assert caught.value.reason is Reason.PROJECT_PATH_INVALID
    assert caught.value.metadata == {"path": str(directory / path)}


async def test_what_is_no_file_is_refused_at_once(directory: Path) -> None:
    os.mkfifo(directory / "att.toml")
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().read(project(directory))
    assert caught.value.reason is Reason.SETTINGS_INVALID


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self", "att.toml"])
async def test_a_link_to_what_is_no_file_is_refused(directory: Path, target: str) -> None:
    (directory / "att.toml").symlink_to(target)
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().read(project(directory))
    assert caught.value.reason is Reason.SETTINGS_INVALID


async def test_a_file_without_bound_is_refused(directory: Path) -> None:
    error = await failure(directory, "#" * (MAX_FILE_BYTES + 1))
    assert error.reason is Reason.SETTINGS_INVALID


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a = " + "[" * 100_000, id="deep"),
        pytest.param("a = [" + "\n" * 500_000 + "]\nb = 1\n", id="lines in an array"),
        pytest.param('a = """' + "\n" * 500_000 + '"""\n', id="lines in a string"),
        pytest.param("\n".join(f"a{n} = 1" for n in range(20_000)), id="many keys"),
    ],
)
async def test_a_file_made_to_be_slow_is_refused_all_the_same(directory: Path, text: str) -> None:
    assert (await failure(directory, text)).reason is Reason.SETTINGS_INVALID


# The page about it ----------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "att-toml.md").read_text()


async def test_the_example_of_the_page_is_read_and_has_every_setting(directory: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
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


# Files of variables ---------------------------------------------------------


async def env_file(directory: Path, content: str | bytes) -> Mapping[str, str]:
    data = content if isinstance(content, bytes) else content.encode()
    (directory / ".env").write_bytes(data)
    return await TomlSettingsReader().env_file(project(directory), ".env")


async def env_file_failure(directory: Path, content: str | bytes) -> AttError:
    with pytest.raises(AttError) as caught:
        await env_file(directory, content)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert caught.value.metadata["path"] == f"{directory}/.env"
    assert caught.value.metadata["key"] == "runtime.env_file"
    return caught.value


@pytest.fixture(params=["toml", "fake"])
def env_files(request: pytest.FixtureRequest, directory: Path) -> SettingsReader:
    """A reader of a project with the file `.env` that gives KEY the value `hunter2`."""
    if request.param == "fake":
        return FakeSettingsReader(env_files={".env": {"KEY": "hunter2"}})
    (directory / ".env").write_text("KEY=hunter2\n")
    return TomlSettingsReader()


async def test_the_variables_of_a_file_are_read(env_files: SettingsReader, directory: Path) -> None:
    assert await env_files.env_file(project(directory), ".env") == {"KEY": "hunter2"}


async def test_a_file_that_is_not_there_is_refused(
    env_files: SettingsReader, directory: Path
) -> None:
    with pytest.raises(AttError) as caught:
        await env_files.env_file(project(directory), "other.env")
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert caught.value.metadata["path"] == f"{directory}/other.env"


async def test_an_absolute_path_is_taken_as_it_is(directory: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.env"
    elsewhere.write_text("A=1")
    reader = TomlSettingsReader()
    assert await reader.env_file(project(directory), str(elsewhere)) == {"A": "1"}


async def test_a_file_is_in_dotenv_form(directory: Path) -> None:
    content = """\ufeff# secrets
PLAIN=some words # and a comment
export EXPORTED=yes
SINGLE='it is $HOME # no comment'
DOUBLE="two\\nlines and \\"quotes\\""
SEVERAL="-----BEGIN KEY-----
abc=
-----END KEY-----"
DOLLAR=pa$$word${NOT_PUT_IN}
EMPTY=
  SPACED  =  around  \r
AGAIN=1
AGAIN=2
GRÖSSE=groß"""
    assert await env_file(directory, content) == {
        "PLAIN": "some words",
        "EXPORTED": "yes",
        "SINGLE": "it is $HOME # no comment",
        "DOUBLE": 'two\nlines and "quotes"',
        "SEVERAL": "-----BEGIN KEY-----\nabc=\n-----END KEY-----",
        "DOLLAR": "pa$$word${NOT_PUT_IN}",
        "EMPTY": "",
        "SPACED": "around",
        "AGAIN": "2",
        "GRÖSSE": "groß",
    }


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing\n", "\ufeff"])
async def test_a_file_may_hold_nothing(directory: Path, content: str) -> None:
    assert await env_file(directory, content) == {}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("A=1\nhunter2\n", 2),
        ("A=1\n\n\n  hunter2 hunter2\n", 4),
        ("A='hunter2\n", 1),
        ('A=1\nB="hunter2\nhunter2\n', 2),
        ("A='hunter2' hunter2\n", 1),
        ("=hunter2\n", 1),
        ("# c\nATT_TOKEN=hunter2\n", 2),
        ("'A\tB'=hunter2\n", 1),
        ("A=hunter2\0\n", 1),
        (b"A=1\nB=hunter2\xff\n", 2),
        ("A=1\r\n\r\nhunter2\r\n", 3),
    ],
)
async def test_what_is_wrong_in_a_file_is_told_by_its_line_and_never_by_its_value(
    directory: Path, content: str | bytes, line: int
) -> None:
    error = await env_file_failure(directory, content)
    assert error.metadata["line"] == str(line)
    assert f"line {line}: " in error.message
    assert "hunter2" not in error.message
    assert "hunter2" not in str(error.metadata)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("A=" + "x" * 131_072, id="a long value"),
        pytest.param("\n".join(f"A{n}=" for n in range(1_001)), id="many entries"),
        pytest.param("\n".join(f"A{n}={'x' * 1_000}" for n in range(200)), id="many bytes"),
        pytest.param("#" * ((1 << 20) + 1), id="a long file"),
    ],
)
async def test_a_file_of_too_much_is_refused(directory: Path, content: str) -> None:
    assert (await env_file_failure(directory, content)).metadata["line"] == ""


@pytest.mark.parametrize(
    "line",
    [
        "A='",
        'A="',
        "'A",
        'A="\\',
        "A=\\' '",
        "export ",
        "A=" + " " * 60 + "#",
        " " * 60 + "x",
        "\t",
        '"' + "\\" * 61,
    ],
)
async def test_a_file_made_to_be_slow_is_read_all_the_same(directory: Path, line: str) -> None:
    content = (line + "\n") * ((1 << 20) // (len(line) + 1))
    async with asyncio.timeout(20):
        with suppress(AttError):
            await env_file(directory, content)


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self", ".env", "pipe"])
async def test_variables_come_of_a_file_only(directory: Path, target: str) -> None:
    os.mkfifo(directory / "pipe")
    (directory / ".env").symlink_to(target)
    async with asyncio.timeout(20):
        with pytest.raises(AttError) as caught:
            await TomlSettingsReader().env_file(project(directory), ".env")
    assert caught.value.reason is Reason.SETTINGS_INVALID


@pytest.mark.parametrize("path", ["", "a\0b", "missing/.env", "att.toml/.env", "x" * 5_000])
async def test_a_path_that_leads_to_no_file_is_refused(directory: Path, path: str) -> None:
    (directory / "att.toml").touch()
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().env_file(project(directory), path)
    assert caught.value.reason is Reason.SETTINGS_INVALID

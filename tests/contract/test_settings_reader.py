"""What every settings reader keeps to, and what `att.toml` may say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.toml_file import MAX_FILE_BYTES
from att_server.core.errors import AttError, Reason
from att_server.core.model import Project
from att_server.core.ports import SettingsReader
from att_server.core.settings import (
    HttpProbe,
    Probe,
    RuntimeSettings,
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
    return await TomlSettingsReader(allowed_hosts=allowed_hosts).read(project(directory), directory)


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
    assert await write(RuntimeSettings()).read(project(directory), directory) == RuntimeSettings()


async def test_what_is_written_is_read(write: Write, directory: Path) -> None:
    settings = RuntimeSettings(command=("python", "app.py"))
    assert await write(settings).read(project(directory), directory) == settings


async def test_settings_that_are_wrong_are_refused(write: Write, directory: Path) -> None:
    with pytest.raises(AttError) as caught:
        await write(None).read(project(directory), directory)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert set(caught.value.metadata) == {"path", "line", "key"}


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
        pytest.param(f"env = {{ A = '{'x' * 200_000}' }}", id="env of many bytes"),
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
        await TomlSettingsReader().read(project(directory / path), directory / path)
    assert caught.value.reason is Reason.PROJECT_PATH_INVALID
    assert caught.value.metadata == {"path": str(directory / path)}


async def test_what_is_no_file_is_refused_at_once(directory: Path) -> None:
    os.mkfifo(directory / "att.toml")
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().read(project(directory), directory)
    assert caught.value.reason is Reason.SETTINGS_INVALID


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self", "att.toml"])
async def test_a_link_to_what_is_no_file_is_refused(directory: Path, target: str) -> None:
    (directory / "att.toml").symlink_to(target)
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().read(project(directory), directory)
    assert caught.value.reason is Reason.SETTINGS_INVALID


async def test_what_is_refused_is_closed(directory: Path) -> None:
    (directory / "att.toml").mkdir()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(AttError):
            await TomlSettingsReader().read(project(directory), directory)
    # The threads that read may have brought one of their own, not one for each call.
    assert len(set(os.listdir("/proc/self/fd")) - before) < 10


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


def test_a_server_without_such_files_does_not_pay_for_them(directory: Path) -> None:
    code = f"""
import asyncio, sys
from dataclasses import replace
from pathlib import Path
import att_server.app
from att_server.adapters.settings import TomlSettingsReader
from tests.contract.test_state_store import project
project = replace(project(), path=Path({str(directory)!r}))
asyncio.run(TomlSettingsReader().read(project, project.path))
print({{"pydantic", "re2", "dotenv"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

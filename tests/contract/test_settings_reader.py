"""What every settings reader keeps to, and what `att.toml` may say."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.settings import MAX_FILE_BYTES, TomlSettingsReader
from att_server.core.errors import AttError, Reason
from att_server.core.model import HttpProbe, Project, RuntimeSettings
from att_server.core.ports import SettingsReader
from att_server.testing.settings import FakeSettingsReader
from tests.contract.test_state_store import project as stored_project

URL = "http://127.0.0.1:8000/health"
HEAD = "# the app\n[runtime]\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


async def read(directory: Path, text: str | bytes) -> RuntimeSettings:
    content = text if isinstance(text, bytes) else text.encode()
    (directory / "att.toml").write_bytes(content)
    return await TomlSettingsReader().read(project(directory))


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
        stop_grace = "1.5s"

        [runtime.readiness]
        http = "{URL}"
        interval = "250ms"
        timeout = "1m"
        threshold = 3
        deadline = "1h"

        [bootstrap]
        anything = ["is", "read", "elsewhere"]
        [bootstrap.test]
        command = ["pytest"]
    """
    assert await read(directory, text) == RuntimeSettings(
        command=("python", "app.py", "--name", "Größe"),
        env={"A": "1", "b.c": ""},
        stop_grace=timedelta(seconds=1.5),
        readiness=HttpProbe(
            url=URL,
            interval=timedelta(milliseconds=250),
            timeout=timedelta(minutes=1),
            threshold=3,
            deadline=timedelta(hours=1),
        ),
    )


async def test_an_inline_table_says_the_same_and_the_rest_has_its_defaults(
    directory: Path,
) -> None:
    settings = await read(directory, f"runtime.readiness = {{ http = '{URL}' }}")
    assert settings == RuntimeSettings(readiness=HttpProbe(url=URL))


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
        ("\n[runtime.readiness]\ninterval = '1s'\n", 2, "runtime.readiness.http"),
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


async def test_a_slip_in_a_name_is_told_the_right_one(directory: Path) -> None:
    assert "'command'" in (await failure(directory, HEAD + "comand = []")).message


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
    assert settings.readiness == HttpProbe(url=url)


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
        ("env_file = '.env'", "settings.env_file"),
        ("restart = 'always'", "settings.restart"),
        ("limits.processes = 3", "settings.limits"),
        ("[runtime.liveness]", "settings.liveness"),
        ("data = ['cache']", "settings.data_directories"),
        ("data_directories = ['cache']", "settings.data_directories"),
        ("readiness = { tcp = 8000 }", "probes.tcp"),
        ("readiness.command = ['true']", "probes.command"),
        ("readiness.grpc.target = 'unix:x'", "probes.grpc"),
        ("readiness.log = 'listening'", "probes.log"),
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

"""What a file of variables may hold, and that nothing of it is ever told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from att_server.adapters.settings import TomlSettingsReader
from att_server.core.errors import AttError, Reason
from att_server.core.ports import SettingsReader
from att_server.testing.settings import FakeSettingsReader
from tests.contract.test_settings_reader import project
from tests.server_process import PATIENCE


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


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
    async with asyncio.timeout(PATIENCE):
        with suppress(AttError):
            await env_file(directory, content)


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self", ".env", "pipe"])
async def test_variables_come_of_a_file_only(directory: Path, target: str) -> None:
    os.mkfifo(directory / "pipe")
    (directory / ".env").symlink_to(target)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(AttError) as caught:
            await TomlSettingsReader().env_file(project(directory), ".env")
    assert caught.value.reason is Reason.SETTINGS_INVALID


@pytest.mark.parametrize("path", ["", "a\0b", "missing/.env", "att.toml/.env", "x" * 5_000])
async def test_a_path_that_leads_to_no_file_is_refused(directory: Path, path: str) -> None:
    (directory / "att.toml").touch()
    with pytest.raises(AttError) as caught:
        await TomlSettingsReader().env_file(project(directory), path)
    assert caught.value.reason is Reason.SETTINGS_INVALID

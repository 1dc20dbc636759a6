"""What every template store keeps to, and what the files of a template become."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from att_server.adapters.settings import TomlSettingsReader
from att_server.adapters.templates import TEMPLATES, PackagedTemplates
from att_server.core.errors import AttError, Reason
from att_server.core.ports import TemplateStore
from att_server.testing.templates import FakeTemplateStore
from tests.contract.test_settings_reader import project

FILES = {"att.toml": b"[runtime]\n", ".gitignore": b"/.venv\n", "app/deep/data": bytes(range(256))}

Occupy = Callable[[Path], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two templates: one with all kinds of files, and one with just a page."""
    for name, content in (FILES | {"app/__pycache__/x.pyc": b"compiled"}).items():
        path = tmp_path / "templates/one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "templates/two").mkdir()
    (tmp_path / "templates/two/README.md").write_text("two\n")
    return tmp_path / "templates"


@pytest.fixture(params=["packaged", "fake"])
def store(request: pytest.FixtureRequest, root: Path) -> TemplateStore:
    return (
        PackagedTemplates(root) if request.param == "packaged" else FakeTemplateStore("two", "one")
    )


@pytest.fixture
def occupy(store: TemplateStore) -> Occupy:
    """Puts something into a directory that no template has."""

    def put(directory: Path) -> None:
        if isinstance(store, FakeTemplateStore):
            store.filled[directory] = ""
            return
        directory.mkdir(exist_ok=True)
        (directory / "mine").write_text("mine\n")

    return put


@pytest.fixture
def packaged(root: Path) -> PackagedTemplates:
    return PackagedTemplates(root)


async def refusal(store: TemplateStore, directory: Path) -> AttError:
    with pytest.raises(AttError) as refused:
        await store.fill("one", directory)
    assert refused.value.metadata == {"path": str(directory)}
    return refused.value


def held(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if not path.is_dir()
    }


# Every store ----------------------------------------------------------------


async def test_the_templates_have_names_in_order(store: TemplateStore) -> None:
    assert list(store.names()) == ["one", "two"]


async def test_filling_a_directory_again_is_no_error(store: TemplateStore, tmp_path: Path) -> None:
    await store.fill("one", tmp_path / "app")
    await store.fill("one", tmp_path / "app")


async def test_a_directory_with_another_template_is_refused(
    store: TemplateStore, tmp_path: Path
) -> None:
    await store.fill("two", tmp_path / "app")
    assert (await refusal(store, tmp_path / "app")).reason is Reason.PROJECT_PATH_INVALID


async def test_a_directory_with_something_else_is_refused(
    store: TemplateStore, occupy: Occupy, tmp_path: Path
) -> None:
    occupy(tmp_path / "app")
    assert (await refusal(store, tmp_path / "app")).reason is Reason.PROJECT_PATH_INVALID


# Files ----------------------------------------------------------------------


async def test_an_absent_directory_is_made_with_every_file(
    packaged: PackagedTemplates, tmp_path: Path
) -> None:
    await packaged.fill("one", tmp_path / "new")
    assert held(tmp_path / "new") == FILES
    assert sorted(os.listdir(tmp_path)) == ["new", "templates"]


async def test_an_empty_directory_is_filled_and_stays_the_same_one(
    packaged: PackagedTemplates, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir(mode=0o750)
    before = (tmp_path / "empty").stat()
    await packaged.fill("one", tmp_path / "empty")
    after = (tmp_path / "empty").stat()
    assert held(tmp_path / "empty") == FILES
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


async def test_a_refused_directory_is_named_with_its_first_entry_and_left_alone(
    packaged: PackagedTemplates, tmp_path: Path
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/notes").write_text("mine\n")
    assert "'notes'" in (await refusal(packaged, tmp_path / "app")).message
    assert held(tmp_path / "app") == {"notes": b"mine\n"}


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: (path / "att.toml").write_text("[runtime]#"),
        lambda path: (path / "att.toml").unlink(),
        lambda path: (path / "app/more").write_text(""),
        lambda path: replace_by_pipe(path / "att.toml"),
    ],
)
async def test_a_directory_that_differs_from_the_template_is_refused(
    packaged: PackagedTemplates, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    await packaged.fill("one", tmp_path / "app")
    spoil(tmp_path / "app")
    before = sorted((tmp_path / "app").rglob("*"))
    assert (await refusal(packaged, tmp_path / "app")).reason is Reason.PROJECT_PATH_INVALID
    assert sorted((tmp_path / "app").rglob("*")) == before


async def test_what_is_no_directory_or_has_no_parent_is_refused(
    packaged: PackagedTemplates, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in ("file", "link", "no/parent", "file/below"):
        assert (await refusal(packaged, tmp_path / path)).reason is Reason.PROJECT_PATH_INVALID
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "templates"]


async def test_a_failure_half_way_leaves_nothing_behind(
    packaged: PackagedTemplates, root: Path, tmp_path: Path
) -> None:
    # With this name the longest paths are too long.
    deep = tmp_path / "/".join(["d" * 200] * 20)
    deep.parent.mkdir(parents=True)
    (root / "one" / ("f" * 255)).write_text("x")
    assert (await refusal(packaged, deep)).reason is Reason.PROJECT_PATH_INVALID
    assert os.listdir(deep.parent) == []


# The templates of this release ----------------------------------------------


@pytest.mark.parametrize("name", PackagedTemplates().names())
async def test_a_template_of_this_release_is_a_project_that_can_be_started(
    name: str, tmp_path: Path
) -> None:
    await PackagedTemplates().fill(name, tmp_path / "app")
    settings = await TomlSettingsReader().read(project(tmp_path / "app"), tmp_path / "app")
    assert settings.command
    assert settings.readiness is not None
    assert (tmp_path / "app/README.md").is_file()


def test_the_nat_template_has_its_environment_to_itself_and_registers_its_workflow() -> None:
    nat = TEMPLATES / "nat"
    settings = tomllib.loads((nat / "att.toml").read_text())["runtime"]
    assert settings["command"][0] == ".venv/bin/nat"
    port = settings["command"][settings["command"].index("--port") + 1]
    assert f":{port}/" in settings["readiness"]["http"]
    project = tomllib.loads((nat / "pyproject.toml").read_text())
    (module,) = project["project"]["entry-points"]["nat.components"].values()
    assert (nat / (module.replace(".", "/") + ".py")).is_file()
    assert "nvidia-nat-core~=1.9.0" in (nat / "requirements.txt").read_text()

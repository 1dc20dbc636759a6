"""Each call that takes or uses a path, against a server that allows projects in one place."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import att_client
from att_client import Config
from att_client.example import repository
from tests.certificates import Authority
from tests.server_process import PATIENCE, ServerProcess

REFUSED = att_client.ProjectPathNotAllowedError


class Ground:
    """A server with one root, and what lies beside the root."""

    def __init__(self, place: Path) -> None:
        self.root = place / "srv"
        self.beside = place / "srv-evil"
        self.state = place / "s"
        for each in (self.root, self.beside):
            each.mkdir()
        self.state.mkdir(mode=0o700)
        self.settings([str(self.root)])
        self.authority = Authority(place)
        files = self.authority.issue("server")
        att_server("init", "--json", "--state-dir", self.state)
        words = ("token", "create", "--name", "op", "--role", "operator")
        self.token = att_server(*words, "--state-dir", self.state)
        self.server = ServerProcess(
            self.state,
            *("--listen", "127.0.0.1:0", "--allow-root"),
            *("--tls-cert", str(files.certificate), "--tls-key", str(files.key)),
        )

    def settings(self, roots: list[str] | None) -> None:
        path = self.state / "settings.toml"
        path.touch(mode=0o600)
        path.write_text("" if roots is None else f"project_roots = {roots}")

    @property
    def remote(self) -> Config:
        """How an operator reaches it over the network."""
        return replace(
            Config(target=self.server.ready.split(", ")[1]),
            token=self.token,
            ca_file=self.authority.file,
            timeout=timedelta(seconds=PATIENCE),
        )


def app(env_file: str = "") -> att_client.RuntimeSettings:
    return att_client.RuntimeSettings(command=["sleep", "600"], env_file=env_file or None)


def att_server(*words: str | Path) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "att_server", *words], check=True, capture_output=True, text=True
    )
    return made.stdout.strip()


def git(directory: Path, *words: str) -> None:
    subprocess.run(["git", "-C", directory, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    place = Path(tempfile.mkdtemp(prefix="att-roots-"))
    made = Ground(place)
    with made.server:
        yield made
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
async def att(ground: Ground) -> AsyncIterator[att_client.Client]:
    async with att_client.connect(ground.server.target) as client:
        yield client


async def test_a_project_is_made_below_the_root_and_nowhere_else(
    ground: Ground, att: att_client.Client
) -> None:
    (ground.root / "made").mkdir()
    (ground.root / "out").symlink_to(ground.beside)
    async with att_client.connect(config=ground.remote) as remote:
        for client in (att, remote):
            await client.projects.create("made", path=ground.root / "made")
            for path in (
                *(ground.beside, ground.root / "out", ground.root / ".." / "srv-evil"),
                *(Path("/"), Path("/etc"), ground.beside / "absent"),
            ):
                with pytest.raises(REFUSED) as error:
                    await client.projects.create("elsewhere", path=path)
                assert error.value.metadata["path"] == str(path)
                with pytest.raises(REFUSED):
                    await client.projects.update("made", path=path)
    assert (await att.projects.get("made")).path == str(ground.root / "made")


async def test_a_template_fills_nothing_elsewhere(ground: Ground, att: att_client.Client) -> None:
    for path in (ground.beside / "new", ground.root / ".." / "srv-evil" / "new"):
        with pytest.raises(REFUSED):
            await att.projects.create("new", path=path, template="nat")
    assert list(ground.beside.glob("new*")) == []


async def test_a_file_of_variables_lies_below_the_root(
    ground: Ground, att: att_client.Client
) -> None:
    directory = ground.root / "vars"
    directory.mkdir()
    (ground.beside / "secret.env").write_text("SECRET=canary-of-variables")
    (ground.root / "common.env").write_text("COMMON=1")
    (directory / "link.env").symlink_to(ground.beside / "secret.env")
    await att.projects.create("vars", path=directory)
    for path in ("link.env", "../../srv-evil/secret.env", str(ground.beside / "secret.env")):
        with pytest.raises(REFUSED) as error:
            await att.runtimes.start("vars", runtime=app(path))
        assert "canary" not in str(error.value)
    await att.runtimes.start("vars", runtime=app("../common.env"))
    await att.runtimes.stop("vars", grace=timedelta())


async def test_a_project_that_has_come_to_lie_elsewhere_is_not_used(
    ground: Ground, att: att_client.Client
) -> None:
    directory = ground.root / "moved"
    repository.make_repository(directory)
    await att.projects.create("moved", path=directory)
    assert [file async for file in att.code.files("moved")]
    directory.rename(ground.beside / "moved")
    directory.symlink_to(ground.beside / "moved")
    with pytest.raises(REFUSED):
        await att.runtimes.start("moved", runtime=app())
    with pytest.raises(REFUSED):
        await att.code.read("moved", "app.py")
    with pytest.raises(REFUSED):
        await att.bootstrap.plan("moved", edits={"x.txt": b"x"})
    # What is shown of it says why.
    assert "project_roots" in (await att.projects.get("moved")).settings_error


async def test_a_worktree_of_a_repository_elsewhere_is_not_used(
    ground: Ground, att: att_client.Client
) -> None:
    other = ground.beside / "repository"
    repository.make_repository(other)
    tree = ground.root / "tree"
    git(other, "worktree", "add", "-q", "--detach", str(tree))
    await att.projects.create("tree", path=tree)
    with pytest.raises(REFUSED) as error:
        await att.code.read("tree", "app.py")
    assert str(other) in error.value.metadata["path"]

"""The tools that make what is committed, and the gate that guards the contract."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> dict[str, Requirement]:
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    return {requirement.name: requirement for requirement in map(Requirement, listed)}


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def floor(requirement: Requirement) -> Version:
    return next(Version(spec.version) for spec in requirement.specifier if spec.operator == ">=")


def generated(pattern: str, text: str) -> Version:
    """The version that the generated files of the contract name, which is one for all."""
    found = {
        version
        for path in (ROOT / "protos/att/v1").glob("*.py")
        for version in re.findall(text, path.read_text())
        if path.match(pattern)
    }
    assert len(found) == 1
    return Version(found.pop())


def test_the_declared_grpcio_is_new_enough_for_the_generated_code() -> None:
    needed = generated("*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '([\d.]+)'")
    assert floor(declared()["grpcio"]) >= needed


def test_the_declared_protobuf_is_new_enough_for_the_generated_code() -> None:
    needed = generated("*_pb2.py", r"Protobuf Python Version: ([\d.]+)")
    assert floor(declared()["protobuf"]) >= needed


def test_the_declared_betterproto2_is_of_the_compilers_series() -> None:
    text = (ROOT / "att_client/_proto/att/v1/__init__.py").read_text()
    (compiler,) = set(re.findall(r'_COMPILER_VERSION = "([\d.]+)"', text))
    assert declared()["betterproto2"].specifier.contains(
        pinned(ROOT / "requirements/dev.txt")["betterproto2"]
    )
    assert Version(compiler).release[:2] == floor(declared()["betterproto2"]).release[:2]


def test_the_lock_holds_every_declared_dependency_in_its_range() -> None:
    versions = pinned(ROOT / "requirements/dev.txt")
    for name, requirement in declared().items():
        assert requirement.specifier.contains(versions[name]), name


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert " @ " not in text
    for entry in re.split(r"\n(?=[\w.-]+==)", text):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_node_example_pins_exact_versions_and_records_no_address() -> None:
    folder = ROOT / "examples/node"
    assert not (folder / "package-lock.json").exists()
    assert re.findall(r'"@grpc/[\w-]+": "(.+)"', (folder / "package.json").read_text()) == [
        "1.14.7",
        "0.8.1",
    ]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the contract and its gate, and one commit of them."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("*.py*"))
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    return tmp_path


def git(repository: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{role}_{field}": "test@example.com"
        for role in ("AUTHOR", "COMMITTER")
        for field in ("NAME", "EMAIL")
    }
    return subprocess.run(
        ["git", *arguments],
        cwd=repository,
        env={**os.environ, **identity},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def commit(repository: Path, message: str) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)


def breaking(repository: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [".ci/breaking"],
        cwd=repository,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )


def renumber(repository: Path) -> None:
    """Breaks the contract: gives a field another number."""
    proto = repository / "protos/att/v1/runtime.proto"
    proto.write_text(proto.read_text().replace("bool healthy = 1;", "bool healthy = 99;"))


def test_the_gate_passes_before_the_first_commit_and_at_it(clone: Path) -> None:
    assert breaking(clone).returncode == 0
    commit(clone, "first")
    assert breaking(clone).returncode == 0


def test_the_gate_refuses_a_break_that_is_not_committed(clone: Path) -> None:
    commit(clone, "first")
    renumber(clone)
    assert breaking(clone).returncode != 0


def test_the_gate_refuses_a_break_in_an_earlier_commit_than_the_last(clone: Path) -> None:
    commit(clone, "first")
    renumber(clone)
    commit(clone, "break")
    (clone / "other").touch()
    commit(clone, "something else")
    assert breaking(clone).returncode != 0


def test_the_gate_compares_a_branch_with_where_it_left_main(clone: Path, tmp_path: Path) -> None:
    commit(clone, "first")
    git(clone, "update-ref", "refs/remotes/origin/main", "HEAD")
    renumber(clone)
    commit(clone, "break")
    proto = clone / "protos/att/v1/event.proto"
    proto.write_text(proto.read_text().replace("int64", "int64 "))
    commit(clone, "touch another proto")
    assert breaking(clone).returncode != 0

"""The wheel holds what the tree holds, and works where there is no tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"att": ROOT / "protos/att"} | {
    name: ROOT / name for name in ("att_client", "att_server")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip("wheel", *options, "--wheel-dir", str(out), str(ROOT))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a clean environment with the wheel and, beside it, its dependencies.

    The dependencies are those of the running environment: a `.pth` file names
    its directory, which does not bring its own `.pth` files, hence not the tree.
    """
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    scripts = environment / "bin"
    pip("--python", str(scripts / "python"), "install", "--quiet", "--no-deps", str(wheel))
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, timeout=100)


def run(scripts: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [scripts / command[0], *command[1:]],
        cwd=scripts.parent,
        env={"PATH": f"{scripts}:{os.environ['PATH']}", "HOME": str(scripts.parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_holds_every_file_of_the_package(wheel: Path, package: str) -> None:
    folder = PACKAGES[package]
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"{package}/{path.relative_to(folder)}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{package}/py.typed" in wanted
    assert wanted <= held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_an_installed_package_imports_without_the_tree(installed: Path) -> None:
    code = (
        "import att.v1.log_service_pb2_grpc, att_client, att_client.example, att_server.testing\n"
        "from importlib.metadata import version\n"
        "print(att_client.__file__, version('att-control'))"
    )
    done = run(installed, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed.parent))


def test_the_installed_commands_answer(installed: Path) -> None:
    for command in (["att", "--help"], ["python", "-m", "att_server", "--help"]):
        done = run(installed, *command)
        assert done.returncode == 0, done.stderr

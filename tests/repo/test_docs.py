"""What the docs show works, and what they point to exists."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from att.v1 import project_pb2, project_service_pb2, project_service_pb2_grpc
from tests.server_process import PATIENCE, ServerProcess

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/*/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of the README in `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert {a or b for a, b in named} <= targets, page.name


APP = """
import os, sys, time
print("hello")
print("world")
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


def test_the_code_blocks_of_the_readme_run(tmp_path: Path) -> None:
    sdk, blocking, stock = blocks("python")
    enough = tmp_path / "enough"
    with ServerProcess(tmp_path / "s") as server:
        create_demo(server, tmp_path, enough)
        with program(sdk, server) as printing:
            assert printing.stdout is not None
            assert [next(printing.stdout), next(printing.stdout)] == ["1 hello\n", "2 world\n"]
            enough.touch()
            assert printing.wait(PATIENCE) == 0
        with program(blocking, server) as printing:
            assert printing.stdout is not None
            assert printing.stdout.read() == "hello\nworld\n"
            assert printing.wait(PATIENCE) == 0
        with program(stock, server) as printing:
            assert printing.stdout is not None
            assert re.search(r"hello.*world", printing.stdout.read(), re.DOTALL)
            assert printing.wait(PATIENCE) == 0


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    _, *commands = blocks("sh")
    # Somebody may have an app on the port that the example names.
    create = "att project create web --path web"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own_port = (
        f'{create} --command "python app.py --port {port}" '
        f"--ready-http http://127.0.0.1:{port}/health --ready-interval 100ms"
    )
    script = "\n".join(commands)
    assert create in script
    with ServerProcess(tmp_path / "s") as server:
        done = subprocess.run(
            ["bash", "-euc", script.replace(create, own_port)],
            cwd=tmp_path,
            env={
                **os.environ,
                "ATT_TARGET": server.target,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,  # many commands, one after the other
        )
    assert done.returncode == 0, done.stderr


def create_demo(server: ServerProcess, path: Path, enough: Path) -> None:
    """Creates the project of the README, whose app runs until `enough` exists."""
    command = [sys.executable, "-c", APP, str(enough)]
    with grpc.insecure_channel(server.target) as channel:
        project_service_pb2_grpc.ProjectServiceStub(channel).CreateProject(
            project_service_pb2.CreateProjectRequest(
                project_id="demo",
                path=str(path),
                runtime=project_pb2.RuntimeSettings(command=command),
            ),
            timeout=PATIENCE,
        )


def program(code: str, server: ServerProcess) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        env={**os.environ, "ATT_TARGET": server.target},
        stdout=subprocess.PIPE,
        text=True,
    )

"""`buf curl`, which knows of a server what its reflection says, and the README of `buf curl`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).parent / "buf"


def curl(state_dir: Path, method: str) -> subprocess.CompletedProcess[str]:
    way = ("--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", state_dir / "att.sock")
    url = f"http://localhost/att.v1.{method}"
    return subprocess.run([BUF, "curl", *way, url], capture_output=True, text=True, check=False)


def test_it_calls_without_the_protos_and_says_what_the_readme_says(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "s") as server:
        called = curl(server.state_dir, "ServerService/GetServerInfo")
        assert (called.returncode, called.stderr) == (0, "")
        assert json.loads(called.stdout)["version"]
        refused = curl(server.state_dir, "LogService/ReadLogs")
        assert json.loads(refused.stderr)["code"] == "invalid_argument"
    # Not that it cannot connect.
    gone = curl(server.state_dir, "ServerService/GetServerInfo")
    assert gone.returncode != 0
    wrong = "failed to find service"
    assert wrong in gone.stderr
    assert wrong in (ROOT / "README.md").read_text()

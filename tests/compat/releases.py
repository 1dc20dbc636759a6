"""Earlier releases of the server, as they were, to run on one state directory with this one.

A release is named by what is kept of it here, else by a revision of git. An archive holds
`att_server` and the generated `protos/att`, from the tree of that release; it runs on the
present dependencies. The present tree is kept for the next release by:

    git archive HEAD att_server protos/att | tar -x -C TREE
    find TREE \\( -name '*.pyi' -o -name '*.proto' \\) -delete
    tar --sort=name --owner=0 --group=0 -cJf tests/compat/release-X.Y.Z.tar.xz \\
        -C TREE att_server protos
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

PREVIOUS = "0.1.0"
WITH_CYCLES = "0.2.0.dev0"
"""Release cycles as they were complete, before the next change of schema and segments."""
WITH_HANDOVER = "0.2.0.dev1"
"""The first whose servers hand over live; the one before stands by."""

ROOT = Path(__file__).parents[2]


def releases(config: pytest.Config, otherwise: str) -> list[str]:
    """Those that `--previous` names; without it, `otherwise`."""
    named: list[str] = config.getoption("--previous")
    return named or [otherwise]


def unpack(release: str, directory: Path) -> Path:
    """The release's tree, unpacked below `directory`."""
    root = directory / release.replace("/", "-")
    with tarfile.open(fileobj=io.BytesIO(_archive(release))) as archive:
        archive.extractall(root, filter="data")
    return root


def has_cycles(release: str) -> bool:
    """Whether the release carries cycles out."""
    return _holds(release, "att_server/core/cycles/engine.py")


def has_handover(release: str) -> bool:
    """Whether a server of the release hands over to the next one."""
    return _holds(release, "att_server/succession.py")


def released_environ(root: Path) -> Mapping[str, str]:
    """What makes Python take an unpacked release."""
    path = os.pathsep.join([str(root), str(root / "protos")])
    # Else the present tree, where the tests are started, would be found first.
    return {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def released_server(root: Path, state_dir: Path) -> ServerProcess:
    """The server of an unpacked release."""
    return ServerProcess(state_dir, environ=released_environ(root))


def _holds(release: str, name: str) -> bool:
    with tarfile.open(fileobj=io.BytesIO(_archive(release))) as archive:
        return name in archive.getnames()


@cache
def _archive(release: str) -> bytes:
    kept = Path(__file__).with_name(f"release-{release}.tar.xz")
    if kept.is_file():
        return kept.read_bytes()
    made = subprocess.run(
        ["git", "archive", "--end-of-options", release, "att_server", "protos"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    return made.stdout

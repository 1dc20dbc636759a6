"""Earlier releases of the server, as they were, to run on one state directory with this one.

An archive holds `att_server` and the generated `protos/att`, from the tree of
that release; it runs on the present dependencies. The present tree is kept for
the next release by:

    git archive HEAD att_server protos/att | tar -x -C TREE
    find TREE \\( -name '*.pyi' -o -name '*.proto' \\) -delete
    tar --sort=name --owner=0 --group=0 -cJf tests/compat/release-X.Y.Z.tar.xz \\
        -C TREE att_server protos
"""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from tests.server_process import ServerProcess

PREVIOUS = "0.1.0"


def unpack(version: str, directory: Path) -> Path:
    """The release's tree, unpacked below `directory`."""
    root = directory / version
    with tarfile.open(Path(__file__).with_name(f"release-{version}.tar.xz")) as archive:
        archive.extractall(root, filter="data")
    return root


def released_server(root: Path, state_dir: Path) -> ServerProcess:
    """The server of an unpacked release."""
    path = os.pathsep.join([str(root), str(root / "protos")])
    # Else the present tree, where the tests are started, would be found first.
    return ServerProcess(state_dir, environ={"PYTHONPATH": path, "PYTHONSAFEPATH": "1"})

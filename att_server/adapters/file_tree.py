"""Removing what programs have made, whatever they did to its permissions."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Removes whatever is at `path`, links as links; without effect if there is nothing.

    Raises OSError for what cannot be removed. Blocks: not for the event loop.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        try:
            shutil.rmtree(path)
        except PermissionError:
            _let_write(path)
            shutil.rmtree(path)


def _let_write(path: Path) -> None:
    """Gives its owner all rights on every directory of the tree."""
    os.chmod(path, 0o700)
    for directory, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(directory, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)

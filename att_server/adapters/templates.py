"""TemplateStore of the templates that come with the server."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from att_server.core.errors import AttError, Reason

TEMPLATES = Path(__file__).parents[1] / "templates"

# A full disk, and a user's share of it that is used up.
_FULL = (errno.ENOSPC, errno.EDQUOT)


class PackagedTemplates:
    """Implements `TemplateStore`; each directory below `root` is a template.

    Files are written beside their place and moved there at the end, so a
    directory that was absent appears filled, and an empty one stays the
    directory that it is, for those who stand in it.
    """

    def __init__(self, root: Path = TEMPLATES) -> None:
        self._root = root

    def names(self) -> Sequence[str]:
        """The directories' names."""
        return sorted(path.name for path in self._root.iterdir() if path.is_dir())

    async def fill(self, name: str, directory: Path) -> None:
        """Fills the directory. Raises PROJECT_PATH_INVALID, STORAGE_FULL."""
        await asyncio.to_thread(self._fill, name, directory)

    def _fill(self, name: str, directory: Path) -> None:
        files = _files(self._root / name)
        try:
            found = os.listdir(directory) if os.path.lexists(directory) else None
            if found:
                if _holds(directory, files):
                    return
                raise AttError(
                    Reason.PROJECT_PATH_INVALID,
                    f"{str(directory)!r} is not empty: it holds {min(found)!r}. Give the path of "
                    "a new or an empty directory, or leave the template out to keep its files.",
                    path=directory,
                )
            _write(files, directory, exists=found is not None)
        except OSError as error:
            raise AttError(
                Reason.STORAGE_FULL if error.errno in _FULL else Reason.PROJECT_PATH_INVALID,
                f"{str(directory)!r} could not be filled: {error.strerror}. Its parent has to "
                "exist, and the server has to be allowed to write there.",
                path=directory,
            ) from error


def _files(root: Path) -> dict[str, bytes]:
    """The files below `root` by their relative path, without what Python compiled."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def _holds(directory: Path, files: Mapping[str, bytes]) -> bool:
    """Whether the directory holds these files and no other; looks no further than it must."""
    missing = dict(files)
    for path in directory.rglob("*"):
        if path.is_dir():
            continue
        content = missing.pop(str(path.relative_to(directory)), None)
        if content is None or not path.is_file() or path.stat().st_size != len(content):
            return False
        if path.read_bytes() != content:
            return False
    return not missing


def _write(files: Mapping[str, bytes], directory: Path, *, exists: bool) -> None:
    """Writes all files or none; `directory` is empty or absent. Raises OSError."""
    parent = directory if exists else directory.parent
    stage = parent / f".att-{secrets.token_hex(8)}"
    moved: list[Path] = []
    try:
        stage.mkdir()
        for name, content in files.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in [stage, *stage.rglob("*/")]:
            _sync_directory(path)
        if exists:
            for path in list(stage.iterdir()):
                moved.append(path.rename(directory / path.name))
            stage.rmdir()
        else:
            stage.rename(directory)
    except OSError:
        for path in [*moved, stage]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise
    _sync_directory(parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

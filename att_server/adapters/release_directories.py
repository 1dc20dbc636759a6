"""ReleaseDirectories: the files of releases, in the state directory.

projects/<id>/releases/<sha>/       a release's files, at the path they were built at
projects/<id>/releases/<sha>.json   its manifest, written last: makes it a release
projects/<id>/current               link to the release that the app runs from
projects/<id>/data/                 ATT_DATA_DIR
projects/<id>/shared/               what paths of every release are links to
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from att_server.adapters.file_tree import remove_tree
from att_server.core.cycles.artifacts import Manifest
from att_server.core.errors import AttError, Reason
from att_server.core.repository import is_sha

RELEASES = "releases"
CURRENT = "current"
DATA = "data"
SHARED = "shared"
MAX_MANIFEST_BYTES = 1 << 20

_FORMAT = 1
_MANIFEST = ".json"
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class ReleaseDirectories:
    """Implements `ArtifactStore`. Nothing is cached, so several may share a state directory.

    Raises STORAGE_FULL, OSError for what else the file system refuses, and
    ValueError for an id of a release that is no full sha: it becomes part of a path.
    """

    def __init__(self, state_dir: Path) -> None:
        self._projects = state_dir / "projects"

    # Where things lie -------------------------------------------------------

    def directory(self, project_id: str, release_id: str) -> Path:
        """See `ArtifactStore`."""
        return self._releases(project_id) / _checked(release_id)

    def data_directory(self, project_id: str) -> Path:
        """See `ArtifactStore`."""
        return self._projects / project_id / DATA

    def _releases(self, project_id: str) -> Path:
        return self._projects / project_id / RELEASES

    def _manifest_path(self, project_id: str, release_id: str) -> Path:
        return self._releases(project_id) / f"{_checked(release_id)}{_MANIFEST}"

    # ArtifactStore ----------------------------------------------------------

    async def prepare_data(self, project_id: str) -> Path:
        """See `ArtifactStore`."""
        path = self.data_directory(project_id)
        await _in_thread(path, lambda: path.mkdir(mode=0o700, parents=True, exist_ok=True))
        return path

    async def manifest(self, project_id: str, release_id: str) -> Manifest | None:
        """See `ArtifactStore`. One that cannot be read is none, nor is one without its files."""
        path = self._manifest_path(project_id, release_id)
        directory = self.directory(project_id, release_id)
        return await _in_thread(path, lambda: _load(path, directory, release_id))

    async def link_shared(self, project_id: str, release_id: str, paths: Sequence[str]) -> None:
        """See `ArtifactStore`. Raises ValueError too for a path that would lead elsewhere."""
        directory = self.directory(project_id, release_id)
        shared = self._projects / project_id / SHARED

        def link() -> None:
            for path in paths:
                _link(directory, shared, path)

        await _in_thread(directory, link)

    async def seal(self, project_id: str, manifest: Manifest) -> None:
        """See `ArtifactStore`. The files are on the disk before the manifest is."""
        path = self._manifest_path(project_id, manifest.release_id)
        directory = self.directory(project_id, manifest.release_id)
        await _in_thread(path, lambda: _seal(path, directory, manifest))

    async def discard(self, project_id: str, release_id: str) -> None:
        """See `ArtifactStore`."""
        path = self._manifest_path(project_id, release_id)
        directory = self.directory(project_id, release_id)
        await _in_thread(path, lambda: _discard(path, directory))

    async def discard_unsealed(self, project_id: str) -> None:
        """See `ArtifactStore`."""
        current = await self.current(project_id)
        for release_id in await self.staged(project_id):
            if release_id != current and await self.manifest(project_id, release_id) is None:
                await self.discard(project_id, release_id)

    async def staged(self, project_id: str) -> frozenset[str]:
        """See `ArtifactStore`. A manifest whose directory is gone counts: it may be discarded."""
        releases = self._releases(project_id)
        return await _in_thread(releases, lambda: frozenset(_ids(releases)))

    async def current(self, project_id: str) -> str:
        """See `ArtifactStore`."""
        return await asyncio.to_thread(_named, self._projects / project_id / CURRENT)

    async def switch(self, project_id: str, release_id: str) -> None:
        """See `ArtifactStore`. Raises ValueError where the link would lead to nothing."""
        link = self._projects / project_id / CURRENT
        directory = self.directory(project_id, release_id)
        await _in_thread(link, lambda: _switch(link, directory))

    async def forget_project(self, project_id: str) -> None:
        """See `ArtifactStore`. The link first, so that it never leads to nothing."""
        project = self._projects / project_id

        def forget() -> None:
            with contextlib.suppress(FileNotFoundError):
                (project / CURRENT).unlink()
            for name in (RELEASES, SHARED, DATA):
                remove_tree(project / name)

        await _in_thread(project, forget)


def _checked(release_id: str) -> str:
    if not is_sha(release_id):
        raise ValueError(f"not the id of a release: {release_id!a}")
    return release_id


# On the disk ----------------------------------------------------------------


async def _in_thread(path: Path, work: Callable[[], T]) -> T:
    def run() -> T:
        with _told(path):
            return work()

    return await asyncio.to_thread(run)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises STORAGE_FULL for what is refused for want of space."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or path
        raise AttError(
            Reason.STORAGE_FULL,
            f"There is no space left to write {where}. Free some and call again.",
            path=where,
        ) from error


def _seal(path: Path, directory: Path, manifest: Manifest) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _sync_files(descriptor)
    finally:
        os.close(descriptor)
    draft = _draft(path)
    with draft.open("wb") as file:
        file.write(_encoded(manifest))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_directory(path.parent)


def _discard(path: Path, directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _draft(path).unlink()
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_directory(path.parent)
    remove_tree(directory)


def _switch(link: Path, directory: Path) -> None:
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory to switch to")
    target = os.path.join(directory.parent.name, directory.name)
    with contextlib.suppress(OSError):  # none yet, or no link
        if os.readlink(link) == target:
            return
    draft = _draft(link)
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    draft.symlink_to(target)
    draft.rename(link)
    _sync_directory(link.parent)


def _draft(path: Path) -> Path:
    """Where it is made before it takes its place by a rename."""
    return path.with_name(f".{path.name}.new")


def _named(link: Path) -> str:
    try:
        name = PurePosixPath(os.readlink(link)).name
    except OSError:
        return ""
    return name if is_sha(name) else ""


def _ids(releases: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(releases):
            name = entry.name.removesuffix(_MANIFEST)
            if is_sha(name):
                yield name


def _link(directory: Path, shared: Path, path: str) -> None:
    """Makes `path` of the release a link to the same path of what is shared."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"{path!a} is not a path below the release")
    parent = directory
    for part in parts[:-1]:
        parent /= part
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            raise ValueError(f"{path!a} lies below what is no directory of the release")
        parent.mkdir(exist_ok=True)
    target = shared.joinpath(*parts)
    link = parent / parts[-1]
    # Relative, so that a state directory may be moved as a whole.
    wanted = os.path.relpath(target, parent)
    if link.is_symlink() and os.readlink(link) == wanted:
        return
    if link.is_symlink() or link.exists():
        raise ValueError(f"{path!a} is in the release's tree already")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    link.symlink_to(wanted)


def _sync_files(descriptor: int) -> None:
    """Has the file system of `descriptor` keep all that was written. Raises OSError."""
    # os has only `sync`, which waits for every disk of the host.
    if _libc.syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# The manifest ---------------------------------------------------------------


def _encoded(manifest: Manifest) -> bytes:
    document = {
        "format": _FORMAT,
        "release_id": manifest.release_id,
        "tree": manifest.tree,
        "cycle_id": manifest.cycle_id,
        "create_time": manifest.create_time.isoformat(),
        "build": list(manifest.build),
        "shared": list(manifest.shared),
        "facts": dict(manifest.facts),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _load(path: Path, directory: Path, release_id: str) -> Manifest | None:
    try:
        if directory.is_symlink() or not directory.is_dir():
            return None
        with path.open("rb") as file:
            manifest = _decoded(json.loads(file.read(MAX_MANIFEST_BYTES)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        return None
    return manifest if manifest.release_id == release_id else None


def _decoded(document: Mapping[str, Any]) -> Manifest:
    """The manifest; what a later release wrote beside is left alone. Raises as it is wrong."""
    create_time = datetime.fromisoformat(document["create_time"])
    if create_time.tzinfo is None:
        raise ValueError("create_time has no zone")
    return Manifest(
        release_id=str(document["release_id"]),
        tree=str(document["tree"]),
        cycle_id=str(document["cycle_id"]),
        create_time=create_time,
        build=tuple(map(str, document.get("build", ()))),
        shared=tuple(map(str, document.get("shared", ()))),
        facts={str(key): str(value) for key, value in document.get("facts", {}).items()},
    )

"""What a project keeps in files beside its log, copied while it is used, and put back.

Its repository, its data, what its releases share, and the releases that it may run
on. One tar file for a project: the outer archive holds plain files alone, but a
release has links and executables.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from att_server.adapters.file_tree import remove_tree
from att_server.adapters.release_directories import CURRENT, DATA, RELEASES, SHARED
from att_server.core.repository import is_sha

REPOSITORY = "repository.git"

_MANIFEST = ".json"
# What names objects comes before the objects, so that all that is named is there:
# objects are written first, and hardly ever removed. A ref moves from a file of its
# own into `packed-refs`, and an object into a pack, not back.
_REPOSITORY_ORDER = ("HEAD", "config", "info", "refs", "packed-refs", "objects")
_PACKS = "pack"
_LOCK = ".lock"
_WRONG_PLACE = (FileExistsError, IsADirectoryError, NotADirectoryError)


class FilesInvalid(Exception):
    """A copy holds what no copy has. What was put back of it is worth nothing."""


def copy_files(project: Path, target: Path, good: Collection[str]) -> int:
    """Copies the files of a project to `target`, which is new (0600); how many bytes it has.

    good: ids of releases that are copied beside the current one, as far as they
    are there. Others may write meanwhile: each file comes as of when its turn came,
    a release whole or without its manifest. 0, and no file, where there is nothing.
    Raises OSError.
    """
    current = _current(project)
    entries = [
        *((REPOSITORY, path) for path in _repository_parts(project / REPOSITORY)),
        *((name, project / name) for name in (SHARED, DATA)),
        *(
            (RELEASES, path)
            for release_id in sorted({*good, current} - {""})
            # Its manifest last: retention removes that first.
            for path in (
                project / RELEASES / release_id,
                project / RELEASES / f"{release_id}{_MANIFEST}",
            )
        ),
    ]
    if not any(_holds_something(path) for _, path in entries):
        return 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        with tarfile.open(mode="w", fileobj=file, format=tarfile.PAX_FORMAT) as tar:
            for top, path in entries:
                _add(tar, project, path, locks=top != REPOSITORY)
            if current:
                link = tarfile.TarInfo(CURRENT)
                link.type, link.linkname = tarfile.SYMTYPE, f"{RELEASES}/{current}"
                tar.addfile(link)
        return file.tell()


def put_files_back(copy: BinaryIO, project: Path) -> frozenset[str]:
    """Puts the files of a copy into a project's directory; the ids of its releases.

    Raises FilesInvalid, OSError. Links are made when all else is there: nothing is
    written through one.
    """
    links: list[tuple[Path, str]] = []
    try:
        with tarfile.open(mode="r:", fileobj=copy) as tar:
            for member in tar:
                path = project.joinpath(*_parts(member.name))
                if member.issym():
                    links.append((path, member.linkname))
                elif member.isdir():
                    path.mkdir(mode=0o700, parents=True, exist_ok=True)
                elif member.isreg():
                    content = tar.extractfile(member)
                    assert content is not None  # it is a plain file
                    _put_file(path, member.mode, content)
                else:
                    raise FilesInvalid(f"{member.name[:200]!r} is no file, directory or link")
        for path, _ in links:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, linkname in links:
            path.symlink_to(linkname)
    except (tarfile.TarError, EOFError, ValueError, *_WRONG_PLACE) as error:
        raise FilesInvalid(str(error)) from error
    return _settle(project)


def _holds_something(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


def _current(project: Path) -> str:
    try:
        name = PurePosixPath(os.readlink(project / CURRENT)).name
    except OSError:
        return ""
    return name if is_sha(name) else ""


def _repository_parts(repository: Path) -> Iterator[Path]:
    for name in _REPOSITORY_ORDER:
        if name != "objects":
            yield repository / name
            continue
        try:
            below = sorted(os.listdir(repository / name), key=lambda each: (each == _PACKS, each))
        except FileNotFoundError:
            continue
        # An empty one is part of what makes a directory a repository.
        yield from (repository / name / each for each in below)


def _add(tar: tarfile.TarFile, project: Path, path: Path, *, locks: bool) -> None:
    """Adds what is at `path` and below. What is gone, or neither file nor link, is left out."""
    try:
        status = path.lstat()
        header = tarfile.TarInfo(os.path.relpath(path, project))
        header.mode, header.mtime = stat.S_IMODE(status.st_mode) & 0o777, int(status.st_mtime)
        if stat.S_ISLNK(status.st_mode):
            header.type, header.linkname = tarfile.SYMTYPE, os.readlink(path)
            tar.addfile(header)
        elif stat.S_ISDIR(status.st_mode):
            header.type = tarfile.DIRTYPE
            names = sorted(os.listdir(path))
            tar.addfile(header)
            for name in names:
                _add(tar, project, path / name, locks=locks)
        elif stat.S_ISREG(status.st_mode) and (locks or path.suffix != _LOCK):
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                header.size = os.fstat(file.fileno()).st_size
                tar.addfile(header, _Padded(file))
    except FileNotFoundError:
        return


class _Padded:
    """A file that may be cut while it is read; zeros stand for what was cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size).ljust(max(size, 0), b"\0")


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name).parts
    top = parts[0] if parts else ""
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise FilesInvalid(f"{name[:200]!r} leads elsewhere")
    if top == RELEASES and len(parts) > 1 and is_sha(parts[1].removesuffix(_MANIFEST)):
        return parts
    if top in (REPOSITORY, SHARED, DATA) or parts == (CURRENT,):
        return parts
    raise FilesInvalid(f"{name[:200]!r} has no place in the files of a project")


def _put_file(path: Path, mode: int, content: IO[bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        while piece := content.read(1 << 20):
            file.write(piece)
        os.fchmod(file.fileno(), mode & 0o777 | 0o600)


def _settle(project: Path) -> frozenset[str]:
    """Removes what is no release, and a link to it; the ids of those that are."""
    releases = project / RELEASES
    names = set(os.listdir(releases)) if releases.is_dir() else set()
    ids = {name for name in names if is_sha(name) and f"{name}{_MANIFEST}" in names}
    for name in names:
        if name.removesuffix(_MANIFEST) not in ids:
            remove_tree(releases / name)
    link = project / CURRENT
    if os.path.lexists(link) and _current(project) not in ids:
        remove_tree(link)
    if (project / REPOSITORY).is_dir():
        for name in ("objects", "refs"):
            (project / REPOSITORY / name).mkdir(mode=0o700, exist_ok=True)
    return frozenset(ids)

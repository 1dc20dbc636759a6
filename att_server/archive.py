"""The archive that a backup is: a gzipped tar file, checked as a whole before it is used.

Its members in order: `att-backup.json` (what it is), `att.db`, for each project
`projects/<id>/logs/head.json`, `projects/<id>/logs/<first sequence>.seg` and
`projects/<id>/files.tar` (`adapters/file_backup.py`), and `manifest.json`, which
names size and SHA-256 of all the others. Nothing else may be in it: no links, no
devices, no directories, no other names.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from att_server.command_failed import CommandFailed

FORMAT = "att-backup"
VERSION = 2
INFO_NAME = "att-backup.json"
MANIFEST_NAME = "manifest.json"
STORE_NAME = "att.db"
FILES_NAME = "files.tar"

_DATA_NAME = re.compile(
    r"att\.db|projects/[a-z][a-z0-9-]{0,62}/(files\.tar|logs/(head\.json|[0-9]{20}\.seg))"
)
# A log packs to a tenth of its size even so, and capturing does not wait.
_LEVEL = 1
_PIECE_BYTES = 1 << 20
_MAX_WORDS_BYTES = 256 << 20


class BackupError(CommandFailed):
    """A backup or a restore cannot be done; nothing was left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveInfo:
    """What an archive says of itself. time: when it was begun. release: that made it."""

    time: datetime
    release: str


class ArchiveWriter:
    """Adds members to an archive; see `new_archive`."""

    def __init__(self, tar: tarfile.TarFile, info: ArchiveInfo) -> None:
        self._tar = tar
        self._time = int(info.time.timestamp())
        self._members: dict[str, dict[str, object]] = {}
        form = {
            "format": FORMAT,
            "version": VERSION,
            "time": info.time.isoformat(),
            "release": info.release,
        }
        self._add(INFO_NAME, _encoded(form))

    def add(self, name: str, content: BinaryIO, size: int) -> None:
        """Adds the next `size` bytes of `content`. Raises OSError."""
        if not _DATA_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a member")
        hashed = _HashedReader(content)
        self._tar.addfile(self._header(name, size), hashed)
        self._members[name] = {"size": size, "sha256": hashed.digest()}

    def finish(self) -> None:
        """Adds the manifest."""
        self._add(MANIFEST_NAME, _encoded({"files": self._members}))

    def _add(self, name: str, data: bytes) -> None:
        self._tar.addfile(self._header(name, len(data)), BytesIO(data))

    def _header(self, name: str, size: int) -> tarfile.TarInfo:
        header = tarfile.TarInfo(name)
        header.size = size
        header.mode = 0o600
        header.mtime = self._time
        return header


@contextmanager
def new_archive(path: Path, info: ArchiveInfo) -> Iterator[ArchiveWriter]:
    """Writes an archive to `path`, which is new (0600); whole and on the disk afterwards.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file) as packed,
            tarfile.open(mode="w|", fileobj=packed, bufsize=_PIECE_BYTES) as tar,
        ):
            writer = ArchiveWriter(tar, info)
            yield writer
            writer.finish()
        file.flush()
        os.fsync(file.fileno())


def unpack(archive: Path, directory: Path) -> ArchiveInfo:
    """Unpacks an archive into `directory` and checks every byte.

    What is in `directory` after a failure is worth nothing. Raises BackupError
    (ARCHIVE_INVALID, ARCHIVE_TOO_NEW, STORAGE_FULL), OSError.
    """
    try:
        with gzip.open(archive, "rb") as packed:
            with tarfile.open(mode="r|", fileobj=packed) as tar:
                info = _read_members(archive, tar, directory)
            # The checksum of the whole stands behind its last byte.
            while packed.read(_PIECE_BYTES):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _invalid(archive, f"is damaged or cut off ({error})") from error
    return info


def _read_members(archive: Path, tar: tarfile.TarFile, directory: Path) -> ArchiveInfo:
    info: ArchiveInfo | None = None
    found: dict[str, dict[str, object]] = {}
    for member in tar:
        name = member.name
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            _refuse_member(archive, name, "is not a plain file")
        content = tar.extractfile(member)
        assert content is not None  # it is a plain file
        if info is None:
            if name != INFO_NAME:
                raise _invalid(archive, "is no backup of ATT")
            info = _info(archive, _words(archive, name, content, member.size))
        elif name == MANIFEST_NAME:
            _compare(archive, found, _words(archive, name, content, member.size))
            if tar.next() is not None:
                raise _invalid(archive, f"goes on behind {MANIFEST_NAME}")
            return info
        elif name in found or not _DATA_NAME.fullmatch(name):
            _refuse_member(archive, name, "has no place in a backup")
        else:
            found[name] = _unpack_file(content, member.size, directory / name)
    raise _invalid(archive, f"has no {MANIFEST_NAME}, so it is not whole")


def _unpack_file(content: IO[bytes], size: int, path: Path) -> dict[str, object]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if size > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    digest, written = hashlib.sha256(), 0
    with open(descriptor, "wb") as file:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
            written += file.write(piece)
    return {"size": written, "sha256": digest.hexdigest()}


def _words(archive: Path, name: str, content: IO[bytes], size: int) -> dict[str, object]:
    """The JSON object that a member is."""
    if size <= _MAX_WORDS_BYTES:
        try:
            form = json.loads(content.read())
        except (ValueError, RecursionError):
            form = None
        if isinstance(form, dict):
            return form
    raise _invalid(archive, f"is damaged: {name} cannot be read")


def _info(archive: Path, form: dict[str, object]) -> ArchiveInfo:
    version = form.get("version")
    if form.get("format") != FORMAT or not isinstance(version, int):
        raise _invalid(archive, "is no backup of ATT")
    release = str(form.get("release", "unknown"))
    if version > VERSION:
        raise BackupError(
            "ARCHIVE_TOO_NEW",
            f"{archive} has version {version}, made by release {release[:40]}; this release reads "
            f"up to {VERSION}. Restore it with that release.",
        )
    try:
        time = datetime.fromisoformat(str(form.get("time")))
    except ValueError as error:
        raise _invalid(archive, f"is damaged: {INFO_NAME} cannot be read") from error
    if time.tzinfo is None or version < 1:
        raise _invalid(archive, f"is damaged: {INFO_NAME} cannot be read")
    return ArchiveInfo(time=time, release=release)


def _compare(
    archive: Path, found: dict[str, dict[str, object]], manifest: dict[str, object]
) -> None:
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise _invalid(archive, f"is damaged: {MANIFEST_NAME} cannot be read")
    wrong = [name for name in {**found, **listed} if found.get(name) != listed.get(name)]
    if wrong:
        raise _invalid(archive, f"is damaged: {wrong[0]} is not what {MANIFEST_NAME} says")
    if STORE_NAME not in found:
        raise _invalid(archive, f"is not whole: it has no {STORE_NAME}")


def _refuse_member(archive: Path, name: str, what: str) -> NoReturn:
    raise _invalid(archive, f"is not to be trusted: {name[:200]!r} {what}")


def _invalid(archive: Path, what: str) -> BackupError:
    return BackupError(
        "ARCHIVE_INVALID", f"{archive} {what}. Nothing was restored; use another backup."
    )


def _encoded(form: dict[str, object]) -> bytes:
    return json.dumps(form).encode()


class _HashedReader:
    """Passes on what is read, and knows its SHA-256."""

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        self._hash.update(data)
        return data

    def digest(self) -> str:
        return self._hash.hexdigest()

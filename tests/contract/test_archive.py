"""An archive is unpacked whole and unchanged, or refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from att_server.archive import VERSION, ArchiveInfo, BackupError, new_archive, unpack

INFO = ArchiveInfo(time=datetime(2030, 1, 1, tzinfo=UTC), release="1.2.3")
SEGMENT = "projects/web/logs/00000000000000000000.seg"
CONTENT = {"att.db": os.urandom(300_000), SEGMENT: b"frames" * 1000}

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "b.tar.gz"
    with new_archive(path, INFO) as new:
        for name, data in CONTENT.items():
            new.add(name, io.BytesIO(data), len(data))
    return path


def members(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        found = []
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            found.append((member, content.read()))
        return found


def write(archive: Path, changed: Members) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for member, data in changed:
            tar.addfile(member, io.BytesIO(data))


def file(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def refused(archive: Path, tmp_path: Path) -> str:
    with pytest.raises(BackupError) as error:
        unpack(archive, tmp_path / "out")
    return error.value.reason


def test_what_was_added_comes_out_private_to_its_owner(archive: Path, tmp_path: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    assert unpack(archive, tmp_path / "out") == INFO
    for name, data in CONTENT.items():
        path = tmp_path / "out" / name
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_names_that_have_no_place_in_a_backup_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError), new_archive(tmp_path / "a", INFO) as new:  # noqa: PT011 - the message does not matter
        new.add("projects/web/supervisors/1/state.json", io.BytesIO(b""), 0)


@pytest.mark.parametrize("kept", [0, 1, 20, 1000, 200_000, -1, -9, -200])
def test_an_archive_that_was_cut_off_is_refused(archive: Path, tmp_path: Path, kept: int) -> None:
    archive.write_bytes(archive.read_bytes()[:kept])
    assert refused(archive, tmp_path) == "ARCHIVE_INVALID"


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_an_archive_with_a_damaged_byte_is_refused(
    archive: Path, tmp_path: Path, part: float
) -> None:
    data = bytearray(archive.read_bytes())
    data[int(part * (len(data) - 1))] ^= 0x10
    archive.write_bytes(data)
    assert refused(archive, tmp_path) == "ARCHIVE_INVALID"


@pytest.mark.parametrize(
    "foreign",
    [
        file("/att.db"),
        file("../att.db"),
        file("projects/../../att.db"),
        file("projects/web/logs/../../../../x"),
        file("projects/web/supervisors/1/state.json"),
        file("projects/web/writer.lock"),
        file("att.sock"),
        file("att.db"),
        file("./att.db"),
        file(SEGMENT + "\n"),
        special("projects/up/logs/head.json", tarfile.SYMTYPE, "/etc/passwd"),
        special("projects/up/logs/head.json", tarfile.LNKTYPE, "att.db"),
        special("projects/up/logs/head.json", tarfile.CHRTYPE),
        special("projects/up/logs/head.json", tarfile.FIFOTYPE),
        special("projects/up/logs/head.json", tarfile.DIRTYPE),
        special("projects/up/logs/head.json", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda member: f"{member[0].name!r} {member[0].type!r}",
)
def test_a_member_that_no_backup_has_is_refused(
    archive: Path, tmp_path: Path, foreign: tuple[tarfile.TarInfo, bytes]
) -> None:
    found = members(archive)
    write(archive, [*found[:-1], foreign, found[-1]])
    assert refused(archive, tmp_path) == "ARCHIVE_INVALID"
    allowed = {tmp_path / "out" / name for name in CONTENT}
    assert {path for path in (tmp_path / "out").rglob("*") if not path.is_dir()} <= allowed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar.gz", "out"]


Change = Callable[[Members], Members]


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found[:-1],
        lambda found: [found[0], found[-1]],
        lambda found: [*found[:2], found[-1]],
        lambda found: found[1:],
        lambda found: [found[0], file("att.db", b"other"), *found[2:]],
        lambda found: [*found, file("projects/web/logs/head.json")],
        lambda found: [*found[:-1], file("manifest.json", b"[]")],
        lambda found: [*found[:-1], file("manifest.json", b"{")],
        lambda found: [*found[:-1], file("manifest.json", b'{"files": 1}')],
        lambda found: [file("att-backup.json", b"[" * 100_000), *found[1:]],
        lambda found: [file("att-backup.json", b"{}"), *found[1:]],
        lambda found: [],
    ],
)
def test_members_that_are_not_what_the_manifest_says_are_refused(
    archive: Path, tmp_path: Path, change: Change
) -> None:
    write(archive, change(members(archive)))
    assert refused(archive, tmp_path) == "ARCHIVE_INVALID"


def test_another_tar_file_is_no_backup(tmp_path: Path) -> None:
    write(tmp_path / "b.tar.gz", [file("readme")])
    assert refused(tmp_path / "b.tar.gz", tmp_path) == "ARCHIVE_INVALID"
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(b"no tar file" * 1000))
    assert refused(tmp_path / "b.tar.gz", tmp_path) == "ARCHIVE_INVALID"


def test_an_archive_of_the_version_before_is_read(archive: Path, tmp_path: Path) -> None:
    (_, data), *rest = members(archive)
    form = json.loads(data) | {"version": VERSION - 1}
    write(archive, [file("att-backup.json", json.dumps(form).encode()), *rest])
    assert unpack(archive, tmp_path / "out") == INFO


@pytest.mark.parametrize(
    ("version", "reason"),
    [(VERSION + 1, "ARCHIVE_TOO_NEW"), (0, "ARCHIVE_INVALID"), ("1", "ARCHIVE_INVALID")],
)
def test_an_archive_of_another_version_is_refused(
    archive: Path, tmp_path: Path, version: object, reason: str
) -> None:
    (_, data), *rest = members(archive)
    form = json.loads(data) | {"version": version}
    write(archive, [file("att-backup.json", json.dumps(form).encode()), *rest])
    assert refused(archive, tmp_path) == reason


def test_a_member_larger_than_the_disk_is_refused_before_it_fills_it(
    archive: Path, tmp_path: Path
) -> None:
    # An archive of a few bytes that claims an endless file: only its header is there.
    huge = tarfile.TarInfo("projects/up/logs/head.json")
    huge.size = 1 << 60
    (first, data), *_ = members(archive)
    with gzip.open(archive, "wb") as packed:
        packed.write(first.tobuf() + data.ljust(512, b"\0") + huge.tobuf())
    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "out")

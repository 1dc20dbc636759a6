"""Disks for tests: one that remembers what it was told to keep, and one that gets full."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from att_server.supervisor.log_files import Files

Kept = Literal["nothing", "half", "all", "last write"]


class QuickFiles(Files):
    """Does not wait for the disk."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, kept: Kept) -> bytes:
        """What is found after a crash: (offset, data) writes, or cuts at offset."""
        data = bytearray(self.synced)
        chosen = {
            "nothing": [],
            "half": self.unsynced[: len(self.unsynced) // 2],
            "all": self.unsynced,
            "last write": self.unsynced[-1:],
        }[kept]
        for offset, written in chosen:
            if written is None:
                del data[offset:]
            else:
                data.extend(bytes(max(0, offset - len(data))))
                data[offset : offset + len(written)] = written
        return bytes(data)

    def sync(self) -> None:
        self.synced = bytearray(self.content("all"))
        self.unsynced = []


class RecordingFiles(QuickFiles):
    """Records every change of one directory in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.steps: list[tuple[object, ...]] = []
        self._lock = threading.Lock()
        self._numbers: dict[int, int] = {}
        self._next_number = 0
        self._start = {p.name: p.read_bytes() for p in sorted(directory.glob("*"))}
        self._names = {name: self._number() for name in self._start}
        self._start_names = dict(self._names)

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def open(self, path: Path, flags: int) -> int:
        with self._lock:
            fd = super().open(path, flags)
            if path.name not in self._names:
                self._names[path.name] = self._number()
                self.steps.append(("create", path.name, self._names[path.name]))
            elif flags & os.O_TRUNC:
                self.steps.append(("cut", self._names[path.name], 0))
            self._numbers[fd] = self._names[path.name]
            return fd

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        with self._lock:
            count = super().write(fd, buffers, offset)
            data = b"".join(buffers)[:count]
            self.steps.append(("write", self._numbers[fd], offset, data))
            return count

    def truncate(self, fd: int, size: int) -> None:
        with self._lock:
            super().truncate(fd, size)
            self.steps.append(("cut", self._numbers[fd], size))

    def sync(self, fd: int) -> None:
        with self._lock:
            self.steps.append(("sync", self._numbers[fd]))

    def rename(self, source: Path, target: Path) -> None:
        with self._lock:
            super().rename(source, target)
            self._names[target.name] = self._names.pop(source.name)
            self.steps.append(("rename", source.name, target.name))

    def remove(self, path: Path) -> None:
        with self._lock:
            super().remove(path)
            del self._names[path.name]
            self.steps.append(("remove", path.name))

    def sync_directory(self, path: Path) -> None:
        with self._lock:
            if path == self.directory:
                self.steps.append(("sync directory",))

    def restore(self, target: Path, steps: int, *, content: Kept, names: Kept) -> None:
        """Makes `target` what is found if the machine crashes after so many steps.

        content, names: what the disk kept of the writes and of the names that it
        was not told to keep.
        """
        files = {
            number: _File(synced=bytearray(self._start[name]))
            for name, number in self._start_names.items()
        }
        now = dict(self._start_names)
        synced = dict(now)
        for step in self.steps[:steps]:
            match step:
                case ("create", str(name), int(number)):
                    files[number] = _File()
                    now[name] = number
                case ("write", int(number), int(offset), bytes(data)):
                    files[number].unsynced.append((offset, data))
                case ("cut", int(number), int(size)):
                    files[number].unsynced.append((size, None))
                case ("sync", int(number)):
                    files[number].sync()
                case ("rename", str(source), str(destination)):
                    now[destination] = now.pop(source)
                case ("remove", str(name)):
                    del now[name]
                case ("sync directory",):
                    synced = dict(now)
        target.mkdir(parents=True)
        for name, number in (now if names == "all" else synced).items():
            (target / name).write_bytes(files[number].content(content))


class OneProcess(Files):
    """The files as one process has them, until it is killed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._killed = False

    def kill(self) -> None:
        """Lets nothing through any more."""
        self._killed = True

    @property
    def _alive(self) -> Files:
        if self._killed:
            raise OSError(errno.EIO, "the process was killed")
        return self._files

    def make_directory(self, path: Path) -> None:
        self._alive.make_directory(path)

    def open(self, path: Path, flags: int) -> int:
        return self._alive.open(path, flags)

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        return self._alive.write(fd, buffers, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._alive.truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._alive.sync(fd)

    def close(self, fd: int) -> None:
        self._files.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._alive.rename(source, target)

    def remove(self, path: Path) -> None:
        self._alive.remove(path)

    def sync_directory(self, path: Path) -> None:
        self._alive.sync_directory(path)


class FullFiles(QuickFiles):
    """A disk with room for `room` more bytes; None: for ever more."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.refused = threading.Event()

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> int:
        if self.room is None:
            return super().write(fd, buffers, offset)
        data = b"".join(buffers)[: self.room]
        if not data:
            self.refused.set()
            raise OSError(errno.ENOSPC, "no space left")
        self.room -= len(data)
        return super().write(fd, [data], offset)

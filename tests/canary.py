"""Looks for tokens where none belong: in files, arguments, environments, and what is logged."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

TOKEN = re.compile(rb"att_(?!0{26})[0-9A-Z]{26}_[0-9a-f]{64}")
"""Of any token, but those of zeros that tests show to what masks them."""
LARGEST = 64 << 20
MEANT_FOR_IT = (".token", ".tok")


def in_files(directory: Path, what: re.Pattern[bytes] = TOKEN) -> list[str]:
    """The files below it that hold `what`, but those that are named for it."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            if (
                path.suffix not in MEANT_FOR_IT
                and not path.is_symlink()
                and path.is_file()
                and path.stat().st_size <= LARGEST
                and what.search(path.read_bytes())
            ):
                found.append(str(path))
    return found


def in_children(pid: int, what: re.Pattern[bytes] = TOKEN) -> list[str]:
    """The arguments of the process, and the arguments and environments of all below it, that
    hold `what`."""
    found = []
    with contextlib.suppress(psutil.Error):
        server = psutil.Process(pid)
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                name = f"{process.name()} of {pid}"
                told = [("arguments", word) for word in process.cmdline()]
                if process != server:
                    told += [("environment", value) for value in process.environ().values()]
                found += [
                    f"{where} of {name}" for where, text in told if what.search(os.fsencode(text))
                ]
    return found


class _Logged(logging.Handler):
    def __init__(self, found: list[str], what: re.Pattern[bytes]) -> None:
        super().__init__()
        self._found = found
        self._what = what

    def emit(self, record: logging.LogRecord) -> None:
        if self._what.search(record.getMessage().encode(errors="replace")):
            self._found.append(f"the log of {record.name}")


@contextmanager
def watching(kept: Path, what: re.Pattern[bytes] = TOKEN) -> Iterator[list[str]]:
    """Yields where `what` is found until the end, in all that tests leave behind.

    That is in directories that they make and remove, as they are removed, in `kept` at the
    end, and in what is logged meanwhile.
    """
    found: list[str] = []
    made: set[str] = set()
    mkdtemp, rmtree = tempfile.mkdtemp, shutil.rmtree
    handler = _Logged(found, what)

    def making(*given: Any, **named: Any) -> str:
        path = str(mkdtemp(*given, **named))
        made.add(path)
        return path

    def removing(path: Any, *given: Any, **named: Any) -> None:
        if str(path) in made:
            made.discard(str(path))
            found.extend(in_files(Path(path), what))
        rmtree(path, *given, **named)

    tempfile.mkdtemp, shutil.rmtree = making, removing  # type: ignore[assignment]  # for all
    logging.getLogger().addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(handler)
        tempfile.mkdtemp, shutil.rmtree = mkdtemp, rmtree
        for left in [kept, *map(Path, made)]:
            found.extend(in_files(left, what))

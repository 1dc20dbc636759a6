"""The server's own log on disk, beside what it prints to stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from att_server.core.tokens import masked

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
MAX_BYTES = 10_000_000
KEPT = 5

log = logging.getLogger(__name__)


def log_to_stderr(level: str) -> None:
    """Writes what is logged from `level` on to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskingFormatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


@contextmanager
def server_log(path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> Iterator[None]:
    """Writes everything that is logged to `path` too, while the context is open.

    A file of `max_bytes` is renamed to `path.1`, the older ones move on, and what
    would be `path.<kept + 1>` is dropped. Files have mode 0600. Only the holder of
    the state directory may open it: two processes would rotate each other's file.
    What ends the context with an error is logged. A log that cannot be written
    is gone without; stderr has it.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handler = _PrivateFiles(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8")
    except OSError as error:
        log.warning("no log is kept in %s: %s", path, error)
        yield
        return
    handler.setFormatter(MaskingFormatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        # To this file alone: whoever catches it tells stderr.
        handler.handle(
            logging.makeLogRecord(
                {
                    "name": __name__,
                    "levelno": logging.ERROR,
                    "levelname": "ERROR",
                    "msg": "the server failed",
                    "exc_info": (type(error), error, error.__traceback__),
                }
            )
        )
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


class MaskingFormatter(logging.Formatter):
    """Writes records without the tokens that somebody has put where none belongs."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return masked(super().format(record))


class _PrivateFiles(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

        file: IO[str] = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, opener=opener
        )
        assert isinstance(file, TextIOWrapper)
        return file

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        # The record is on stderr; a word for each while the disk is full helps nobody.
        return

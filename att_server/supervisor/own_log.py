"""The supervisor's own log: what it did and why, for whoever looks into a project."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

from att_server.supervisor.mask import Mask

OWN_LOG = "supervisor.log"
MAX_BYTES = 1024 * 1024
"""Of the file; as much again is kept in `supervisor.log.1`."""
_MAX_LINE = 8 * 1024
"""With its newline."""


class OwnLog:
    """Appends lines to `supervisor.log` of a project, for all its supervisors one after another.

    A line is a time, the pid, what happened, and facts as `name=value`. Nothing
    of an environment belongs here; secrets are masked wherever they come from.
    No method ever raises: a full disk costs the line and nothing else.
    """

    def __init__(self, project: str | None, secrets: Sequence[bytes] = ()) -> None:
        """project: the project's directory, which exists; None: nothing is kept."""
        self._path = os.devnull if project is None else os.path.join(project, OWN_LOG)
        self._mask = Mask(form for secret in secrets for form in _forms(secret))

    def note(self, what: str, **facts: object) -> None:
        """One line. facts: short texts and numbers; None and empty ones are left out."""
        told = "".join(
            f" {name}={json.dumps(self.masked(str(fact)), ensure_ascii=False)}"
            for name, fact in facts.items()
            if fact is not None and fact != ""
        )
        self._append(what + told)

    def defect(self, error: BaseException, *, where: str) -> None:
        """An error that nobody foresaw, with its way through the code, in one line."""
        trace = "".join(traceback.format_exception(error)).strip()
        self.note("defect", where=where, trace=self.masked(trace)[-_MAX_LINE // 2 :])

    def _append(self, text: str) -> None:
        now = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
        line = f"{now.replace('+00:00', 'Z')} {os.getpid()} {text}"
        data = self.masked(line).encode("utf-8", "replace")
        if len(data) >= _MAX_LINE:  # cut between two characters
            data = data[: _MAX_LINE - 1].decode("utf-8", "ignore").encode()
        try:
            self._write(data.replace(b"\n", b" ") + b"\n")
        except OSError:
            return

    def masked(self, text: str) -> str:
        """The text without the secrets."""
        if not self._mask:
            return text
        try:
            data = os.fsencode(text)
        except UnicodeEncodeError:
            data = text.encode("utf-8", "backslashreplace")
        return self._mask.applied(data).decode("utf-8", "replace")

    def _write(self, data: bytes) -> None:
        # Opened for each line: then nobody holds a file that was moved or removed.
        descriptor = os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            size = os.fstat(descriptor).st_size
            if size == 0 or size + len(data) <= MAX_BYTES:
                os.write(descriptor, data)
                return
        finally:
            os.close(descriptor)
        os.replace(self._path, self._path + ".1")
        self._write(data)


def _forms(secret: bytes) -> Sequence[bytes]:
    """A secret as it is, and as errors and tracebacks show it."""
    return secret, repr(os.fsdecode(secret))[1:-1].encode("utf-8", "replace")

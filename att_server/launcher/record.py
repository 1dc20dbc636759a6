"""What the launcher keeps on disk, in `launcher/` of the state directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from att_server.supervisor import json_file

FORMAT = 1
"""Of the wish: one that a later release writes may mean what this launcher does not know."""
_KEPT_BYTES = 4096


@dataclass(kw_only=True)
class Record:
    """Where it stands. A release is a path below the state directory; empty: the installation.

    good: what was proven, newest first, two at most. current: what is to run. wish,
    outcome, reason: the last wish, what came of it (`trying`, `serving`, `failed`), and why.
    trial: the release on trial, if one is. tries_left: the starts that what is to run still has;
    losses_left: how many more of them may be ended from outside without being counted;
    ready_within: seconds that each has; good_by: when it has to be proven, in seconds since boot.
    servers: those that may be alive. ended: the last ones that are not.
    """

    good: list[str] = field(default_factory=lambda: [""])
    current: str = ""
    launches: int = 0
    wish: str = ""
    outcome: str = ""
    reason: str = ""
    trial: str = ""
    tries_left: int = 0
    losses_left: int = 0
    ready_within: float = 60.0
    good_by: float = 0.0
    boot_id: str = ""
    servers: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)


class Files:
    """The directory, which it holds. What another launcher wrote beside is passed over.

    bell: becomes readable when the server has written a wish.
    """

    def __init__(self, state_dir: str) -> None:
        """Raises BlockingIOError where another process holds the directory."""
        self._directory = os.path.join(state_dir, "launcher")
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        lock = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(lock, json.dumps({"pid": os.getpid()}).encode().ljust(64), 0)
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.path("bell"), 0o600)
        self.bell = os.open(self.path("bell"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def path(self, name: str) -> str:
        """The path of a file in it."""
        return os.path.join(self._directory, name)

    def load(self) -> Record:
        """The record; instead of one that cannot be read, what `current` says."""
        path, link = self.path("record.json"), self.path("current")
        try:
            form = json_file.read(path)
            return Record(**{f.name: form[f.name] for f in fields(Record) if f.name in form})
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError) as error:
            self.tell("record_damaged", reason=str(error))
            release = os.readlink(link).removeprefix("../") if os.path.islink(link) else ""
            return Record(current=release, good=[release, ""])

    def save(self, record: Record) -> bool:
        """Whether the record is on the disk now, and `current` leads to what is to run."""
        link = self.path("current")
        try:
            json_file.replace(self.path("record.json"), asdict(record), durable=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link + ".new" if record.current else link)
            if record.current:
                os.symlink(f"../{record.current}", link + ".new")
                os.replace(link + ".new", link)
        except OSError as error:
            self.tell("not_recorded", reason=str(error))
            return False
        return True

    def wish(self) -> dict[str, Any]:
        """What the server wants; empty where there is nothing that can be read."""
        return json_file.read_or_empty(self.path("wish.json"))

    def tell(self, event_type: str, **facts: object) -> None:
        """Adds to what the next server tells as events; on a full disk, to stderr alone."""
        event = {"type": f"launcher.{event_type}", "time": datetime.now(UTC).isoformat(), **facts}
        line = json.dumps(event) + "\n"
        with contextlib.suppress(OSError):
            sys.stderr.write(f"att launch: {line}")
        with contextlib.suppress(OSError), open(self.path("events.jsonl"), "ab", 0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())


def printed(path: str) -> str:
    """The end of what a server printed; once it serves, it logs elsewhere."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _KEPT_BYTES))
        return file.read(_KEPT_BYTES).decode(errors="replace")
    return ""


def holder(state_dir: str) -> int:
    """The process of the launcher that holds the state directory; 0: it does not say."""
    return int(json_file.read_or_empty(f"{state_dir}/launcher/lock").get("pid", 0))

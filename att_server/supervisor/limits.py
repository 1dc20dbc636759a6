"""What an app may use, and the reasons for which a run ends where it uses more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEMORY_LIMIT = "memory_limit"
PROCESS_LIMIT = "process_limit"
CPU_TIME_LIMIT = "cpu_time_limit"
OOM_KILLED = "oom_killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what an app may use; None sets no bound.

    memory_bytes (resident), processes: of the tree. open_files, cpu_time
    (seconds): of each process.
    """

    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    cpu_time: float | None = None

    def __bool__(self) -> bool:
        """Whether anything is bounded."""
        return self != _UNBOUNDED

    @property
    def of_tree(self) -> bool:
        """Whether something is bounded that only a look at the whole tree can tell."""
        return self.memory_bytes is not None or self.processes is not None

    def form(self) -> dict[str, object]:
        """The JSON object in `spec.json`."""
        return {
            "memory_bytes": self.memory_bytes,
            "open_files": self.open_files,
            "processes": self.processes,
            "cpu_time": self.cpu_time,
        }

    @classmethod
    def from_form(cls, form: Mapping[str, object] | None) -> Limits:
        """The limits that a JSON object tells; what it lacks is not bounded."""
        given = form or {}
        whole = {
            name: None if given.get(name) is None else int(str(given[name]))
            for name in ("memory_bytes", "open_files", "processes")
        }
        cpu_time = given.get("cpu_time")
        return cls(**whole, cpu_time=None if cpu_time is None else float(str(cpu_time)))


_UNBOUNDED = Limits()

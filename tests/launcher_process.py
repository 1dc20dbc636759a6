"""The real launcher as a process of its own, for tests that kill it and what it starts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.server_process import PATIENCE, ServerProcess, alive, wait_until


class LauncherProcess:
    """`att launch` on one state directory, again and again.

    As a context it ends launcher, servers, and every supervisor with its app.
    """

    def __init__(self, state_dir: Path, *options: str) -> None:
        self.state_dir = state_dir
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.output = state_dir.parent / f"{state_dir.name}.launcher.log"

    @property
    def target(self) -> str:
        return f"unix:{self.state_dir}/att.sock"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, **environ: str) -> None:
        """Returns once it runs; its server may not yet."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "att_server", "launch"),
                    *("--state-dir", str(self.state_dir), *self.options),
                ],
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """SIGKILL, and returns when it is gone; its server goes on."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM, and returns the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        code, self.process = self.process.wait(PATIENCE), None
        return code

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    # What it wrote ------------------------------------------------------------

    @property
    def record(self) -> dict[str, Any]:
        """Its record; empty before the first."""
        path = self.state_dir / "launcher" / "record.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it told and is kept, oldest first."""
        paths = sorted((self.state_dir / "launcher").glob("events*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def told(self, event_type: str) -> list[dict[str, Any]]:
        """The events of one type, without its prefix."""
        return [event for event in self.events if event["type"] == f"launcher.{event_type}"]

    @property
    def holder(self) -> Mapping[str, Any]:
        """Who holds the state directory, as the lock says; empty: nobody yet."""
        path = self.state_dir / "att.lock"
        try:
            found: Mapping[str, Any] = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def served_by(self, launch: int) -> int:
        """Waits until the server of this launch serves; its pid."""

        def serves() -> bool:
            held = self.holder
            return (held.get("launch"), held.get("tenure")) == (launch, "serves")

        wait_until(serves, f"launch {launch} serving, see {self.output}")
        return int(self.holder["pid"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
        # In good order, or its spare would serve in its place.
        serving = self.holder.get("pid", 0)
        if serving and alive(serving) and self._ours(serving):
            os.kill(serving, signal.SIGTERM)
            with contextlib.suppress(psutil.TimeoutExpired, psutil.NoSuchProcess):
                psutil.Process(serving).wait(PATIENCE / 3)
        for server in self.record.get("servers", []):
            if alive(server["pid"]) and self._ours(server["pid"]):
                os.kill(server["pid"], signal.SIGKILL)
        ServerProcess(self.state_dir).__exit__(None, None, None)

    def _ours(self, pid: int) -> bool:
        try:
            return f"{self.state_dir}" in Path(f"/proc/{pid}/environ").read_text() or (
                f"{self.state_dir}" in Path(f"/proc/{pid}/cmdline").read_text()
            )
        except OSError:
            return False

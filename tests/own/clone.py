"""A clone of ATT with a remote of its own, which its own server releases."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = (
    *("att_server", "att_client", "protos/att", ".ci", "pyproject.toml"),
    *("README.md", "requirements/release.txt"),
)
"""What a release needs: the rest would only be copied."""
TRIAL_BUILD = (".ci/release", sys.executable, sysconfig.get_path("purelib"))
"""With the packages of these tests: nothing is installed."""

SETTINGS = """
[bootstrap]
restart_watchdog_retries = 4
restart_watchdog_interval = "1s"
health_check_interval = "500ms"
health_timeout = "{ready}s"

[bootstrap.health_check]
command = [".venv/bin/python", "-P", "-m", "att_client.cli", "project", "list"]
timeout = "20s"

[bootstrap.release]
build = {build}
tries = {tries}

[bootstrap.rollback]
on_deploy_failure = true
max_attempts = 1000
"""

GOOD = "good"


@dataclass(frozen=True)
class Kind:
    """A way to change the server: the file, what is looked for in it, what comes instead."""

    path: str
    found: str
    changed: str


KINDS = {
    GOOD: Kind(
        "att_server/rpc/capabilities.py",
        '    "logs.filter",\n',
        '    "logs.filter",\n    "own.{name}",\n',
    ),
    "syntax-error": Kind("att_server/process.py", "async def run(", "async def {name} run("),
    "import-error": Kind("att_server/app.py", "import os\n", "import os\nimport no_such_{name}\n"),
    "wrong-migration": Kind(
        "att_server/adapters/sqlite_database.py",
        "    def _prepare(self, migrates: Callable[[], None]) -> None:\n",
        "    def _prepare(self, migrates: Callable[[], None]) -> None:\n"
        "        with self._writer.begin() as connection:\n"
        '            connection.exec_driver_sql("CREATE TABLE {name} (id)")\n'
        '            connection.exec_driver_sql("ALTER TABLE no_such_table ADD COLUMN x")\n',
    ),
    "hangs": Kind(
        "att_server/process.py",
        "    clock = SystemClock()\n",
        "    await asyncio.sleep(86400)  # {name}\n    clock = SystemClock()\n",
    ),
    "unhealthy": Kind(
        "att_server/rpc/project_service.py",
        "        validate.list_projects(request)\n",
        '        raise RuntimeError("{name} made it unhealthy")\n',
    ),
    "crashes": Kind(
        "att_server/process.py",
        "                    hold.tell(Tenure.SERVES)\n",
        "                    hold.tell(Tenure.SERVES)\n"
        "                    # {name}\n"
        '                    asyncio.get_running_loop().call_later(3, __import__("os")._exit, 9)\n',
    ),
}
"""All ways, good and bad. Each bad one is in the server itself, and no test looks for it."""


class Clone:
    """The checkout and its bare remote."""

    def __init__(
        self,
        directory: Path,
        *,
        ready: int = 15,
        tries: int = 2,
        build: Sequence[str] = TRIAL_BUILD,
    ) -> None:
        """ready: seconds that a new server has. tries: how often it is started."""
        self.checkout = directory / "att"
        self.remote = directory / "att.git"
        self._ready = ready
        self._tries = tries
        self._build = build

    def make(self) -> None:
        self.checkout.mkdir()
        for part in PARTS:
            source, target = ROOT / part, self.checkout / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy2(source, target)
        settings = SETTINGS.format(
            ready=self._ready,
            tries=self._tries,
            build=json.dumps(self._build),
        )
        (self.checkout / "att.toml").write_text(settings)
        (self.checkout / ".gitignore").write_text(".venv/\n__pycache__/\n")
        self._git("init", "-q", "--bare", "-b", "main", str(self.remote), at=self.checkout.parent)
        self._git("init", "-q", "-b", "main")
        self._git("add", ".")
        self._git("commit", "-q", "-m", "Begin")
        self._git("remote", "add", "origin", str(self.remote))
        self._git("push", "-q", "origin", "main")

    def edit(self, kind: str, name: str) -> dict[str, str]:
        """The change of that kind over what the base holds now."""
        change = KINDS[kind]
        content = self.git("show", f"main:{change.path}")
        found, changed = (part.replace("{name}", name) for part in (change.found, change.changed))
        assert content.count(found) == 1, f"{change.path}: {content.count(found)} of {found!r}"
        return {change.path: content.replace(found, changed)}

    def on_base(self, text: str) -> bool:
        """Whether any file of the base holds the text."""
        done = subprocess.run(
            ["git", "grep", "-q", "-F", "-e", text, "main"], cwd=self.remote, check=False
        )
        return done.returncode == 0

    def git(self, *arguments: str) -> str:
        """What git says of the remote."""
        return self._git(*arguments, at=self.remote)

    def _git(self, *arguments: str, at: Path | None = None) -> str:
        identity = ("-c", "user.name=own", "-c", "user.email=own@localhost")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=at or self.checkout,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

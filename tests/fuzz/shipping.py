"""Right requests of what changes most: cycles, decisions, rollbacks, and the end of projects.

They are made on a repository of their own while the campaign goes on, by callers of the right
roles, and each is done; before each come those that are nearly right, and are not done.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

import att_client
from att_client import Config, Cycle, CycleOutcome, CycleState
from att_client.example import repository
from tests.server_process import PATIENCE

SHIP = "ship"
GONE = "gone"

SETTINGS = """
[runtime]
command = ["sleep", "600"]

[bootstrap]
health_check = { command = ["true"] }
restart_watchdog_retries = 1
restart_watchdog_interval = "10ms"
health_check_interval = "10ms"

[bootstrap.test]
command = ["true"]

[bootstrap.approval]
required = true

[bootstrap.rollback]
allow_unproven_target = true
"""


def make_repository(place: Path) -> None:
    """The project's repository and its remote."""
    directory = place / SHIP
    repository.make_repository(directory)
    (directory / "att.toml").write_text(SETTINGS)
    author = ("-c", "user.name=Test", "-c", "user.email=test@att.invalid")
    for words in (("commit", "-qam", "Settings"), ("push", "-q", "origin", "main")):
        subprocess.run(["git", "-C", directory, *author, *words], check=True, capture_output=True)


@dataclass(slots=True)
class Shipping:
    """Rounds of a release, a rollback and a project that is deleted.

    tokens: by role, of all projects. done: how often each rpc was.
    """

    target: str
    place: Path
    tokens: dict[str, str]
    done: Counter[str] = field(default_factory=Counter)

    async def round(self, number: int) -> None:
        """One round; the first has the number 0. Raises AssertionError."""
        async with self._as("operator") as operator, self._as("approver") as approver:
            # The first time there is no release to return to after one.
            for part in range(2 if number == 0 else 1):
                content = f"{number}.{part}".encode()
                with pytest.raises(att_client.PermissionDeniedError):
                    await approver.bootstrap.start(SHIP, edits={"value.txt": content})
                started = await operator.bootstrap.start(SHIP, edits={"value.txt": content})
                self.done["StartCycle"] += 1
                with pytest.raises(att_client.AttError):
                    await operator.bootstrap.start(SHIP, edits={"value.txt": b"another"})
                await self._approved(approver, operator, started.cycle_id)
                ended = await self._ended(operator, started.cycle_id)
                assert ended.outcome is CycleOutcome.SUCCEEDED, ended
            rolled = await operator.bootstrap.rollback(SHIP, reason="of the campaign")
            self.done["RollbackRelease"] += 1
            await self._ended(operator, rolled.cycle_id)
            await operator.projects.create(GONE, path=self.place / SHIP)
            await operator.projects.delete(GONE)
            self.done["DeleteProject"] += 1
            with pytest.raises(att_client.ProjectNotFoundError):
                await operator.projects.delete(GONE)

    async def _approved(
        self, approver: att_client.Client, operator: att_client.Client, cycle_id: str
    ) -> None:
        asked = None
        async for cycle in operator.bootstrap.watch(cycle_id):
            asked = cycle.approval
            if cycle.state is CycleState.AWAITING_APPROVAL and asked is not None:
                break
        assert asked is not None
        commit, digest = asked.commit_sha, asked.plan_digest
        with pytest.raises(att_client.PermissionDeniedError):
            await operator.bootstrap.approve(cycle_id, commit_sha=commit, plan_digest=digest)
        with pytest.raises(att_client.AttError):
            await approver.bootstrap.approve(cycle_id, commit_sha="0" * 40, plan_digest=digest)
        await approver.bootstrap.approve(cycle_id, commit_sha=commit, plan_digest=digest)
        self.done["DecideCycle"] += 1

    async def _ended(self, att: att_client.Client, cycle_id: str) -> Cycle:
        return await att.bootstrap.wait(cycle_id, max_elapsed=timedelta(seconds=5 * PATIENCE))

    def _as(self, role: str) -> AbstractAsyncContextManager[att_client.Client]:
        return att_client.connect(
            config=Config(
                target=self.target,
                token=self.tokens[role],
                timeout=timedelta(seconds=PATIENCE),
            )
        )

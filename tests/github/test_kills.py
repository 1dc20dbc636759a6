"""Whole cycles through GitHub by a real server, killed between a request and its answer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import att_client
from att_client import CycleOutcome
from tests.contract.git_projects import GitProject, git, make_project
from tests.github.fake import NAME, TOKEN, FakeGitHub, Fault, Run
from tests.github.hub import server_settings, write_server_settings
from tests.server_process import PATIENCE, ServerProcess

SETTINGS = f"""
[runtime]
command = [{sys.executable!r}, "-S", "-c", "import time; time.sleep(1000)"]
stop_grace = "0s"

[bootstrap]
forge = "github"
restart_watchdog_retries = 1
restart_watchdog_interval = "10ms"
health_check = {{ command = ["sh", "-c", "! grep -q bad state"] }}
health_check_interval = "10ms"
health_timeout = "500ms"

[bootstrap.ci]
initial_poll = "10ms"
max_poll = "50ms"

[bootstrap.github]
repository = "{NAME}"
"""


@dataclass(kw_only=True)
class Killing:
    """A server that dies when it has asked for something, and is started again."""

    server: ServerProcess
    fake: FakeGitHub
    project: GitProject
    deaths: int = 0
    died: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def dies_at(self, method: str, path: str) -> None:
        """The next such request is carried out; its sender does not live to hear of it."""
        self.fake.fails(method, path, Fault(acts=True, afterwards=self._die))
        self.deaths += 1

    def _die(self) -> None:
        self.server.kill()
        self.died.release()

    async def cycle(self, att: att_client.Client, state: str) -> att_client.Cycle:
        """A cycle that writes the state, over all deaths that are due."""
        started = await att.bootstrap.start("web", edits={"state": state}, message=f"Be {state}")
        ending = asyncio.create_task(att.bootstrap.wait(started.cycle_id))
        while self.deaths:
            assert await asyncio.to_thread(self.died.acquire, timeout=PATIENCE), "it did not die"
            self.deaths -= 1
            await asyncio.to_thread(self.server.start)
        return await asyncio.wait_for(ending, PATIENCE)

    def commits(self, trailer: str) -> list[str]:
        told = git(
            self.project.remote, "log", "main",
            f"--format=%(trailers:key={trailer},valueonly,separator=%x20)",
        )  # fmt: skip
        return told.split()


@pytest.fixture
async def killing(tmp_path: Path) -> Killing:
    project = await make_project(tmp_path)
    project.commit_on_remote({"att.toml": SETTINGS.encode(), "state": b"first"})
    return Killing(
        server=ServerProcess(tmp_path / "s", environ={"GITHUB_TOKEN": TOKEN}),
        fake=FakeGitHub(project.remote),
        project=project,
    )


@pytest.fixture
def running(killing: Killing) -> Iterator[Killing]:
    state = killing.server.state_dir
    state.mkdir(mode=0o700)
    with killing.fake:
        write_server_settings(state, server_settings(killing.fake))
        with killing.server:
            yield killing
        assert killing.fake.wrong == []


async def test_nothing_is_done_twice_however_often_the_server_dies(running: Killing) -> None:
    fake, project = running.fake, running.project
    async with att_client.connect(running.server.target) as att:
        await att.projects.create("web", path=str(project.checkout))

        fake.may_write = False
        with pytest.raises(att_client.RepositoryUnavailableError) as refused:
            await att.bootstrap.plan("web", edits={"state": "good"})
        assert refused.value.metadata["failure"] == "token_lacks_permission"
        fake.may_write = True

        running.dies_at("POST", "/pulls")
        running.dies_at("PUT", "/merge")
        good = await running.cycle(att, "good")
        assert good.outcome is CycleOutcome.SUCCEEDED
        assert len(fake.pulls) == 1
        assert len(running.commits("Att-Merges")) == 1
        assert good.result is not None
        assert good.result.deployed_release_id == project.on_remote()
        shipped = git(project.remote, "rev-parse", "main^{tree}")

        running.dies_at("PUT", "/pulls/3/merge")
        bad = await running.cycle(att, "bad")
        assert (bad.outcome, bad.outcome_reason) == (CycleOutcome.ROLLED_BACK, "health_failure")
        assert bad.result is not None
        assert bad.result.reverted
        assert bad.result.revert_commit_sha in git(project.remote, "rev-list", "main")
        assert git(project.remote, "rev-parse", "main^{tree}") == shipped
        assert len(fake.pulls) == 3
        assert fake.pulls[3].head.startswith("att/revert-")
        assert running.commits("Att-Reverts").count(bad.result.merge_commit_sha) == 2
        assert (await att.runtimes.get("web")).release_id == good.result.deployed_release_id

        fake.runs = lambda _: [Run(conclusion="failure")]
        running.dies_at("POST", "/comments")
        failed = await running.cycle(att, "unchecked")
        assert (failed.outcome, failed.outcome_reason) == (CycleOutcome.FAILED, "ci_failure")
        assert fake.pulls[4].state == "closed"
        assert len(fake.comments[4]) == 1
        assert git(project.remote, "for-each-ref", "--format=%(refname:short)") == "main"

        events = (await att.events.list(page_size=1000)).events
        assert TOKEN not in repr(events)
    told = [path.read_bytes() for path in running.server.state_dir.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in told)

"""Cycles that one release has begun and the other ends, wherever they are, both ways by turns."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import att_client
from att_client import Cycle, CycleOutcome, CycleState, CycleStep, ReleaseState
from tests.compat.releases import (
    WITH_CYCLES,
    has_cycles,
    released_environ,
    released_server,
    releases,
    unpack,
)
from tests.contract.git_projects import GitProject, git, make_project
from tests.server_process import PATIENCE, ServerProcess

SETTINGS = """
[runtime]
command = [{python!r}, "-S", "-c", "import time; time.sleep(1000)"]
stop_grace = "0s"

[bootstrap]
restart_watchdog_retries = 1
restart_watchdog_interval = "10ms"
health_check = {{ command = ["sh", "-c", "! grep -q sick state"] }}
health_check_interval = "10ms"
health_timeout = "5s"

[bootstrap.test]
command = ["sh", "-c", "while grep -q slow state && ! test -e {enough}; do sleep 0.01; done"]

[bootstrap.approval]
protected_paths = ["guarded"]
"""


@dataclass(kw_only=True)
class Relay:
    """Two releases by turns on one state directory, and a project."""

    project: GitProject
    runs: ServerProcess
    waits: ServerProcess
    enough: Path

    async def hand_over(self) -> None:
        """The server that runs dies, and that of the other release comes."""
        self.runs.kill()
        self.runs, self.waits = self.waits, self.runs
        await asyncio.to_thread(self.runs.start)

    async def begin(
        self, att: att_client.Client, until: CycleStep | CycleState, **edits: str
    ) -> str:
        """A cycle that is in the step or state."""
        begun = await att.bootstrap.start("web", edits=dict(edits), message="Change it")
        async with asyncio.timeout(PATIENCE):
            while True:
                now = await att.bootstrap.get(begun.cycle_id)
                # Not `in`: they are numbers too, and equal to others of their kind.
                if now.current_step is until or now.state is until:
                    return now.cycle_id
                await asyncio.sleep(0.005)

    async def end(self, att: att_client.Client, cycle_id: str) -> Cycle:
        return await asyncio.wait_for(att.bootstrap.wait(cycle_id), PATIENCE)

    def commits(self, cycle_id: str) -> int:
        """How many commits of the cycle the base holds, its merge among them."""
        named = f"--grep=^Att-Cycle: {cycle_id}$"
        return len(git(self.project.remote, "log", named, "--format=%H", "main").split())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "relay" in metafunc.fixturenames:
        named = [name for name in releases(metafunc.config, WITH_CYCLES) if has_cycles(name)]
        metafunc.parametrize("relay", named, indirect=True)


@pytest.fixture
async def relay(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Relay]:
    """The earlier release runs."""
    tree = await asyncio.to_thread(unpack, request.param, tmp_path)
    state_dir, enough = tmp_path / "s", tmp_path / "enough"
    project = await make_project(tmp_path / "g")
    settings = SETTINGS.format(python=sys.executable, enough=enough)
    project.commit_on_remote({"att.toml": settings.encode(), "state": b"well\n"})
    old, new = released_server(tree, state_dir), ServerProcess(state_dir)
    try:
        await asyncio.to_thread(old.start)
        await asyncio.to_thread(make_approver, released_environ(tree), state_dir)
        yield Relay(project=project, runs=old, waits=new, enough=enough)
    finally:
        for server in (old, new):
            server.__exit__(None, None, None)


def make_approver(environ: Mapping[str, str], state_dir: Path) -> None:
    """A token that the earlier release has made, in a file beside the state directory."""
    subprocess.run(
        [
            sys.executable, "-m", "att_server", "token", "create", "--state-dir", state_dir,
            "--name", "anna", "--role", "approver", "--output", token_file(state_dir),
        ],
        env={**os.environ, **environ}, check=True, capture_output=True,
    )  # fmt: skip


def token_file(state_dir: Path) -> Path:
    return state_dir.with_name("approver.token")


async def test_a_cycle_goes_on_under_the_other_release_wherever_it_is(relay: Relay) -> None:
    target, remote = relay.runs.target, relay.project.remote
    async with att_client.connect(target) as att:
        await att.projects.create("web", path=str(relay.project.checkout))

        # In TEST: begun by the earlier release, ended by this one.
        tested = await relay.begin(att, CycleStep.TEST, state="slow\n")
        await relay.hand_over()
        relay.enough.touch()
        good = await relay.end(att, tested)
        assert good.outcome is CycleOutcome.SUCCEEDED
        assert good.result is not None
        assert good.result.deployed_release_id == relay.project.on_remote()
        assert relay.commits(tested) == 2

        # In HEALTH, switched already: begun by this release, rolled back and undone by the other.
        shipped = git(remote, "rev-parse", "main^{tree}")
        sick = await relay.begin(att, CycleStep.HEALTH, state="sick\n")
        await relay.hand_over()
        bad = await relay.end(att, sick)
        assert (bad.outcome, bad.outcome_reason) == (CycleOutcome.ROLLED_BACK, "health_failure")
        assert bad.result is not None
        assert bad.result.reverted
        assert git(remote, "rev-parse", "main^{tree}") == shipped
        assert (await att.runtimes.get("web")).release_id == good.result.deployed_release_id

        # Awaiting a person: begun by the earlier release, approved under this one.
        guarded = await relay.begin(att, CycleState.AWAITING_APPROVAL, guarded="new\n")
        await relay.hand_over()
        asked = await att.bootstrap.get(guarded)
        assert asked.state is CycleState.AWAITING_APPROVAL
        assert asked.approval is not None
        token = token_file(relay.runs.state_dir).read_text().strip()
        async with att_client.connect(config=att_client.Config(target=target, token=token)) as anna:
            await anna.bootstrap.approve(
                guarded,
                commit_sha=asked.approval.commit_sha,
                plan_digest=asked.approval.plan_digest,
            )
        approved = await relay.end(att, guarded)
        assert approved.outcome is CycleOutcome.SUCCEEDED
        assert relay.commits(guarded) == 2

        # Whichever of them reads it, all of it is there, and each thing once.
        ended = [good, bad, approved]
        for _ in range(2):
            found = {each.cycle_id: each async for each in att.bootstrap.list("web")}
            assert {cycle_id: each.outcome for cycle_id, each in found.items()} == {
                each.cycle_id: each.outcome for each in ended
            }
            states = [each.state async for each in att.bootstrap.releases("web")]
            assert sorted(states) == sorted(
                [ReleaseState.GOOD, ReleaseState.GOOD, ReleaseState.BAD]
            )
            await relay.hand_over()
        events = (await att.events.list(project_id="web", page_size=1000)).events
        told = [event.event_type for event in events]
        assert told.count("git.pr.merged") == 3
        assert told.count("git.revert") == 1
        assert told.count("cycle.ended") == 3

"""What `att init --self` makes of ATT's own repository, before anything is released."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import att_client
from att_client import CycleOutcome, CycleStep, DesiredState, ReleaseState, RuntimeState
from tests.launcher_process import LauncherProcess
from tests.own.clone import GOOD, TRIAL_BUILD, Clone
from tests.own.demo import register
from tests.server_process import PATIENCE


async def test_the_server_is_the_run_of_its_project_and_what_it_runs_from_is_good(
    tmp_path: Path,
) -> None:
    clone, launcher = Clone(tmp_path), LauncherProcess(tmp_path / "s")
    clone.make()
    head = clone.git("rev-parse", "main").strip()
    await asyncio.to_thread(register, clone, launcher)
    with launcher:
        pid = await asyncio.to_thread(launcher.served_by, 1)
        async with att_client.connect(launcher.target) as att:
            assert (await att.server.info()).release_id == head
            async with asyncio.timeout(PATIENCE):
                while not (releases := [each async for each in att.bootstrap.releases("att")]):
                    await asyncio.sleep(0.05)
            assert [(each.release_id, each.state) for each in releases] == [
                (head, ReleaseState.GOOD)
            ]
            python = launcher.state_dir / "projects/att/releases" / head / ".venv/bin/python"
            assert python.exists()  # for the check of its health
            runtime = await att.runtimes.get("att")
            assert (runtime.run_id, runtime.pid, runtime.state, runtime.desired_state) == (
                *("launch-1", pid, RuntimeState.READY, DesiredState.RUNNING),
            )
            with pytest.raises(att_client.ProjectIsServerError):
                await att.runtimes.stop("att")
            with pytest.raises(att_client.ProjectIsServerError):
                await att.runtimes.start("att")
            with pytest.raises(att_client.ProjectIsServerError):
                await att.runtimes.restart("att")
            with pytest.raises(att_client.ProjectIsServerError):
                await att.projects.delete("att")
        shown = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "att_client.cli", "status", "att"],
            env={"ATT_TARGET": launcher.target},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert shown.returncode == 0, shown.stderr
        assert str(pid) in shown.stdout
        assert head[:7] in shown.stdout


async def test_a_release_that_cannot_be_written_is_none_and_the_server_goes_on(
    tmp_path: Path,
) -> None:
    # No file may grow: as on a full disk, whatever the build writes fails.
    build = ("/bin/sh", "-c", f"ulimit -f 0; exec {shlex.join(TRIAL_BUILD)}")
    clone, launcher = Clone(tmp_path, build=build), LauncherProcess(tmp_path / "s")
    clone.make()
    await asyncio.to_thread(register, clone, launcher)
    with launcher:
        pid = await asyncio.to_thread(launcher.served_by, 1)
        async with att_client.connect(launcher.target) as att:
            cycle = await att.bootstrap.start("att", edits=clone.edit(GOOD, "x"), message="x")
            ended = await att.bootstrap.wait(cycle.cycle_id)
            assert (ended.outcome, ended.outcome_reason) == (CycleOutcome.FAILED, "stage_failure")
            (stage,) = [step for step in ended.steps if step.step is CycleStep.STAGE]
            assert stage.reason in ("exit_code", "signal")
            assert (await att.server.info()).pid == pid
        merged = clone.git("rev-parse", "main").strip()
        assert not (launcher.state_dir / "projects/att/releases" / merged).exists()
        assert launcher.told("wished") == []

"""`python -m tests.own.demo`: ATT releases itself, and takes back what does not work.

The launcher of this checkout serves a state directory. Its server releases a clone of ATT
with a remote of its own: the first change dies at its start, and the installation goes on; one
goes live; one starts and is not healthy, and one crashes after three seconds. Meanwhile an app
prints and is followed.
Exits with 1 when anything is not as it is to be.

--real   builds releases as ATT's own att.toml has it, each with an environment of its own that
         pip installs by hash; it takes minutes, and packages from an index or pip's cache
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import att_client
from att_client import CycleOutcome
from tests.launcher_process import LauncherProcess
from tests.own.clone import GOOD, KINDS, TRIAL_BUILD, Clone
from tests.own.witness import APP, Witness

CHANGES = ("import-error", GOOD, "unhealthy", "crashes", GOOD)


class Demo:
    """The demo, told as it goes; `wrong` has what is not as it is to be."""

    def __init__(self, directory: Path, *, real: bool = False) -> None:
        self.clone = Clone(directory, build=(".ci/release",) if real else TRIAL_BUILD)
        self.launcher = LauncherProcess(directory / "s")
        self.witness = Witness()
        self.wrong: list[str] = []

    async def run(self) -> None:
        self.clone.make()
        registered = await asyncio.to_thread(register, self.clone, self.launcher)
        print(registered)
        with self.launcher:
            await asyncio.to_thread(self.launcher.served_by, 1)
            async with att_client.connect(self.launcher.target) as att:
                await self.witness.begin(att, self.clone.checkout.parent)
                tasks = [
                    asyncio.create_task(self.witness.follow(att)),
                    asyncio.create_task(self.witness.call(self.launcher.target)),
                ]
                for number, kind in enumerate(CHANGES):
                    await self.release(att, kind, f"change_{number}")
                await self.look(att)
                for task in tasks:
                    task.cancel()
                await att.runtimes.stop(APP)
            await asyncio.to_thread(self.launcher.terminate)

    async def release(self, att: att_client.Client, kind: str, name: str) -> None:
        before = await att.server.info()
        good = kind == GOOD
        told = "a change that works" if good else f"a change that is bad: {kind}"
        print(f"\n{name}: {told} ({KINDS[kind].path})", flush=True)
        cycle = await att.bootstrap.start(
            "att", edits=self.clone.edit(kind, name), message=f"{name}: {kind}"
        )
        ended = await att.bootstrap.wait(cycle.cycle_id)
        assert ended.result is not None
        after = await att.server.info()
        for step in ended.steps:
            if step.reason and step.state is att_client.CycleStepState.FAILED:
                print(f"  {step.step.name} failed: {step.reason}")
        print(f"  {ended.outcome.name} {ended.outcome_reason}".rstrip())
        print(f"  served by release {after.release_id[:12] or 'none'}, process {after.pid}")
        if good:
            self.check(ended.outcome is CycleOutcome.SUCCEEDED, f"{name}: {ended.outcome.name}")
            self.check(f"own.{name}" in after.capabilities, f"{name} is not live")
            self.check(
                after.release_id == ended.result.deployed_release_id, f"{name}: another release"
            )
        else:
            self.check(ended.outcome is CycleOutcome.ROLLED_BACK, f"{name}: {ended.outcome.name}")
            self.check(after.release_id == before.release_id, f"{name}: another release serves")
            self.check(ended.result.reverted, f"{name}: the merge was not undone")
            content = self.clone.edit(kind, name)  # finds what it changes: it is as before
            self.check(bool(content), f"{name}: the base still holds it")

    async def look(self, att: att_client.Client) -> None:
        witness = self.witness
        runtime = await att.runtimes.get(APP)
        self.check(runtime.run_id == witness.run_id, "the app was started anew")
        seen = len(witness.lines)
        while len(witness.lines) < seen + 50:
            await asyncio.sleep(0.05)
        self.check(not witness.wrong_with_lines(), witness.wrong_with_lines())
        project = await att.projects.get("att")
        self.check(project.mode is att_client.ProjectMode.NORMAL, project.mode_reason)
        print(
            f"\nThe app printed {len(witness.lines)} lines: none was lost, none came twice."
            if not witness.wrong_with_lines()
            else f"\n{witness.wrong_with_lines()}"
        )
        print(
            f"{witness.calls} calls were answered; servers changed {len(witness.releases) - 1} "
            f"times; the longest time without an answer was {witness.slowest(1.0):.2f} s."
        )

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)
            print(f"  WRONG: {what}")


def register(clone: Clone, launcher: LauncherProcess) -> str:
    """Makes the clone the project of the launcher's server; what `att init --self` said."""
    command = [sys.executable, "-m", "att_server", "init", "--self"]
    command += ["--repository", str(clone.checkout), "--state-dir", str(launcher.state_dir)]
    command += ["--output", str(clone.checkout.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.own.demo", description=__doc__)
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-own-") as directory:
        demo = Demo(Path(directory), real=given.real)
        asyncio.run(demo.run())
    print(
        f"\n{len(demo.wrong)} things are wrong" if demo.wrong else "\nEverything is as it is to be."
    )
    return 1 if demo.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

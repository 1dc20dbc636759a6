"""The second part of `att demo`: four changes of an app, and a server killed in the first."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError

import att_client
from att_client.cli import cycle_text
from att_client.cli.cycle_text import short, word
from att_client.cli.demo_parts import ServerProcess, ask_app, free_port, no_app_left
from att_client.cli.exits import CommandError
from att_client.cli.story import Story

PROJECT = "web"
BASE = "main"
CYCLE_TIMEOUT = 60.0

_GOOD = att_client.CycleOutcome.SUCCEEDED


@dataclass(kw_only=True)
class _Shop:
    """The app that is released, and what is known of it from outside."""

    att: att_client.Client
    server: ServerProcess
    story: Story
    port: int
    remote: Path
    cycles: list[att_client.Cycle] = field(default_factory=list)

    async def version(self) -> str:
        """What the running app says it is."""
        return str((await ask_app(self.port, "/version"))["version"])

    async def healthy(self) -> bool:
        """What the running app says of its health."""
        try:
            await ask_app(self.port, "/health")
        except HTTPError:
            return False
        return True

    async def change(self, version: str, knowledge: str = "") -> att_client.CycleHandle:
        """Starts a cycle that changes the app, as its base branch has it now.

        knowledge: a file that the new version needs; empty: what the base says.
        """
        page = await self.att.code.read(PROJECT, "app.py", at=BASE)
        code = _with(page.content.decode(), "VERSION", version)
        if knowledge:
            code = _with(code, "KNOWLEDGE", knowledge)
        message = f"Version {version}" + (f", which knows {knowledge}" if knowledge else "")
        return await self.att.bootstrap.start(PROJECT, edits={"app.py": code}, message=message)

    async def tell(self, ended: att_client.Cycle, version: str) -> None:
        """Takes down how a cycle ended, and holds it against the app itself."""
        self.cycles.append(ended)
        now = datetime.now(UTC)
        done = [s for s in ended.steps if s.state is not att_client.CycleStepState.SKIPPED]
        times = (
            f"{word(s.step)} {' '.join(filter(None, cycle_text.times(s, now)))}"
            for s in done
            if cycle_text.begun(s)
        )
        self.story.detail(", ".join(times))
        for line in cycle_text.ending(ended):
            self.story.detail(line)
        runs = await self.version()
        health = "healthy" if await self.healthy() else "NOT healthy"
        self.story.detail(f"/version says {runs}, /health says {health}", version=runs)
        self.story.detail(
            f"cycle {ended.cycle_id}",
            cycle_id=ended.cycle_id,
            outcome=ended.outcome,
            outcome_reason=ended.outcome_reason,
        )
        demand(runs == version, f"the app should be version {version}, and says {runs}")


async def play(story: Story, server: ServerProcess, directory: Path) -> str:
    """Tells the story and returns what it comes to, on one line.

    directory: for the repository and its remote. Raises CommandError where anything is
    not as it should be.
    """
    repository, remote = directory / "web", directory / "web.git"
    with story.step("Make a git repository of the example app, with a bare remote beside it"):
        await _make_repository(repository)
        story.detail(f"{repository}, branch {BASE}; its att.toml names the gates of a release")
    async with att_client.connect(server.target) as att, no_app_left(server, PROJECT):
        shop = _Shop(att=att, server=server, story=story, port=free_port(), remote=remote)
        with story.step("Start the app from its directory"):
            await _start(shop, repository)
            story.detail(f"/version says {await shop.version()}")
        await _good_over_a_kill(shop)
        await _bad_and_back(shop)
        await _good_without_the_bad(shop)
        await _denied(shop)
        return await _compare(shop)


async def _start(shop: _Shop, repository: Path) -> None:
    # The settings that are given here win over att.toml, whose port may be taken.
    await shop.att.projects.create(
        PROJECT,
        path=repository,
        runtime=att_client.RuntimeSettings(
            command=[sys.executable, "app.py", "--port", str(shop.port)],
            readiness=att_client.Probe(
                http=att_client.HttpProbe(url=f"http://127.0.0.1:{shop.port}/health"),
                interval=timedelta(milliseconds=50),
            ),
        ),
    )
    await shop.att.runtimes.start(PROJECT, wait="ready")


async def _good_over_a_kill(shop: _Shop) -> None:
    story, server = shop.story, shop.server
    with story.step("Release version 1.1.0; kill the server with SIGKILL while its tests run"):
        started = await shop.change("1.1.0")
        killed = 0
        ended = started.started
        async with asyncio.timeout(CYCLE_TIMEOUT):
            async for cycle in started.watch():
                ended = cycle
                if not killed and _testing(cycle):
                    killed = server.pid
                    await server.kill()
                    await server.start()
        demand(bool(killed), "the tests were over before the server could be killed")
        tests = _status(ended, att_client.CycleStep.TEST)
        story.detail(
            f"server {killed} was killed; server {server.pid} went on with the same cycle: the "
            f"tests took {tests.attempt} attempts, everything else one",
            killed_pid=killed,
            test_attempts=tests.attempt,
        )
        await shop.tell(ended, "1.1.0")
        demand(ended.outcome is _GOOD, f"the cycle should have succeeded: {_why(ended)}")
        demand(tests.attempt == 2, "the tests that were killed should have been begun again, once")


async def _bad_and_back(shop: _Shop) -> None:
    with shop.story.step(
        "Release version 1.2.0: its tests pass, and it is not healthy when it runs"
    ):
        ended = await _ended(await shop.change("1.2.0", knowledge="facts.json"))
        await shop.tell(ended, "1.1.0")
        rolled_back = ended.outcome is att_client.CycleOutcome.ROLLED_BACK
        demand(rolled_back, f"it should have been rolled back: {_why(ended)}")
        demand(_result(ended).reverted, "the bad change should have been undone on the base")
        bad = await shop.att.bootstrap.release(PROJECT, _result(ended).deployed_release_id)
        shop.story.detail(
            f"release {short(bad.release_id)} is {word(bad.state).upper()} ({bad.reason}) and is "
            "not deployed again",
            release_state=bad.state,
        )
        demand(bad.state is att_client.ReleaseState.BAD, "the release should be BAD")


async def _good_without_the_bad(shop: _Shop) -> None:
    with shop.story.step(
        "Release version 1.3.0, from the base: the bad change must not come along"
    ):
        ended = await _ended(await shop.change("1.3.0"))
        await shop.tell(ended, "1.3.0")
        demand(ended.outcome is _GOOD, f"the cycle should have succeeded: {_why(ended)}")
        found = await shop.att.code.search(PROJECT, "^KNOWLEDGE = .+")
        line = found.matches[0].line.decode() if found.matches else ""
        shop.story.detail(f"its code says: {line}")
        demand(line == 'KNOWLEDGE = ""', "the bad change should be gone from the code")
        demand(await shop.healthy(), "the app should be healthy")


async def _denied(shop: _Shop) -> None:
    title = "Release version 1.4.0, bad again: this time the policy refuses to roll back"
    with shop.story.step(title):
        ended = await _ended(await shop.change("1.4.0", knowledge="more-facts.json"))
        # What runs stays, though it is not healthy.
        await shop.tell(ended, "1.4.0")
        result = _result(ended)
        denied = [
            gate
            for gate in (result.rollback_verdict.gates if result.rollback_verdict else ())
            if not gate.allowed
        ]
        for gate in denied:
            facts = ", ".join(f"{name} {short(value)}" for name, value in gate.facts.items())
            shop.story.detail(f"the gate {gate.gate} denied it: {gate.reason} ({facts})")
        project = await shop.att.projects.get(PROJECT)
        for line in cycle_text.blocked(project):
            shop.story.detail(line, mode=project.mode, mode_reason=project.mode_reason)
        demand(ended.outcome is att_client.CycleOutcome.FAILED, f"it should fail: {_why(ended)}")
        reason = "rollback_attempts_exhausted"
        demand(result.rollback_policy_reason == reason, f"the policy should say {reason}")
        demand(project.mode is att_client.ProjectMode.SAFE, "the project should be in SAFE MODE")
        try:
            await shop.change("1.5.0")
        except att_client.ProjectInSafeModeError as error:
            shop.story.detail(f"the next cycle is refused: {error.reason}", refused=error.reason)
        else:
            raise CommandError("DEMO_FAILED", "A project in SAFE MODE took another cycle.")


# What is left behind -----------------------------------------------------------


async def _compare(shop: _Shop) -> str:
    """Counts what was done where it was done; raises CommandError where that is not once each."""
    merged, reverts = await _count_commits(shop.remote)
    branches = (await _git(shop.remote, "branch", "--format=%(refname:short)")).split()
    page = await shop.att.logs.read(PROJECT, limit=100_000)
    runs = sum(r.run is not None and r.run.started is not None for r in page.records)
    ids = [cycle.cycle_id for cycle in shop.cycles]
    second = _result(shop.cycles[1])
    # Of the app's directory, of each of four releases, and of the one that was returned to.
    good = (
        merged == Counter({(cycle_id, kind): 1 for cycle_id in ids for kind in _KINDS})
        and reverts == [second.merge_commit_sha]
        and branches == [BASE]
        and runs == 1 + len(ids) + 1
    )
    by_kind = Counter(kind for _, kind in merged.elements())
    line = (
        f"cycles {len(ids)}: commits {by_kind['change']}, merges {by_kind['merge']}, "
        f"reverts {len(reverts)}, branches left {len(branches) - 1}, runs of the app {runs}: "
        f"{'each once' if good else 'NOT as it should be'}"
    )
    if shop.story.output.as_json:
        shop.story.output.item(
            {
                "cycles": {
                    "ok": good,
                    "outcomes": [cycle.outcome for cycle in shop.cycles],
                    "commits": by_kind["change"],
                    "merges": by_kind["merge"],
                    "reverts": len(reverts),
                    "branches": branches,
                    "runs": runs,
                }
            }
        )
    demand(good, line)
    return line


_KINDS = ("change", "merge")


async def _count_commits(remote: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """The commits of the base by cycle and kind, and the commits that it undid."""
    log = await _git(
        remote,
        "log",
        "--format=%P%x09%(trailers:key=Att-Cycle,valueonly,separator=%x20)"
        "%x09%(trailers:key=Att-Reverts,valueonly,separator=%x20)",
        BASE,
    )
    merged: Counter[tuple[str, str]] = Counter()
    reverts = []
    for line in log.splitlines():
        parents, cycle_id, reverted = line.split("\t")
        if cycle_id:
            merged[cycle_id, _KINDS[len(parents.split()) - 1]] += 1
        reverts += reverted.split()
    return merged, reverts


# Parts -------------------------------------------------------------------------


def demand(holds: bool, what: str) -> None:
    """Raises CommandError unless it holds."""
    if not holds:
        raise CommandError("DEMO_FAILED", f"{what[0].upper()}{what[1:]}.")


def _with(code: str, name: str, value: str) -> str:
    """The code with a constant of the app set."""
    changed, count = re.subn(rf'(?m)^{name} = ".*"$', f'{name} = "{value}"', code)
    demand(count == 1, f"the example app should set {name} once")
    return changed


async def _ended(started: att_client.CycleHandle) -> att_client.Cycle:
    async with asyncio.timeout(CYCLE_TIMEOUT):
        return await started.wait()


def _status(cycle: att_client.Cycle, step: att_client.CycleStep) -> att_client.CycleStepStatus:
    return next(status for status in cycle.steps if status.step is step)


def _testing(cycle: att_client.Cycle) -> bool:
    tests = _status(cycle, att_client.CycleStep.TEST)
    return tests.state is att_client.CycleStepState.RUNNING


def _result(cycle: att_client.Cycle) -> att_client.CycleResult:
    return cycle.result or att_client.CycleResult()


def _why(cycle: att_client.Cycle) -> str:
    return " ".join(cycle_text.ending(cycle))


async def _make_repository(directory: Path) -> None:
    if shutil.which("git") is None:
        raise CommandError("GIT_NOT_FOUND", "The release part needs git. Install it.")
    await _run(sys.executable, "-m", "att_client.example.repository", str(directory))


async def _git(remote: Path, *arguments: str) -> str:
    return await _run("git", f"--git-dir={remote}", *arguments)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CYCLE_TIMEOUT):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = stderr.decode(errors="replace").strip()
        raise CommandError("DEMO_FAILED", f"{' '.join(command[:3])} failed: {said[-300:]}")
    return stdout.decode()

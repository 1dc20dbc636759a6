"""ATT's own server, released through its launcher: what cycles see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from att_server.core.cycles.runtime import Deployments
from att_server.core.cycles.server_launcher import (
    Launch,
    LaunchEnd,
    LauncherState,
    OwnProject,
    Trial,
)
from att_server.core.cycles.watched_run import RunFate, look_at_run
from att_server.core.errors import AttError, Reason
from att_server.core.model import Event, RunStatus
from att_server.core.own_deployments import OwnDeployments
from att_server.testing.artifacts import MemoryArtifacts
from att_server.testing.clock import FakeClock
from att_server.testing.deployments import FakeDeployments
from att_server.testing.journal import MemoryJournal
from att_server.testing.prober import FakeProber
from att_server.testing.state_store import MemoryStateStore

OLD, NEW = "a" * 40, "b" * 40
BEGAN = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class ScriptedLauncher:
    """A launcher that does nothing but what a test sets."""

    launch: int = 4
    release_id: str = OLD
    start_time: datetime = BEGAN
    own: OwnProject | None = field(
        default_factory=lambda: OwnProject(project_id="att", path=Path("/srv/att"))
    )
    present: bool = True
    lacking: Path | None = None
    now: LauncherState = field(default_factory=LauncherState)
    wishes: list[tuple[str, str, Trial]] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)

    def startable(self, release_id: str) -> Path | None:
        return self.lacking

    def state(self) -> LauncherState:
        return self.now

    async def wish(self, wish_id: str, release_id: str, trial: Trial) -> None:
        self.wishes.append((wish_id, release_id, trial))

    async def prove(self, release_id: str) -> None:
        self.wishes[-1] = (*self.wishes[-1][:1], f"good {release_id}", self.wishes[-1][2])

    async def events(self, after: int) -> Sequence[Event]:
        return self.told[after:]

    def output(self, count: int) -> list[bytes]:
        return [b"it dies"][-count:]


class Bench:
    """OwnDeployments on a scripted launcher; its project is in the fake of all the others."""

    def __init__(self, **given: Any) -> None:
        self.clock = FakeClock()
        self.launcher = ScriptedLauncher(**given)
        self.apps = FakeDeployments(self.clock)
        self.apps.add("att", release_id=self.launcher.release_id)
        self.apps.add("web")
        self.store = MemoryStateStore()
        self.artifacts = MemoryArtifacts()
        self.released: list[tuple[str, str]] = []
        self.deployments = OwnDeployments(
            self.apps,
            own=OwnProject(project_id="att", path=Path("/srv/att")),
            launcher=self.launcher,
            projects=self,
            artifacts=self.artifacts,
            journal=MemoryJournal(self.store, self.clock),
            store=self.store,
            prober=FakeProber(self.clock),
            clock=self.clock,
            target="unix:/s/att.sock",
            environ={},
            pid=77,
        )

    # What is needed of projects.

    def get(self, project_id: str) -> Any:
        return self.apps.project(project_id)

    async def create(self, project_id: str, *_: Any, **__: Any) -> Any:
        return self.apps.project(project_id)

    async def set_release(self, project_id: str, release_id: str, *_: Event, **__: Any) -> None:
        self.released.append((project_id, release_id))

    def status(self) -> RunStatus:
        status = self.deployments.runtime("att").status
        assert status is not None
        return status


def end(launch: int, release_id: str, *, code: int | None = 1, lost: bool = False) -> LaunchEnd:
    return LaunchEnd(
        launch=launch,
        release_id=release_id,
        pid=50 + launch,
        start_time=BEGAN - timedelta(minutes=1),
        end_time=BEGAN,
        exit_code=code,
        reason="exited_1",
        lost=lost,
        output="",
    )


def test_it_is_a_deployments_as_apps_have_them() -> None:
    _: Deployments = Bench().deployments


def test_this_server_is_the_run_and_the_apps_are_what_they_were() -> None:
    bench = Bench()
    status = bench.status()
    assert (status.run_id, status.pid, status.release_id) == ("launch-4", 77, OLD)
    assert bench.deployments.runtime("web") == bench.apps.runtime("web")


def test_a_start_that_ended_before_a_return_to_the_old_release_has_ended_for_a_cycle() -> None:
    bench = Bench(launch=6, now=LauncherState(ended=(end(4, NEW), end(5, NEW))))
    look = look_at_run(bench.status(), run_id="launch-4", release_id=NEW)
    assert (look.fate, look.reason) == (RunFate.ENDED, "process_exited")


def test_a_later_start_that_is_gone_says_nothing_until_the_launcher_has_noted_how() -> None:
    later = Launch(launch=5, release_id=NEW, pid=55)
    bench = Bench(now=LauncherState(missed=(later,)))
    look = look_at_run(bench.status(), run_id="launch-5", release_id=NEW)
    assert look.fate is RunFate.SILENT
    bench.launcher.now = LauncherState(ended=(end(5, NEW, lost=True),))
    look = look_at_run(bench.status(), run_id="launch-5", release_id=NEW)
    assert look.fate is RunFate.LOST
    bench.launcher.now = LauncherState(ended=(end(5, NEW),))
    look = look_at_run(bench.status(), run_id="launch-5", release_id=NEW)
    assert look.fate is RunFate.ENDED


def test_a_server_that_was_killed_goes_on_as_the_next_one() -> None:
    killed = (end(4, NEW, code=-9, lost=True), end(5, NEW, code=None, lost=True))
    bench = Bench(launch=6, release_id=NEW, now=LauncherState(ended=killed))
    look = look_at_run(bench.status(), run_id="launch-4", release_id=NEW)
    assert (look.fate, look.run_id) == (RunFate.UP, "launch-6")


def test_a_server_that_crashed_and_was_started_again_is_a_restart() -> None:
    bench = Bench(launch=5, release_id=NEW, now=LauncherState(ended=(end(4, NEW),)))
    look = look_at_run(bench.status(), run_id="launch-4", release_id=NEW)
    assert look.fate is RunFate.ENDED


async def test_a_switch_that_the_launcher_gave_up_fails_with_its_reason() -> None:
    now = LauncherState(wish=f"c1:{NEW}", outcome="failed", reason="exited_3")
    bench = Bench(now=now)
    await sealed(bench, NEW)
    with pytest.raises(AttError) as failed:
        await bench.deployments.switch("att", NEW, cycle_id="c1")
    assert failed.value.reason is Reason.RUNTIME_START_FAILED
    assert failed.value.metadata["cause"] == "exited_3"
    assert bench.released == [("att", NEW)]
    assert [wish[:2] for wish in bench.launcher.wishes] == [(f"c1:{NEW}", NEW)]


async def test_a_switch_to_what_serves_is_done() -> None:
    bench = Bench(now=LauncherState(wish=f"c1:{OLD}", outcome="serving"))
    await sealed(bench, OLD)
    status = await bench.deployments.switch("att", OLD, cycle_id="c1")
    assert status.run_id == "launch-4"


async def test_a_switch_that_succeeds_is_left_to_the_next_server() -> None:
    bench = Bench(now=LauncherState(wish=f"c1:{NEW}", outcome="serving"))
    await sealed(bench, NEW)
    switching = asyncio.create_task(bench.deployments.switch("att", NEW, cycle_id="c1"))
    await asyncio.sleep(0)
    assert not switching.done()
    switching.cancel()


@pytest.mark.parametrize("given", [{"launch": 0}, {"present": False}], ids=str)
async def test_without_a_launcher_nothing_is_switched(given: dict[str, Any]) -> None:
    bench = Bench(**given)
    with pytest.raises(AttError) as refused:
        await bench.deployments.check_release("att", NEW)
    assert refused.value.reason is Reason.SUPERVISOR_UNREACHABLE


async def test_a_release_without_an_environment_is_found_before_anything_is_switched() -> None:
    bench = Bench(lacking=Path("/r/.venv/bin/python"))
    await sealed(bench, NEW)
    with pytest.raises(AttError) as refused:
        await bench.deployments.check_release("att", NEW)
    assert refused.value.reason is Reason.COMMAND_NOT_FOUND
    assert bench.launcher.wishes == []


async def test_a_release_that_is_gone_is_found_before_anything_is_switched() -> None:
    with pytest.raises(AttError) as refused:
        await Bench().deployments.check_release("att", NEW)
    assert refused.value.reason is Reason.PROJECT_PATH_INVALID


async def test_what_the_launcher_runs_instead_is_stored_when_no_cycle_is_under_way() -> None:
    bench = Bench(now=LauncherState(current=OLD))
    bench.apps.add("att", release_id=NEW)
    await bench.deployments.open()
    assert bench.released == [("att", OLD)]


async def test_a_server_that_stands_in_for_another_release_stores_nothing() -> None:
    bench = Bench(now=LauncherState(current=NEW))
    bench.apps.add("att", release_id=NEW)
    await bench.deployments.open()
    assert bench.released == []


async def sealed(bench: Bench, release_id: str) -> None:
    from att_server.core.cycles.artifacts import Manifest

    manifest = Manifest(release_id=release_id, tree="t", cycle_id="c", create_time=BEGAN)
    await bench.artifacts.seal("att", manifest)

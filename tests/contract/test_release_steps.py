"""STAGE, DEPLOY and FINALIZE on a real repository and real supervisors."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from att_server.core.cycles.model import CycleStep, HealthStatus
from att_server.core.cycles.settings import ExternalSettings
from att_server.core.cycles.step import Asked, Done, Failed, Held, StepEnd
from att_server.core.failure_class import FailureClass
from att_server.core.model import RunSpec, RunStatus, RuntimeState
from att_server.core.releases import DeploymentContext, ReleaseState, Retention
from tests.contract.release_bench import PROJECT, Killed, ReleaseBench, release_bench

STAGE, DEPLOY, FINALIZE = CycleStep.STAGE, CycleStep.DEPLOY, CycleStep.FINALIZE


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ReleaseBench]:
    async with release_bench(tmp_path) as made:
        yield made


def failed(end: StepEnd, failure_class: FailureClass) -> str:
    """Why it failed."""
    assert isinstance(end, Failed), end
    assert end.failure_class is failure_class
    return end.reason


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


# The way of a good release ----------------------------------------------------


async def test_a_commit_becomes_a_release_that_the_app_runs_from(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    async with bench.server() as life:
        cycle = await life.deploy(commit)
        word, directory, release_id, data = await life.printed("one")
        assert (word, directory, release_id) == ("one", str(bench.directory(commit)), commit)
        assert Path(data).is_dir()
        assert cycle.result.deployed_release_id == commit
        assert cycle.facts.deploy_run_id == life.run_id()
        assert life.project.release_id == commit
        release = await bench.release(commit)
        assert release.state is ReleaseState.GOOD
        assert release.deploy_time is not None
        assert await bench.pinned() == {commit}
        assert (bench.state / "projects" / PROJECT / "current").resolve() == Path(directory)
        states = [e.attributes["state"] for e in bench.events if e.event_type == "release.state"]
        assert states == ["staged", "trying", "good"]


async def test_the_user_s_checkout_is_not_touched(bench: ReleaseBench) -> None:
    before = sorted(path.name for path in bench.git.checkout.iterdir())
    commit = bench.commit("one")
    async with bench.server() as life:
        await life.deploy(commit)
    assert sorted(path.name for path in bench.git.checkout.iterdir()) == before


async def test_the_next_release_takes_the_place_of_the_last(bench: ReleaseBench) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    async with bench.server() as life:
        await life.deploy(one)
        first = life.run_id()
        cycle = await life.deploy(two)
        await life.printed("two")
        assert (cycle.facts.release_before, cycle.facts.run_before) == (one, first)
        assert len(bench.left()) == 4


async def test_a_release_that_was_good_is_deployed_again_in_a_new_run(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    async with bench.server() as life:
        await life.deploy(commit)
        first = life.run_id()
        cycle = await bench.cycle(commit)
        end, cycle = await life.do(STAGE, cycle)
        assert end.leaves.evidence["reused"] == "true"
        end, cycle = await life.do(DEPLOY, cycle)
        assert isinstance(end, Done)
        assert cycle.facts.deploy_run_id == life.run_id() != first
        assert (await bench.release(commit)).state is ReleaseState.GOOD


# Builds -------------------------------------------------------------------------


async def test_a_release_is_built_where_it_will_run(bench: ReleaseBench) -> None:
    bench.release_settings(
        build=python(
            "import os, pathlib; print('built', os.environ['ATT_RELEASE_ID'], os.environ['X']);"
            "pathlib.Path('made').write_text(os.getcwd())"
        ),
        env={"X": "given"},
        shared=("var/files",),
    )
    commit = bench.commit("one")
    async with bench.server() as life:
        end, _ = await life.do(STAGE, await bench.cycle(commit))
    assert isinstance(end, Done)
    assert end.leaves.log_tail.decode().split() == ["built", commit, "given"]
    directory = bench.directory(commit)
    assert (directory / "made").read_text() == str(directory)
    assert (directory / "var/files").is_symlink()
    manifest = await bench.artifacts.manifest(PROJECT, commit)
    assert manifest is not None
    assert (manifest.build[0], manifest.shared) == (sys.executable, ("var/files",))
    assert [event.event_type for event in bench.events[:2]] == ["build.started", "build.completed"]


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (python("print('no'); raise SystemExit(3)"), "exit_code"),
        (("no-such-builder",), "command_not_found"),
        (python("open('app.py', 'a').write('# more')"), "build_changed_files"),
        (python("import os; os.remove('app.py')"), "build_changed_files"),
        (python("import time; time.sleep(1000)"), "timed_out"),
    ],
)
async def test_a_build_that_fails_leaves_nothing(
    bench: ReleaseBench, build: tuple[str, ...], reason: str
) -> None:
    bench.release_settings(build=build, build_timeout=timedelta(seconds=2))
    commit = bench.commit("one")
    async with bench.server() as life:
        end, cycle = await life.do(STAGE, await bench.cycle(commit))
        assert failed(end, FailureClass.STAGE_FAILURE) == reason
        assert bench.left() == []
        assert await bench.pinned() == frozenset()
        assert await bench.journal.releases(PROJECT) == []
        assert not cycle.facts.cut_over
        completed = bench.events[-1]
        assert (completed.event_type, completed.reason) == ("build.completed", reason)


async def test_a_build_that_is_cancelled_is_ended_and_can_be_begun_anew(
    bench: ReleaseBench,
) -> None:
    begun = bench.state / "begun"
    bench.release_settings(
        build=python(f"import time; open({str(begun)!r}, 'w').close(); time.sleep(1000)")
    )
    commit = bench.commit("one")
    async with bench.server() as life:
        cycle = await bench.cycle(commit)
        building = asyncio.create_task(life.do(STAGE, cycle))
        while not begun.exists():
            await asyncio.sleep(0.005)
        building.cancel()
        await asyncio.wait([building])
        assert await bench.artifacts.manifest(PROJECT, commit) is None
        bench.release_settings()
        end, _ = await life.do(STAGE, cycle)
        assert isinstance(end, Done)


async def test_what_a_killed_build_left_is_not_built_upon(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    bench.directory(commit).mkdir(parents=True)
    (bench.directory(commit) / "half").write_text("made")
    (bench.directory(commit) / "app.py").write_text("other")
    async with bench.server() as life:
        end, _ = await life.do(STAGE, await bench.cycle(commit))
    assert isinstance(end, Done)
    assert not (bench.directory(commit) / "half").exists()


@pytest.mark.parametrize("path", ["app.py", "docs", "docs/guide.md", "../out", "app.py/x"])
async def test_what_the_tree_holds_is_not_shared(bench: ReleaseBench, path: str) -> None:
    bench.release_settings(shared=("var", path))
    async with bench.server() as life:
        end, _ = await life.do(STAGE, await bench.cycle(bench.commit("one")))
    assert failed(end, FailureClass.STAGE_FAILURE) == "shared_path_in_tree"
    assert path in end.leaves.evidence["error"]
    assert bench.left() == []


# Releases that are not what they were -------------------------------------------


async def test_a_release_whose_directory_was_deleted_is_built_anew(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    async with bench.server() as life:
        await life.deploy(commit)
        shutil.rmtree(bench.directory(commit))
        await life.deploy(commit)
        assert (bench.directory(commit) / "app.py").exists()
        assert life.deployments.runtime(PROJECT).state is RuntimeState.READY


async def test_a_release_that_was_changed_is_not_taken_away_from_its_app(
    bench: ReleaseBench,
) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    async with bench.server() as life:
        await life.deploy(one)
        (bench.directory(one) / "app.py").write_text("changed")
        end, _ = await life.do(STAGE, await bench.cycle(one))
        assert failed(end, FailureClass.STAGE_FAILURE) == "running_release_changed"
        assert end.leaves.evidence["first_changed_files"] == "app.py"
        assert (bench.directory(one) / "app.py").read_text() == "changed"
        await life.deploy(two)
        end, _ = await life.do(STAGE, await bench.cycle(one))
        assert isinstance(end, Done)
        assert "reused" not in end.leaves.evidence
        assert (bench.directory(one) / "app.py").read_text() != "changed"


async def test_what_an_app_adds_to_its_release_is_no_change(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    async with bench.server() as life:
        await life.deploy(commit)
        (bench.directory(commit) / "cache").write_text("x")
        end, _ = await life.do(STAGE, await bench.cycle(commit))
    assert end.leaves.evidence["reused"] == "true"


# Bad releases -------------------------------------------------------------------


async def mark_bad(bench: ReleaseBench, commit: str) -> None:
    release = await bench.release(commit)
    await bench.journal.put_releases(release.bad("health_failure", bench.clock.now()))


async def test_a_bad_release_is_not_staged_nor_are_its_files_under_another_name(
    bench: ReleaseBench,
) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    again = bench.commit("one")
    async with bench.server() as life:
        await life.deploy(one)
        await life.deploy(two)
        await mark_bad(bench, one)
        for commit in (one, again):
            end, _ = await life.do(STAGE, await bench.cycle(commit))
            assert failed(end, FailureClass.STAGE_FAILURE) == "release_marked_bad"
            assert end.leaves.evidence == {"bad_release_id": one, "bad_reason": "health_failure"}
        assert life.project.release_id == two


async def test_a_person_overrides_it_and_it_has_to_prove_itself_anew(bench: ReleaseBench) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    async with bench.server() as life:
        await life.deploy(one)
        await life.deploy(two)
        await mark_bad(bench, one)
        cycle = await bench.cycle(one, override_bad=True)
        _, cycle = await life.do(STAGE, cycle)
        assert (await bench.release(one)).state is ReleaseState.STAGED
        _, cycle = await life.do(DEPLOY, cycle)
        assert (await bench.release(one)).state is ReleaseState.TRYING
        await life.do(FINALIZE, cycle)
        assert (await bench.release(one)).state is ReleaseState.GOOD


# Deploys that do not work -------------------------------------------------------


async def test_settings_that_are_wrong_keep_the_old_release_running(bench: ReleaseBench) -> None:
    one = bench.commit("one")
    two = bench.commit("two", att_toml=b"[runtime]\ncommand = 7\n")
    async with bench.server() as life:
        await life.deploy(one)
        before = life.run_id()
        end, cycle = await life.carry(await bench.cycle(two), STAGE, DEPLOY)
        assert failed(end, FailureClass.DEPLOY_FAILURE) == "settings_invalid"
        assert not cycle.facts.cut_over
        assert life.run_id() == before
        assert life.project.release_id == one
        assert (await bench.release(two)).state is ReleaseState.STAGED


async def test_a_release_that_cannot_be_run_says_why(bench: ReleaseBench) -> None:
    one = bench.commit("one")
    files = {"att.toml": b'[runtime]\ncommand = ["./bin/run"]\n', "bin/run": b"\x7fno program"}
    two = bench.git.commit_on_remote(files)
    async with bench.server() as life:
        await life.deploy(one)
        end, cycle = await life.carry(await bench.cycle(two), STAGE, DEPLOY)
        assert failed(end, FailureClass.DEPLOY_FAILURE) == "command_not_executable"
        assert cycle.facts.cut_over
        assert cycle.facts.release_before == one
        assert life.project.release_id == two
        assert (await bench.release(two)).state is ReleaseState.TRYING
        await life.deployments.switch(PROJECT, one, cycle_id=cycle.cycle_id)
        await life.printed("one")


async def test_a_release_that_had_all_its_tries_is_not_started_once_more(
    bench: ReleaseBench,
) -> None:
    bench.release_settings(tries=1)
    commit = bench.commit("one")
    async with bench.server() as life:
        _, cycle = await life.carry(await bench.cycle(commit), STAGE, DEPLOY)
        await life.stop()
        end, _ = await life.do(DEPLOY, cycle)
        assert failed(end, FailureClass.DEPLOY_FAILURE) == "tries_exhausted"


async def test_a_start_that_something_outside_kept_from_happening_is_no_try(
    bench: ReleaseBench,
) -> None:
    bench.release_settings(tries=1)
    commit = bench.commit("one")
    async with bench.server() as life:
        _, cycle = await life.do(STAGE, await bench.cycle(commit))
        supervisors = bench.state / "projects" / PROJECT / "supervisors"
        supervisors.write_text("in the way")
        for _ in range(2):
            end, cycle = await life.do(DEPLOY, cycle)
            assert isinstance(end, Held)
            assert end.reason == "supervisor_unreachable"
        supervisors.unlink()
        end, cycle = await life.do(DEPLOY, cycle)
        assert isinstance(end, Done)


# Servers that die in the middle of DEPLOY ----------------------------------------


class DyingDriver(SupervisorDriver):
    """Runs apps until the server dies: before or after its next stop or start."""

    dies = ""

    async def stop(self, project_id: str, grace: timedelta | None) -> RunStatus | None:
        self._die_at("before stop")
        status = await super().stop(project_id, grace)
        self._die_at("after stop")
        return status

    async def start(self, spec: RunSpec, *, after_loss: bool = False) -> RunStatus:
        self._die_at("before start")
        status = await super().start(spec, after_loss=after_loss)
        self._die_at("after start")
        return status

    def _die_at(self, place: str) -> None:
        if self.dies == place:
            raise Killed(place)


PLACES = ["before stop", "after stop", "before start", "after start"]


@pytest.mark.parametrize("place", ["first note", *PLACES, "before the commit"])
async def test_a_deploy_that_is_repeated_after_a_kill_makes_one_run(
    bench: ReleaseBench, place: str
) -> None:
    bench.release_settings(tries=1)  # the kill of a server is none of the release's
    one, two = bench.commit("one"), bench.commit("two")
    async with bench.server() as life:
        await life.deploy(one)
        _, cycle = await life.do(STAGE, await bench.cycle(two))
    DyingDriver.dies = place
    bench.notes_left = 0 if place == "first note" else None
    async with bench.server(driver=DyingDriver) as life:
        try:
            await life.do(DEPLOY, cycle)
        except Killed as death:
            cycle = death.args[0]
        else:
            assert place == "before the commit"
            assert bench.noted is not None
            cycle = bench.noted
    bench.notes_left = None
    async with bench.server(held=True) as life:
        end, cycle = await life.do(DEPLOY, cycle)
        assert isinstance(end, Done)
        assert cycle.facts.deploy_run_id == life.run_id()
        assert (await life.printed("two"))[2] == two
        lines = await life.deployments.recent_lines(PROJECT, 100)
        assert len([line for line in lines if line.startswith(b"two")]) == 1
        assert life.deployments.runtime(PROJECT).state is RuntimeState.READY
        await life.do(FINALIZE, cycle)
        assert (await bench.release(two)).state is ReleaseState.GOOD


@pytest.mark.parametrize("place", PLACES[1:])
async def test_a_server_that_no_cycle_tells_runs_what_is_meant_to_run(
    bench: ReleaseBench, place: str
) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    async with bench.server() as life:
        await life.deploy(one)
        _, cycle = await life.do(STAGE, await bench.cycle(two))
    DyingDriver.dies = place
    async with bench.server(driver=DyingDriver) as life:
        with pytest.raises(Killed):
            await life.do(DEPLOY, cycle)
    async with bench.server() as life:
        assert (await life.printed("two"))[2] == two


# What goes ------------------------------------------------------------------------


async def test_retention_removes_old_releases_whole(bench: ReleaseBench) -> None:
    bench.release_settings(retention=Retention(good=2, bad=1))
    commits = [bench.commit(f"v{number}") for number in range(4)]
    async with bench.server() as life:
        for commit in commits:
            await life.deploy(commit)
    assert bench.left() == sorted(
        name for commit in commits[2:] for name in (commit, f"{commit}.json")
    )
    assert await bench.pinned() == set(commits[2:])
    for commit in commits[:2]:
        assert (await bench.release(commit)).removed_time is not None


async def test_what_was_staged_and_never_tried_goes(bench: ReleaseBench) -> None:
    one, two = bench.commit("one"), bench.commit("two")
    half = bench.directory("f" * 40)
    async with bench.server() as life:
        await life.do(STAGE, await bench.cycle(one))
        half.mkdir()
        await life.deploy(two)
    assert bench.left() == sorted([two, f"{two}.json"])
    assert await bench.pinned() == {two}


async def test_what_cannot_be_removed_is_told_and_the_release_stays_good(
    bench: ReleaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.release_settings(retention=Retention(good=1, bad=1))
    commits = [bench.commit(f"v{number}") for number in range(3)]

    def refuse(*_: object) -> None:
        raise PermissionError(13, "not permitted")

    async with bench.server() as life:
        for commit in commits[:2]:
            await life.deploy(commit)
        _, cycle = await life.carry(await bench.cycle(commits[2]), STAGE, DEPLOY)
        with monkeypatch.context() as disk:
            disk.setattr(shutil, "rmtree", refuse)
            await life.do(FINALIZE, cycle)
        assert bench.events[-1].reason == "releases_not_removed"
        assert (await bench.release(commits[2])).state is ReleaseState.GOOD
        await life.do(FINALIZE, cycle)
    assert commits[0] not in bench.left()


async def test_a_release_whose_health_was_not_proven_is_not_good(bench: ReleaseBench) -> None:
    commit = bench.commit("one")
    async with bench.server() as life:
        _, cycle = await life.carry(await bench.cycle(commit), STAGE, DEPLOY)
        unproven = replace(cycle.result, health_status=HealthStatus.NOT_RUN)
        await life.do(FINALIZE, replace(cycle, result=unproven))
    assert (await bench.release(commit)).state is ReleaseState.TRYING


# Elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (4, "exit_code")])
async def test_a_command_deploys_to_an_external_context(
    bench: ReleaseBench, code: int, reason: str
) -> None:
    command = python(f"import sys; print(*sys.argv[1:]); sys.exit({code})")
    bench.settings = replace(bench.settings, external=ExternalSettings(deploy_command=command))
    commit = bench.commit("one")
    async with bench.server() as life:
        cycle = await bench.cycle(
            commit, deployment_context=DeploymentContext.EXTERNAL, deploy_target="prod"
        )
        asked = Asked(kind=cycle.kind, request=cycle.request, settings=bench.settings)
        assert life.steps[STAGE].skip_reason(asked)
        end, cycle = await life.do(DEPLOY, cycle)
        assert end.leaves.log_tail.decode().split() == [PROJECT, "prod", commit]
        assert cycle.facts.cut_over
        assert life.run_id() == ""
        if reason:
            assert failed(end, FailureClass.DEPLOY_FAILURE) == reason
        else:
            assert cycle.result.deployed_release_id == commit
            await life.do(FINALIZE, cycle)
            assert (await bench.release(commit)).state is ReleaseState.GOOD

"""The sources of release metadata, asked of what they stand for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from att_server.core.cycles.hook_call import call_hook
from att_server.core.cycles.metadata import Metadata
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import BootstrapSettings, ReleaseSettings
from att_server.core.cycles.step import Hooks
from att_server.core.model import CommandResult
from att_server.core.releases import DeploymentContext, ReleaseState
from tests.core.rollback_bench import RollbackBench
from tests.core.step_bench import NEW, OLD, OLDER, PROJECT

BASE = "0" * 39 + "f"
WITH_COMMAND = BootstrapSettings(release=ReleaseSettings(metadata_command=("whats-deployed",)))


async def before(
    bench: RollbackBench,
    request: CycleRequest | None = None,
    settings: BootstrapSettings | None = None,
) -> Metadata:
    return await bench.metadata.before_change(
        bench.deployments.project(PROJECT),
        request or CycleRequest(),
        settings or bench.settings,
        base_commit=BASE,
    )


async def good(bench: RollbackBench) -> RollbackBench:
    await bench.register(bench.release(OLD, ReleaseState.GOOD))
    return bench


def printed(bench: RollbackBench, *lines: bytes) -> RollbackBench:
    bench.deployments.lines[PROJECT] = list(lines)
    return bench


def prints(output: bytes, exit_code: int = 0) -> Callable[[object], CommandResult]:
    return lambda _: CommandResult(exit_code=exit_code, output=output)


# Who is believed ------------------------------------------------------------


async def test_every_source_is_asked_and_the_first_that_knows_is_believed() -> None:
    bench = await good(RollbackBench(result=prints(b"release_id=from-command")))
    printed(bench, b"ready release_id=from-logs")
    metadata = await before(bench, CycleRequest(previous_release_id=OLDER), WITH_COMMAND)
    assert metadata.previous_release_id == OLDER
    assert metadata.sources == {"previous_release_id": "request"}
    told = [
        (event.attributes["other_source"], event.attributes["other"])
        for event in metadata.events(bench.clock)
    ]
    assert told == [
        ("registry", OLD),
        ("runtime_logs", "from-logs"),
        ("provider", "from-command"),
        ("git", BASE),
    ]


async def test_the_registry_comes_next_then_logs_then_the_provider_then_git() -> None:
    registry = await before(
        printed(await good(RollbackBench(result=prints(b"release_id=b"))), b"release_id=a"),
        settings=WITH_COMMAND,
    )
    logs = await before(
        printed(RollbackBench(result=prints(b"release_id=b")), b"release_id=a"),
        settings=WITH_COMMAND,
    )
    provider = await before(RollbackBench(result=prints(b"release_id=b")), settings=WITH_COMMAND)
    git = await before(RollbackBench())
    found = [
        (each.previous_release_id, each.sources["previous_release_id"])
        for each in (registry, logs, provider, git)
    ]
    assert found == [(OLD, "registry"), ("a", "runtime_logs"), ("b", "provider"), (BASE, "git")]


async def test_what_the_app_calls_itself_is_the_release_before_once_the_cycle_has_deployed() -> (
    None
):
    bench = printed(RollbackBench(), b"release_id=present previous_release_id=past")
    assert (await before(bench)).previous_release_id == "present"


async def test_the_release_that_is_to_be_deployed_is_named_only_in_an_external_context() -> None:
    request = CycleRequest(requested_release_id="v7")
    assert (await before(RollbackBench(), request)).release_id == ""
    request = replace(request, deployment_context=DeploymentContext.EXTERNAL)
    metadata = await before(RollbackBench(), request)
    assert (metadata.release_id, metadata.sources["release_id"]) == ("v7", "request")


async def test_of_what_is_deployed_each_source_names_the_one_before() -> None:
    bench = printed(RollbackBench(), b"release_id=present previous_release_id=past")
    metadata = await bench.metadata.of_deployed(
        bench.deployments.project(PROJECT),
        CycleRequest(),
        bench.settings,
        deployed_release_id=NEW,
        head="head",
        parent="parent",
    )
    assert (metadata.release_id, metadata.previous_release_id) == (NEW, "past")
    assert metadata.sources == {"release_id": "registry", "previous_release_id": "runtime_logs"}
    assert {event.reason for event in metadata.events(bench.clock)} == {
        "release_id",
        "previous_release_id",
    }


async def test_a_rollback_asks_no_further_than_it_has_to() -> None:
    bench = await good(RollbackBench())
    metadata = await bench.metadata.of_deployed(
        bench.deployments.project(PROJECT),
        CycleRequest(),
        WITH_COMMAND,
        deployed_release_id=NEW,
        lazy=True,
    )
    assert metadata.previous_release_id == OLD
    assert bench.runner.ran == []


# Providers ------------------------------------------------------------------


async def test_the_command_runs_in_the_project_with_its_id() -> None:
    bench = RollbackBench(result=prints(b"noise\nrelease_id=x\n"))
    await before(bench, settings=WITH_COMMAND)
    (ran,) = bench.runner.ran
    assert ran.command == ("whats-deployed",)
    assert ran.directory == bench.deployments.project(PROJECT).path
    assert ran.env["ATT_PROJECT_ID"] == PROJECT


async def _async_provider(project_id: str) -> dict[str, str]:
    return {"release_id": f"async-{project_id}"}


@pytest.mark.parametrize(
    "provider", [lambda project_id: {"release_id": f"async-{project_id}"}, _async_provider]
)
async def test_a_hook_is_asked_in_place_of_the_command(
    provider: Callable[[str], object],
) -> None:
    bench = RollbackBench(hooks=Hooks(release_metadata_provider=provider))
    metadata = await before(bench, settings=WITH_COMMAND)
    assert metadata.previous_release_id == f"async-{PROJECT}"
    assert bench.runner.ran == []


def _raises(project_id: str) -> object:
    raise RuntimeError("no route to the cluster")


BAD_HOOKS: list[tuple[Callable[[str], object], str]] = [
    (_raises, "no route to the cluster"),
    (lambda _: ["v7"], "list"),
    (lambda _: {"release_id": 7}, "release_id"),
    (lambda _: {"release_id": "two words"}, "release_id"),
    (lambda _: {"release_id": "x" * 200}, "release_id"),
]


@pytest.mark.parametrize(("provider", "why"), BAD_HOOKS)
async def test_a_hook_that_makes_no_sense_is_told_and_does_not_know(
    provider: Callable[[str], object], why: str
) -> None:
    bench = RollbackBench(hooks=Hooks(release_metadata_provider=provider))
    metadata = await before(bench)
    assert metadata.sources == {"previous_release_id": "git"}
    (event,) = metadata.events(bench.clock)
    assert (event.event_type, event.reason) == ("release.metadata_unavailable", "provider")
    assert why in event.message


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (CommandResult(exit_code=2, output=b"release_id=x"), "exit code 2"),
        (CommandResult(signal=9), "signal 9"),
        (CommandResult(timed_out=True), "10 s"),
        (CommandResult(start_error="not found"), "not found"),
    ],
)
async def test_a_command_that_fails_is_told_and_does_not_know(
    result: CommandResult, why: str
) -> None:
    bench = RollbackBench(result=lambda _: result)
    metadata = await before(bench, settings=WITH_COMMAND)
    assert metadata.sources == {"previous_release_id": "git"}
    (event,) = metadata.events(bench.clock)
    assert why in event.message


async def test_a_hook_that_knows_nothing_is_no_failure() -> None:
    bench = RollbackBench(hooks=Hooks(release_metadata_provider=lambda _: {"release_id": None}))
    metadata = await before(bench)
    assert metadata.sources == {"previous_release_id": "git"}
    assert metadata.events(bench.clock) == ()


def _takes_nothing() -> dict[str, str]:
    return {}


def test_a_hook_that_cannot_take_a_project_is_refused_before_the_server_starts() -> None:
    with pytest.raises(ValueError, match="one argument"):
        RollbackBench(hooks=Hooks(release_metadata_provider=_takes_nothing))  # type: ignore[arg-type] # refused


# Hooks ----------------------------------------------------------------------


async def test_a_plain_hook_that_hangs_keeps_nobody_waiting() -> None:
    over = threading.Event()
    with pytest.raises(TimeoutError):
        await call_hook(over.wait, timeout=timedelta(milliseconds=10))
    over.set()


async def test_a_plain_hook_may_return_what_is_to_be_awaited() -> None:
    async def later(value: str) -> str:
        return value

    assert await call_hook(lambda v: later(v), "x", timeout=timedelta(seconds=10)) == "x"


async def test_what_a_hook_raises_arrives() -> None:
    def ends() -> object:
        return next(iter(()))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await call_hook(ends, timeout=timedelta(seconds=10))

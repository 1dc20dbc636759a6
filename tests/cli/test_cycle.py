"""`att cycle`, `att release` and `att rollback` as processes, against a scripted server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import att_client
from att.v1 import bootstrap_pb2, bootstrap_service_pb2, project_pb2, project_service_pb2
from att_client import CycleState
from tests.cli.att import ATT, Ended, environment
from tests.cli.sample_cycles import (
    CYCLE,
    NEW,
    OLD,
    awaiting,
    cycle,
    denied,
    ended,
    good,
    rolled_back,
    verdict,
)
from tests.client.stub_server import StubServer, answer, failure, stream, unavailable
from tests.server_process import PATIENCE


@pytest.fixture
async def stub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StubServer]:
    directory = tmp_path_factory.mktemp("s")
    async with StubServer(directory / "a.sock") as server:
        yield server


async def begun(*arguments: str, stub: StubServer) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *ATT,
        *arguments,
        env=environment(stub.target),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def att(*arguments: str, stub: StubServer) -> Ended:
    """Runs `att` to its end, while the scripted server answers."""
    process = await begun(*arguments, stub=stub)
    async with asyncio.timeout(PATIENCE):
        stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(code=process.returncode, stdout=stdout, stderr=stderr.decode())


def wire(shown: att_client.Cycle, revision: int) -> bootstrap_pb2.Cycle:
    """The cycle as a server sends it."""
    message = bootstrap_pb2.Cycle.FromString(bytes(shown))
    message.revision = revision
    return message


def state(shown: att_client.Cycle, revision: int) -> bootstrap_service_pb2.WatchCycleResponse:
    return bootstrap_service_pb2.WatchCycleResponse(cycle=wire(shown, revision))


def scripted(stub: StubServer, *states: att_client.Cycle) -> None:
    """Scripts a cycle that goes through these states."""
    first = wire(states[0], 1)
    stub.script("StartCycle", answer(bootstrap_service_pb2.StartCycleResponse(cycle=first)))
    stub.script(
        "RollbackRelease", answer(bootstrap_service_pb2.RollbackReleaseResponse(cycle=first))
    )
    stub.script("GetCycle", answer(bootstrap_service_pb2.GetCycleResponse(cycle=first)))
    stub.script("ListCycles", answer(bootstrap_service_pb2.ListCyclesResponse(cycles=[first])))
    stub.script("CancelCycle", answer(bootstrap_service_pb2.CancelCycleResponse(cycle=first)))
    stub.script("DecideCycle", answer(bootstrap_service_pb2.DecideCycleResponse(cycle=first)))
    stub.script("WatchCycle", stream(*(state(s, n) for n, s in enumerate(states, 1))))
    project = project_pb2.Project(
        project_id="web", mode=project_pb2.PROJECT_MODE_SAFE, mode_reason="why_it_is_so"
    )
    stub.script("GetProject", answer(project_service_pb2.GetProjectResponse(project=project)))
    stub.script(
        "ListReleases",
        answer(
            bootstrap_service_pb2.ListReleasesResponse(
                releases=[
                    bootstrap_pb2.Release(
                        release_id=NEW,
                        project_id="web",
                        state=bootstrap_pb2.RELEASE_STATE_BAD,
                        reason="health_failure",
                    ),
                    bootstrap_pb2.Release(
                        release_id=OLD,
                        project_id="web",
                        state=bootstrap_pb2.RELEASE_STATE_GOOD,
                        current=True,
                    ),
                ]
            )
        ),
    )


async def test_a_good_cycle_exits_with_0_and_shows_its_steps(
    stub: StubServer, tmp_path: Path
) -> None:
    new = tmp_path / "new.py"
    new.write_text("VERSION = 2\n")
    scripted(stub, cycle(), good())
    ran = await att("cycle", "run", "web", "--edit", f"app.py={new}", "-m", "Do better", stub=stub)
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    lines = ran.stdout.decode().splitlines()
    assert lines[0].startswith("change of web, running")
    assert lines[-1].startswith(f"SUCCEEDED: web runs release {NEW[:12]}")
    assert sum(line.startswith("deploy") for line in lines) == 1
    (request,) = stub.requests["StartCycle"]
    assert request.cycle.edits[0].content == b"VERSION = 2\n"
    assert request.request_id


async def test_a_rollback_by_itself_exits_with_1_over_an_outage(stub: StubServer) -> None:
    scripted(stub, cycle())
    stub.script(
        "WatchCycle",
        stream(state(cycle(), 1), then=unavailable()),
        stream(state(rolled_back(), 2)),
    )
    ran = await att("cycle", "watch", "web", "--json", stub=stub)
    assert ran.code == 1
    assert ran.stderr == ""
    assert [item["state"] for item in ran.items] == ["running", "ended"]
    last = ran.items[-1]
    assert last["outcome"] == "rolled_back"
    assert last["outcome_reason"] == "health_failure"


async def test_a_denied_rollback_exits_with_1_and_says_why(stub: StubServer) -> None:
    scripted(stub, denied())
    ran = await att("cycle", "watch", CYCLE, stub=stub)
    assert ran.code == 1
    out = ran.stdout.decode()
    assert "rollback_attempts_exhausted" in out
    assert "web is in SAFE MODE (why_it_is_so)" in out


async def test_a_cycle_is_left_alone_by_who_detaches_or_interrupts(stub: StubServer) -> None:
    scripted(stub, awaiting())
    left = await att("cycle", "run", "web", "--commit", NEW, "--detach", stub=stub)
    assert left.code == 0
    assert f"att cycle watch {CYCLE}" in left.stderr
    assert "WatchCycle" not in stub.requests

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    stub.script("WatchCycle", stream(state(awaiting(), 1), forever))
    process = await begun("cycle", "run", "web", "--commit", NEW, stub=stub)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        while b"A person has to decide" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = await process.communicate()
    assert process.returncode == 130
    assert f"The cycle goes on. Come back with `att cycle watch {CYCLE}`" in stderr.decode()
    assert "CancelCycle" not in stub.requests


async def test_a_refused_start_is_an_error_with_its_reason(stub: StubServer) -> None:
    stub.script(
        "StartCycle",
        failure(
            grpc.StatusCode.FAILED_PRECONDITION, "PROJECT_IN_SAFE_MODE", "no", project_id="web"
        ),
    )
    ran = await att("cycle", "run", "web", "--commit", NEW, "--json", stub=stub)
    assert ran.code == 1
    assert ran.stdout == b""
    assert ran.error["reason"] == "PROJECT_IN_SAFE_MODE"


async def test_a_decision_is_on_what_the_cycle_shows(stub: StubServer) -> None:
    scripted(stub, awaiting())
    stale = await att("cycle", "approve", CYCLE, "--commit", OLD, "--json", stub=stub)
    assert stale.code == 1
    assert stale.error["reason"] == "APPROVAL_STALE"
    assert "DecideCycle" not in stub.requests
    approved = await att("cycle", "approve", CYCLE, "--reason", "fine", stub=stub)
    assert approved.code == 0, approved.stderr
    (request,) = stub.requests["DecideCycle"]
    assert request.decision == bootstrap_service_pb2.CYCLE_DECISION_APPROVE
    assert (request.commit_sha, request.plan_digest) == (NEW, "digest")
    assert request.reason == "fine"


async def test_who_asked_for_a_cycle_is_denied_its_approval(stub: StubServer) -> None:
    scripted(stub, awaiting())
    stub.script(
        "DecideCycle",
        failure(grpc.StatusCode.PERMISSION_DENIED, "DECIDED_BY_REQUESTER", cycle_id=CYCLE),
    )
    ran = await att("cycle", "reject", "web", "--json", stub=stub)
    assert ran.code == 4
    assert ran.error["reason"] == "DECIDED_BY_REQUESTER"


async def test_cycles_are_listed_and_shown(stub: StubServer) -> None:
    scripted(stub, rolled_back())
    listed = await att("cycles", "list", "web", "--active", stub=stub)
    assert listed.code == 0, listed.stderr
    row = listed.stdout.decode().splitlines()[1].split()
    assert row[:2] == [CYCLE, "web"]
    assert "health_failure" in row
    assert stub.requests["ListCycles"][0].active_only
    shown = await att("cycle", "show", CYCLE, stub=stub)
    assert "ROLLED BACK" in shown.stdout.decode()
    step = await att("cycle", "show", CYCLE, "--step", "health", stub=stub)
    assert "| line 0\n" in step.stdout.decode()


async def test_a_cancelled_cycle_is_reported(stub: StubServer) -> None:
    cancelling = cycle(state=CycleState.CANCELLING)
    scripted(stub, cancelling)
    ran = await att("cycle", "cancel", CYCLE, "--reason", "wrong one", "--json", stub=stub)
    assert ran.code == 0
    assert ran.item["state"] == "cancelling"
    assert stub.requests["CancelCycle"][0].reason == "wrong one"


async def test_releases_are_named_by_their_beginning(stub: StubServer) -> None:
    scripted(stub, good())
    stub.script(
        "GetRelease",
        answer(
            bootstrap_service_pb2.GetReleaseResponse(
                release=bootstrap_pb2.Release(release_id=OLD, project_id="web")
            )
        ),
    )
    listed = await att("release", "list", "web", stub=stub)
    assert listed.code == 0, listed.stderr
    rows = listed.stdout.decode().splitlines()
    assert rows[1].split()[:3] == [NEW[:12], "bad", "health_failure"]
    assert rows[2].split()[:3] == [OLD[:12], "good", "current"]
    shown = await att("releases", "show", "web", OLD[:6], "--json", stub=stub)
    assert shown.item["release_id"] == OLD
    assert stub.requests["GetRelease"][0].release_id == OLD


async def test_a_dry_run_shows_every_gate_and_does_nothing(stub: StubServer) -> None:
    scripted(stub, good())
    for reason, code in (("", 0), ("rollback_attempts_exhausted", 1)):
        asked = bootstrap_pb2.RollbackVerdict.FromString(bytes(verdict(denied=reason)))
        stub.script(
            "EvaluateRollback",
            answer(bootstrap_service_pb2.EvaluateRollbackResponse(verdict=asked)),
        )
        ran = await att(
            "rollback",
            "web",
            "--to",
            OLD[:8],
            "--dry-run",
            *(("--json",) if reason else ()),
            stub=stub,
        )
        assert ran.code == code, ran.stderr
    gates: Any = json.loads(ran.stdout)["gates"]
    assert [gate["status"] for gate in gates] == ["passed", "denied", "not_applicable"]
    assert [r.target_release_id for r in stub.requests["EvaluateRollback"]] == [OLD, OLD]
    assert "RollbackRelease" not in stub.requests


async def test_a_rollback_is_followed_to_its_end(stub: StubServer) -> None:
    back = ended(
        att_client.CycleOutcome.SUCCEEDED,
        kind=att_client.CycleKind.ROLLBACK,
        result=att_client.CycleResult(rollback_target_release_id=OLD),
    )
    scripted(stub, back)
    ran = await att("rollback", "web", "--to", OLD, "--reason", "slow", stub=stub)
    assert ran.code == 0, ran.stderr
    assert f"SUCCEEDED: release {OLD[:12]} of web runs again" in ran.stdout.decode()
    (request,) = stub.requests["RollbackRelease"]
    assert (request.target_release_id, request.reason) == (OLD, "slow")


async def test_a_plan_without_an_earlier_release_says_how_to_make_one(stub: StubServer) -> None:
    plan = bootstrap_service_pb2.PlanCycleResponse(base_commit_sha=OLD)
    denied_verdict = verdict(denied="rollback_target_unknown")
    plan.rollback.CopyFrom(bootstrap_pb2.RollbackVerdict.FromString(bytes(denied_verdict)))
    stub.script("PlanCycle", answer(plan))
    ran = await att("cycle", "plan", "web", "--delete", "old.py", stub=stub)
    assert f"First release the base: `att cycle run web --commit {OLD}`." in ran.stdout.decode()


async def test_a_plan_shows_what_would_be_done(stub: StubServer) -> None:
    plan = bootstrap_service_pb2.PlanCycleResponse(
        base_commit_sha=OLD, plan_digest="digest", approval_reason="touches_att_toml"
    )
    plan.rollback.CopyFrom(bootstrap_pb2.RollbackVerdict.FromString(bytes(verdict())))
    plan.steps.add(step=bootstrap_pb2.CYCLE_STEP_EDIT)
    plan.steps.add(
        step=bootstrap_pb2.CYCLE_STEP_CI,
        state=bootstrap_pb2.CYCLE_STEP_STATE_SKIPPED,
        reason="not_configured",
    )
    stub.script("PlanCycle", answer(plan))
    ran = await att("cycle", "plan", "web", "--delete", "old.py", stub=stub)
    assert ran.code == 0, ran.stderr
    rows = [" ".join(line.split()) for line in ran.stdout.decode().splitlines()]
    assert "a person has to decide touches_att_toml" in rows
    assert "ci skipped not_configured" in rows
    assert "not_frozen passed mode normal" in rows
    assert "--commit" not in ran.stdout.decode()

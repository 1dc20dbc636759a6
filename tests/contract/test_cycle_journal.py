"""What every journal keeps to, the one in memory and the one on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from att_server.adapters.boot_time import BootTime
from att_server.adapters.sqlite_database import SqliteDatabase
from att_server.adapters.sqlite_journal import SqliteJournal
from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.cycles.journal import Fenced, PullRequest
from att_server.core.cycles.model import (
    Cancellation,
    Cycle,
    CycleFailure,
    CycleKind,
    CycleRequest,
    CycleResult,
    CycleState,
    CycleStep,
    Decision,
    StepState,
    StepStatus,
)
from att_server.core.cycles.test_report import TestOutcome, TestReport, TestResult
from att_server.core.errors import AttError, Reason
from att_server.core.failure_class import CycleOutcome, FailureClass
from att_server.core.model import (
    Event,
    EventFilter,
)
from att_server.core.releases import Release
from att_server.core.request_claim import RequestClaim
from att_server.testing.clock import FakeClock
from att_server.testing.journal import MemoryJournal
from att_server.testing.state_store import MemoryStateStore

START = datetime(2030, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=15)
STEPS = tuple(StepStatus(step=step) for step in CycleStep)
Journal = MemoryJournal | SqliteJournal
Store = MemoryStateStore | SqliteStateStore


@dataclass(frozen=True)
class Kept:
    """A journal and the state store beside it, on a clock that the test moves."""

    journal: Journal
    store: Store
    clock: FakeClock

    async def events(self) -> Sequence[str]:
        events, _ = await self.store.list_events(EventFilter(), cursor=0, limit=1_000)
        return [event.event_type for event in events]

    async def taken(self, cycle: Cycle, owner: str = "a") -> Cycle:
        """The cycle, created and taken."""
        await self.journal.create(cycle, b"")
        taken = await self.journal.take(cycle.cycle_id, owner, lease=LEASE, force=False)
        assert taken is not None
        return taken


@asynccontextmanager
async def sqlite(path: Path, clock: FakeClock, boot: str = "boot") -> AsyncIterator[Kept]:
    database = await SqliteDatabase.open(path)
    journal = SqliteJournal(
        database, boot_time=lambda: BootTime(boot_id=boot, seconds=clock.monotonic()), now=clock.now
    )
    try:
        yield Kept(journal, SqliteStateStore(database), clock)
    finally:
        await database.aclose()


@pytest.fixture(params=["memory", "sqlite"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    clock = FakeClock(START)
    if request.param == "memory":
        store = MemoryStateStore()
        yield Kept(MemoryJournal(store, clock), store, clock)
        return
    async with sqlite(tmp_path / "att.db", clock) as made:
        yield made


def cycle(cycle_id: str = "01", project_id: str = "web", **fields: object) -> Cycle:
    made = Cycle(
        cycle_id=cycle_id,
        project_id=project_id,
        request=CycleRequest(edited_paths=("app.py",), commit_message="größer"),
        requested_by="local:1000",
        create_time=START,
        steps=STEPS,
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # the test's own words


def ended(given: Cycle, outcome: CycleOutcome = CycleOutcome.SUCCEEDED) -> Cycle:
    return replace(given, state=CycleState.ENDED, outcome=outcome, end_time=START)


def event(event_type: str) -> Event:
    return Event(event_type=event_type, time=START, project_id="web")


def claim(request_id: str = "r1") -> RequestClaim:
    return RequestClaim(
        request_id=request_id, method="StartCycle", digest="d", project_id="web", time=START
    )


def cancellation(principal: str = "local:1000") -> Cancellation:
    return Cancellation(principal=principal, time=START, reason="enough")


def decision(commit: str = "c" * 40, *, approved: bool = True) -> Decision:
    return Decision(
        approved=approved,
        principal="token:ann",
        time=START,
        commit_sha=commit,
        plan_digest="p",
        reason="fine",
    )


def release(release_id: str = "r1", project_id: str = "web", minutes: int = 0) -> Release:
    time = START + timedelta(minutes=minutes)
    return Release(release_id=release_id, project_id=project_id, state_time=time, create_time=time)


# Cycles ----------------------------------------------------------------------


async def test_a_cycle_comes_back_as_it_was_with_its_change_and_events(kept: Kept) -> None:
    assert await kept.journal.create(cycle(), b"\0change", event("cycle.started")) is None
    assert await kept.journal.cycle("01") == cycle()
    assert await kept.journal.change("01") == b"\0change"
    assert await kept.events() == ["cycle.started"]


async def test_an_unknown_cycle_is_none(kept: Kept) -> None:
    assert await kept.journal.cycle("01") is None
    assert await kept.journal.change("01") == b""
    assert await kept.journal.take("01", "a", lease=LEASE, force=True) is None
    assert await kept.journal.cancel("01", cancellation(), event("x")) is None
    assert await kept.journal.decide("01", decision(), event("x")) is None
    assert await kept.events() == []


async def test_a_project_has_one_active_cycle(kept: Kept) -> None:
    first = await kept.taken(cycle("01"))
    with pytest.raises(AttError) as refused:
        await kept.journal.create(cycle("02"), b"x", event("second"), claim=claim())
    assert refused.value.reason is Reason.CYCLE_ALREADY_RUNNING
    assert refused.value.metadata == {"project_id": "web", "cycle_id": "01"}
    assert await kept.journal.cycle("02") is None
    assert await kept.events() == []
    await kept.journal.create(cycle("03", project_id="other"), b"")
    await kept.journal.commit(ended(first))
    # The claim of what was refused was not kept either.
    assert await kept.journal.create(cycle("02"), b"", claim=claim()) is None


async def test_a_request_that_comes_again_gets_the_cycle_it_began(kept: Kept) -> None:
    await kept.journal.create(cycle("01"), b"", event("first"), claim=claim())
    again = await kept.journal.create(cycle("02"), b"", event("second"), claim=claim())
    assert again == replace(claim(), outcome="01")
    assert await kept.journal.cycle("02") is None
    assert await kept.events() == ["first"]


async def test_cycles_come_newest_first_by_project_and_activity_in_pages(kept: Kept) -> None:
    for number, project_id in enumerate(["a", "b", "a", "b"]):
        taken = await kept.taken(cycle(f"0{number}", project_id=project_id))
        if number < 3:
            await kept.journal.commit(ended(taken))

    async def ids(**selected: object) -> list[str]:
        found = await kept.journal.cycles(limit=10, **selected)  # type: ignore[arg-type]  # as given
        return [each.cycle_id for each in found]

    assert await ids() == ["03", "02", "01", "00"]
    assert await ids(project_id="a") == ["02", "00"]
    assert await ids(active_only=True) == ["03"]
    assert await ids(project_id="a", active_only=True) == []
    assert await ids(before="02") == ["01", "00"]
    assert [each.cycle_id for each in await kept.journal.cycles(limit=2)] == ["03", "02"]


async def test_a_list_leaves_out_what_steps_printed(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    tested = StepStatus(step=CycleStep.TEST, state=StepState.FAILED, log_tail=b"boom \xff")
    stored = await kept.journal.commit(taken.with_step(tested))
    assert await kept.journal.cycle("01") == stored
    [listed] = await kept.journal.cycles(limit=1)
    assert listed == stored.with_step(replace(tested, log_tail=b""))


async def test_what_a_step_printed_is_replaced_by_its_next_attempt(kept: Kept) -> None:
    stored = await kept.taken(cycle())
    for tail in (b"first", b"second", b"", b"third"):
        tested = StepStatus(step=CycleStep.TEST, state=StepState.RUNNING, log_tail=tail)
        stored = await kept.journal.commit(stored.with_step(tested))
        assert await kept.journal.cycle("01") == stored


async def test_a_commit_stores_all_that_it_was_given_under_a_new_revision(kept: Kept) -> None:
    await kept.journal.create(cycle(), b"change")
    taken = await kept.journal.take("01", "a", lease=LEASE, force=False)
    assert taken is not None
    report = TestReport(
        cycle_id="01",
        project_id="web",
        tree="t",
        exit_code=1,
        failed_count=1,
        duration=timedelta(seconds=2),
        results=(TestResult(name="größer", outcome=TestOutcome.FAILED, message="no"),),
        output_tail=b"\xff",
    )
    changed = replace(
        taken,
        state=CycleState.ROLLING_BACK,
        failure=CycleFailure(
            step=CycleStep.HEALTH, failure_class=FailureClass.HEALTH_FAILURE, reason="http_status"
        ),
        wake_time=START + timedelta(seconds=1),
    )
    stored = await kept.journal.commit(
        changed, events=[event("e")], releases=[release()], report=report, drop_change=True
    )
    assert stored == replace(changed, revision=taken.revision + 1)
    assert await kept.journal.cycle("01") == stored
    assert await kept.journal.change("01") == b""
    assert await kept.journal.releases("web") == [release()]
    assert await kept.journal.test_report("web") == report
    assert await kept.events() == ["e"]


async def test_a_cycle_that_ended_may_still_be_completed_but_not_go_on(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    stored = await kept.journal.commit(ended(taken))
    cleaned = replace(stored, facts=replace(stored.facts, cleaned_up=True))
    stored = await kept.journal.commit(cleaned)
    assert stored.facts.cleaned_up
    with pytest.raises(ValueError, match="has ended"):
        await kept.journal.commit(replace(stored, state=CycleState.RUNNING))
    assert await kept.journal.cycle("01") == stored


# Leases ----------------------------------------------------------------------


async def test_a_cycle_is_not_taken_while_another_holds_it(kept: Kept) -> None:
    taken = await kept.taken(cycle(), "a")
    assert taken.lease_epoch == 1
    assert await kept.journal.take("01", "b", lease=LEASE, force=False) is None
    kept.clock.advance(LEASE - timedelta(seconds=1))
    assert await kept.journal.take("01", "b", lease=LEASE, force=False) is None
    kept.clock.advance(timedelta(seconds=2))
    other = await kept.journal.take("01", "b", lease=LEASE, force=False)
    assert other is not None
    assert other == replace(taken, lease_epoch=2)


async def test_a_renewed_lease_holds_on(kept: Kept) -> None:
    await kept.taken(cycle("01"), "a")
    await kept.taken(cycle("02", project_id="two"), "a")
    await kept.taken(cycle("03", project_id="three"), "b")
    kept.clock.advance(timedelta(seconds=10))
    assert await kept.journal.renew("a", lease=LEASE) == {"01", "02"}
    kept.clock.advance(timedelta(seconds=10))
    assert await kept.journal.untaken() == ["03"]
    assert await kept.journal.take("01", "b", lease=LEASE, force=False) is None


async def test_an_owner_that_lost_a_cycle_learns_of_it_when_it_renews(kept: Kept) -> None:
    await kept.taken(cycle("01"), "a")
    await kept.journal.take("01", "b", lease=LEASE, force=True)
    assert await kept.journal.renew("a", lease=LEASE) == frozenset()


async def test_who_lost_the_cycle_is_fenced_and_writes_nothing(kept: Kept) -> None:
    stale = await kept.taken(cycle(), "a")
    kept.clock.advance(LEASE + timedelta(seconds=1))
    other = await kept.journal.take("01", "b", lease=LEASE, force=False)
    assert other is not None
    with pytest.raises(Fenced):
        await kept.journal.commit(
            ended(stale), events=[event("doubled")], releases=[release()], drop_change=True
        )
    assert await kept.journal.cycle("01") == other
    assert await kept.journal.releases("web") == []
    assert await kept.events() == []
    stored = await kept.journal.commit(replace(other, outcome_reason="b's"))
    assert stored.outcome_reason == "b's"


async def test_a_lease_that_ran_out_fences_nobody_while_no_other_took_it(kept: Kept) -> None:
    taken = await kept.taken(cycle(), "a")
    kept.clock.advance(2 * LEASE)
    stored = await kept.journal.commit(replace(taken, outcome_reason="late"))
    assert stored.outcome_reason == "late"


async def test_nobody_takes_or_waits_for_a_cycle_that_ended(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    await kept.journal.commit(ended(taken))
    kept.clock.advance(2 * LEASE)
    assert await kept.journal.untaken() == []
    assert await kept.journal.take("01", "b", lease=LEASE, force=True) is None
    assert await kept.journal.renew("a", lease=LEASE) == frozenset()


async def test_new_cycles_are_untaken_oldest_first(kept: Kept) -> None:
    await kept.journal.create(cycle("02", project_id="b"), b"")
    await kept.journal.create(cycle("01", project_id="a"), b"")
    assert await kept.journal.untaken() == ["01", "02"]
    await kept.journal.take("01", "a", lease=LEASE, force=False)
    assert await kept.journal.untaken() == ["02"]


async def test_a_forgotten_cycle_fences_its_engine(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    await kept.journal.forget_project("web")
    with pytest.raises(Fenced):
        await kept.journal.commit(taken)


# What calls write -------------------------------------------------------------


async def test_a_cancellation_reaches_the_engine_with_its_next_commit(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    cancelled = await kept.journal.cancel("01", cancellation(), event("asked"))
    assert cancelled == replace(taken, cancellation=cancellation(), revision=1)
    stored = await kept.journal.commit(replace(taken, outcome_reason="x"))
    assert stored == replace(cancelled, outcome_reason="x", revision=2)
    assert await kept.journal.cycle("01") == stored
    assert await kept.events() == ["asked"]


async def test_the_first_to_cancel_counts(kept: Kept) -> None:
    await kept.taken(cycle())
    first = await kept.journal.cancel("01", cancellation("a"), event("first"))
    assert await kept.journal.cancel("01", cancellation("b"), event("second")) == first
    assert await kept.events() == ["first"]


async def test_a_cycle_that_ended_is_neither_cancelled_nor_decided(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    stored = await kept.journal.commit(ended(taken))
    assert await kept.journal.cancel("01", cancellation(), event("x")) == stored
    assert await kept.journal.decide("01", decision(), event("y")) is None
    assert await kept.journal.cycle("01") == stored
    assert await kept.events() == []


async def test_the_first_decision_on_a_commit_and_plan_stays(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    await kept.journal.decide("01", decision(), event("first"), claim=claim("r1"))
    await kept.journal.decide("01", decision(approved=False), event("second"), claim=claim("r2"))
    stored = await kept.journal.commit(taken)
    assert stored.decision == decision()
    assert await kept.events() == ["first"]
    again = await kept.journal.decide("01", decision(), claim=claim("r1"))
    assert again == replace(claim("r1"), outcome="01")


async def test_a_decision_on_another_commit_takes_the_place_of_the_earlier(kept: Kept) -> None:
    taken = await kept.taken(cycle())
    await kept.journal.decide("01", decision())
    other = decision("d" * 40, approved=False)
    await kept.journal.decide("01", other, event("second"))
    assert (await kept.journal.commit(taken)).decision == other
    assert await kept.events() == ["second"]


# What belongs to them ---------------------------------------------------------


async def test_releases_come_newest_first_and_are_replaced_by_id(kept: Kept) -> None:
    old, new = release("r1", minutes=1), release("r2", minutes=2)
    await kept.journal.put_releases(old, new, release("r1", "other"), events=[event("e")])
    assert await kept.journal.releases("web") == [new, old]
    bad = replace(old.trying(3, START).bad("health_failure", START), data_version=7)
    await kept.journal.put_releases(bad)
    assert await kept.journal.releases("web") == [new, bad]
    assert await kept.events() == ["e"]


async def test_the_last_report_is_that_of_the_newest_cycle(kept: Kept) -> None:
    assert await kept.journal.test_report("web") is None
    stored = await kept.taken(cycle("01"))
    reports = [
        TestReport(cycle_id=cycle_id, project_id="web", tree=tree, exit_code=0)
        for cycle_id, tree in [("01", "a"), ("01", "b"), ("02", "c")]
    ]
    for report in reports:
        await kept.journal.commit(stored, report=report)
    assert await kept.journal.test_report("web", "01") == reports[1]
    assert await kept.journal.test_report("web") == reports[2]
    assert await kept.journal.test_report("web", "03") is None
    assert await kept.journal.test_report("other", "01") is None


async def test_automatic_rollbacks_count_from_when_they_began(kept: Kept) -> None:
    async def run(cycle_id: str, began: timedelta, **fields: object) -> Cycle:
        taken = await kept.taken(cycle(cycle_id, "web", **fields))
        rolled = StepStatus(step=CycleStep.ROLLBACK, start_time=START - began)
        result = CycleResult(rollback_performed=True)
        return await kept.journal.commit(replace(taken.with_step(rolled), result=result))

    hour = timedelta(hours=1)
    await kept.journal.commit(ended(await run("01", 2 * hour)))
    await kept.journal.commit(ended(await run("02", hour / 2)))
    by_hand = await run("03", timedelta(), kind=CycleKind.ROLLBACK)
    await kept.journal.commit(ended(by_hand))
    cancelled = CycleFailure(
        step=CycleStep.HEALTH, failure_class=FailureClass.CANCELLED, reason="cancelled"
    )
    await kept.journal.commit(ended(await run("04", timedelta(), failure=cancelled)))
    await run("05", timedelta())  # it has not ended, and asks for itself
    assert await kept.journal.automatic_rollbacks("web", hour) == 1
    assert await kept.journal.automatic_rollbacks("web", 3 * hour) == 2
    assert await kept.journal.automatic_rollbacks("other", 3 * hour) == 0


async def test_a_cycle_has_one_pull_request_and_numbers_go_by_project(kept: Kept) -> None:
    def wanted(cycle_id: str, project_id: str = "web") -> PullRequest:
        return PullRequest(
            project_id=project_id,
            number=0,
            cycle_id=cycle_id,
            branch="att/x",
            base="main",
            head="h",
            title="größer",
        )

    first = await kept.journal.open_pull_request(wanted("01"))
    second = await kept.journal.open_pull_request(wanted("02"))
    other = await kept.journal.open_pull_request(wanted("01", "other"))
    assert [each.number for each in (first, second, other)] == [1, 2, 1]
    merged = replace(first, state="merged", merge_commit="m")
    await kept.journal.put_pull_request(merged)
    assert await kept.journal.open_pull_request(wanted("01")) == merged
    assert await kept.journal.pull_request("web", "01") == merged
    assert await kept.journal.pull_request("web", "03") is None


async def test_a_forgotten_project_leaves_its_events_and_others(kept: Kept) -> None:
    for number, project_id in enumerate(["web", "other"]):
        cycle_id = f"0{number}"
        await kept.journal.create(
            cycle(cycle_id, project_id=project_id), b"change", event(project_id)
        )
        taken = await kept.journal.take(cycle_id, "a", lease=LEASE, force=False)
        assert taken is not None
        await kept.journal.commit(
            taken.with_step(StepStatus(step=CycleStep.TEST, log_tail=b"x")),
            releases=[release("r1", project_id)],
            report=TestReport(cycle_id=cycle_id, project_id=project_id, tree="t", exit_code=0),
        )
    await kept.journal.forget_project("web")
    assert await kept.journal.cycle("00") is None
    assert await kept.journal.change("00") == b""
    assert await kept.journal.releases("web") == []
    assert await kept.journal.test_report("web") is None
    assert await kept.journal.change("01") == b"change"
    assert await kept.journal.releases("other") == [release("r1", "other")]
    assert await kept.journal.test_report("other") is not None
    assert await kept.events() == ["web", "other"]


# Tokens ----------------------------------------------------------------------


async def test_cycles_are_those_of_the_projects_that_are_asked_for(kept: Kept) -> None:
    for number, project_id in enumerate(("web", "api", "other")):
        await kept.journal.create(
            replace(cycle(f"0{number}"), project_id=project_id, state=CycleState.ENDED), b""
        )
    found = await kept.journal.cycles(within=frozenset({"web", "api", "none"}), limit=9)
    assert [each.project_id for each in found] == ["api", "web"]
    assert await kept.journal.cycles(within=frozenset(), limit=9) == []

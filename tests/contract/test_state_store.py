"""What every state store keeps to, the one in memory and the one on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from att_server.adapters.sqlite_store import SqliteStateStore
from att_server.core.model import (
    DesiredState,
    Event,
    EventFilter,
    Project,
    ProjectMode,
)
from att_server.core.ports import StateStore
from att_server.core.request_claim import RequestClaim
from att_server.core.settings import (
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    LogProbe,
    Probe,
    ProbeKind,
    ResourceLimits,
    RestartCondition,
    RestartPolicy,
    RuntimeSettings,
    TcpProbe,
)
from att_server.testing.state_store import MemoryStateStore

TIME = datetime(2030, 1, 2, 3, 4, 5, 678_901, UTC)
EVERYTHING = EventFilter()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    made: StateStore = (
        MemoryStateStore()
        if request.param == "memory"
        else await SqliteStateStore.open(tmp_path / "att.db")
    )
    yield made
    await made.aclose()


def project(project_id: str = "web") -> Project:
    return Project(
        project_id=project_id,
        path=Path("/srv/größer"),
        runtime=RuntimeSettings(
            command=("python", "app.py", "\u2603 \n"),
            env={"A": "1", "B": ""},
            env_file="secrets/größer.env",
            run_as="größer",
            stop_grace=timedelta(milliseconds=1_500),
            restart=RestartPolicy(
                condition=RestartCondition.ON_FAILURE,
                initial_backoff=timedelta(milliseconds=250),
                max_backoff=timedelta(minutes=5),
                backoff_factor=1.7,
                backoff_jitter=0.3,
                max_restarts=0,
                window=timedelta(days=1),
                stable_after=timedelta(0),
            ),
            limits=ResourceLimits(
                memory_bytes=2**53, open_files=16, processes=None, cpu_time=timedelta(hours=1)
            ),
            readiness=Probe(
                kind=HttpProbe(url="http://127.0.0.1:8000/health"),
                interval=timedelta(milliseconds=100),
                threshold=3,
                deadline=timedelta(minutes=2),
            ),
            liveness=Probe(kind=TcpProbe(port=8000), threshold=5),
        ),
        mode=ProjectMode.SAFE,
        log_id="0" * 26,
        desired=DesiredState.RUNNING,
        desired_runtime=RuntimeSettings(
            env={"C": "3"}, readiness=Probe(kind=HttpProbe(url="http://[::1]/"), threshold=1)
        ),
        create_time=TIME,
        update_time=TIME + timedelta(microseconds=1),
        mode_reason="rollback_failed",
        release_id="c" * 40,
    )


def event(event_type: str = "project.created", **fields: str) -> Event:
    return Event(event_type=event_type, time=TIME, **fields)  # type: ignore[arg-type]  # all text


def claim(request_id: str = "r1", digest: str = "d") -> RequestClaim:
    return RequestClaim(
        request_id=request_id, method="Start", digest=digest, project_id="web", time=TIME
    )


async def all_events(store: StateStore) -> Sequence[Event]:
    events, _ = await store.list_events(EVERYTHING, cursor=0, limit=1_000)
    return events


async def test_a_project_comes_back_as_it_was(store: StateStore) -> None:
    await store.put_project(project())
    assert await store.projects() == [project()]


@pytest.mark.parametrize(
    "kind",
    [
        HttpProbe(url="http://localhost/"),
        TcpProbe(host="::1", port=1),
        CommandProbe(command=("a", "b c")),
        GrpcProbe(target="unix:app.sock", service="a.B"),
        LogProbe(pattern="größer"),
    ],
)
async def test_a_probe_of_any_kind_comes_back_as_it_was(store: StateStore, kind: ProbeKind) -> None:
    probe = Probe(kind=kind, threshold=2)
    kept = replace(project(), runtime=RuntimeSettings(readiness=probe, liveness=probe))
    await store.put_project(kept)
    assert await store.projects() == [kept]


async def test_projects_come_by_id(store: StateStore) -> None:
    for project_id in ["b-2", "c", "a", "b", "b1"]:
        await store.put_project(project(project_id))
    assert [kept.project_id for kept in await store.projects()] == ["a", "b", "b-2", "b1", "c"]


async def test_putting_a_project_replaces_the_one_with_its_id(store: StateStore) -> None:
    await store.put_project(project())
    changed = replace(project(), runtime=RuntimeSettings(), desired=DesiredState.STOPPED)
    await store.put_project(changed)
    assert await store.projects() == [changed]


async def test_a_deleted_project_is_gone_and_others_stay(store: StateStore) -> None:
    await store.put_project(project("a"))
    await store.put_project(project("b"))
    await store.delete_project("a", event("project.deleted"))
    assert [kept.project_id for kept in await store.projects()] == ["b"]
    assert [kept.event_type for kept in await all_events(store)] == ["project.deleted"]


async def test_deleting_what_is_not_there_reports_nothing(store: StateStore) -> None:
    await store.delete_project("a", event("project.deleted"))
    assert await all_events(store) == []


async def test_an_event_comes_back_as_it_was_with_its_number(store: StateStore) -> None:
    full = Event(
        event_type="error",
        time=TIME,
        project_id="web",
        cycle_id="c",
        run_id="r",
        principal="local:1000",
        phase="start",
        reason="command_not_found",
        message="Größe \u2603",
        attributes={"command": "x", "empty": ""},
    )
    await store.append_events(full, event())
    assert await all_events(store) == [replace(full, sequence=0), replace(event(), sequence=1)]


async def test_times_are_instants_whatever_their_zone(store: StateStore) -> None:
    elsewhere = TIME.astimezone(timezone(timedelta(hours=-7)))
    await store.append_events(Event(event_type="x", time=elsewhere))
    (kept,) = await all_events(store)
    assert kept.time == TIME
    assert kept.time.tzinfo is not None


async def test_every_write_numbers_its_events_without_holes(store: StateStore) -> None:
    await store.put_project(project(), event("a"), event("b"))
    await store.append_events()
    await store.append_events(event("c"))
    await store.delete_project("web", event("d"))
    assert [(kept.sequence, kept.event_type) for kept in await all_events(store)] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
        (3, "d"),
    ]


async def test_concurrent_writers_get_numbers_of_their_own(store: StateStore) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(store.append_events(event(f"n{number}"), event(f"n{number}")))
    kept = await all_events(store)
    assert [one.sequence for one in kept] == list(range(80))
    assert all(a.event_type == b.event_type for a, b in zip(kept[::2], kept[1::2], strict=True))


async def test_pages_of_events_join_without_hole_or_double(store: StateStore) -> None:
    await store.append_events(*(event(f"n{number}") for number in range(10)))
    cursor = 0
    seen: list[str] = []
    while len(seen) < 10:
        page, cursor = await store.list_events(EVERYTHING, cursor=cursor, limit=3)
        assert 1 <= len(page) <= 3
        seen += [one.event_type for one in page]
    assert seen == [f"n{number}" for number in range(10)]
    assert await store.list_events(EVERYTHING, cursor=cursor, limit=3) == ([], 10)


async def test_the_cursor_moves_past_events_that_are_not_selected(store: StateStore) -> None:
    await store.append_events(event("a"), event("b"), event("b"))
    page, cursor = await store.list_events(EventFilter(event_types=("a",)), cursor=0, limit=2)
    assert ([one.event_type for one in page], cursor) == (["a"], 3)


async def test_a_full_page_goes_on_behind_its_last_event(store: StateStore) -> None:
    await store.append_events(event("a"), event("b"), event("a"))
    page, cursor = await store.list_events(EventFilter(event_types=("a",)), cursor=0, limit=1)
    assert ([one.sequence for one in page], cursor) == ([0], 1)


async def test_a_cursor_ahead_stays_where_it_is(store: StateStore) -> None:
    await store.append_events(event())
    assert await store.list_events(EVERYTHING, cursor=7, limit=5) == ([], 7)


async def test_the_tail_is_the_last_selected_events_in_order(store: StateStore) -> None:
    await store.append_events(*(event("ab"[number % 2]) for number in range(6)))
    selected = EventFilter(event_types=("a",))
    page, cursor = await store.list_events(selected, cursor=0, limit=2, tail=True)
    assert ([one.sequence for one in page], cursor) == ([2, 4], 6)
    page, cursor = await store.list_events(selected, cursor=0, limit=50, tail=True)
    assert ([one.sequence for one in page], cursor) == ([0, 2, 4], 6)


async def test_the_tail_of_nothing_is_at_the_end(store: StateStore) -> None:
    assert await store.list_events(EVERYTHING, cursor=0, limit=1, tail=True) == ([], 0)
    await store.append_events(event("a"))
    other = EventFilter(event_types=("b",))
    assert await store.list_events(other, cursor=0, limit=1, tail=True) == ([], 1)


@pytest.mark.parametrize(
    ("selected", "sequences"),
    [
        (EventFilter(), [0, 1, 2, 3, 4]),
        (EventFilter(project_id="web"), [0, 1, 2]),
        (EventFilter(project_id="we"), []),
        (EventFilter(cycle_id="c1"), [1, 4]),
        (EventFilter(project_id="web", cycle_id="c1"), [1]),
        (EventFilter(event_types=("deploy.started",)), [1]),
        (EventFilter(event_types=("deploy.",)), [1, 2]),
        (EventFilter(event_types=("deploy",)), [4]),
        (EventFilter(event_types=("Deploy.",)), []),
        (EventFilter(event_types=("deploy", "project.")), [0, 4]),
        (EventFilter(event_types=("d%.",)), []),
        (EventFilter(project_id="api", event_types=("deploy.", "error")), [3]),
    ],
)
async def test_a_filter_selects_what_it_names(
    store: StateStore, selected: EventFilter, sequences: list[int]
) -> None:
    await store.append_events(
        event("project.created", project_id="web"),
        event("deploy.started", project_id="web", cycle_id="c1"),
        event("deploy.completed", project_id="web"),
        event("error", project_id="api"),
        event("deploy", cycle_id="c1"),
    )
    page, cursor = await store.list_events(selected, cursor=0, limit=50)
    assert [one.sequence for one in page] == sequences
    assert cursor == 5
    tail, _ = await store.list_events(selected, cursor=0, limit=50, tail=True)
    assert tail == page


async def test_the_first_claim_of_a_request_id_wins(store: StateStore) -> None:
    first = claim()
    assert await store.claim_request(first) is None
    assert await store.claim_request(first) == first
    assert await store.claim_request(claim(digest="other")) == first
    assert await store.claim_request(claim("r2")) is None


async def test_of_many_claims_at_once_one_wins(store: StateStore) -> None:
    claims = [claim(digest=str(number)) for number in range(20)]
    kept = await asyncio.gather(*(store.claim_request(one) for one in claims))
    winner = claims[kept.index(None)]
    assert sorted(str(one == winner) for one in kept) == ["False"] + ["True"] * 19


async def test_the_outcome_of_a_request_is_kept(store: StateStore) -> None:
    await store.claim_request(claim())
    await store.set_request_outcome("r1", "run-7")
    assert await store.claim_request(claim()) == replace(claim(), outcome="run-7")


async def test_an_outcome_of_an_unknown_request_is_without_effect(store: StateStore) -> None:
    await store.set_request_outcome("r1", "run-7")
    assert await store.claim_request(claim()) is None


async def test_epochs_rise_from_1(store: StateStore) -> None:
    assert [await store.next_epoch() for _ in range(3)] == [1, 2, 3]


async def test_a_number_is_kept_under_its_name_and_never_goes_back(store: StateStore) -> None:
    assert await store.number("place") is None
    kept = []
    for value in (0, 7, 3, 7, 1 << 60):
        await store.raise_number("place", value)
        kept.append(await store.number("place"))
    assert kept == [0, 7, 7, 7, 1 << 60]
    assert await store.number("other") is None


async def test_a_closed_store_refuses_every_call(store: StateStore) -> None:
    await store.aclose()
    calls = [
        store.projects(),
        store.put_project(project()),
        store.delete_project("web"),
        store.append_events(event()),
        store.list_events(EVERYTHING, cursor=0, limit=1),
        store.claim_request(claim()),
        store.set_request_outcome("r1", "x"),
        store.next_epoch(),
        store.number("place"),
        store.raise_number("place", 1),
    ]
    for call in calls:
        with pytest.raises(RuntimeError):
            await call


async def test_a_project_is_put_with_the_claim_of_its_request(store: StateStore) -> None:
    assert await store.put_project(project(), event(), claim=claim()) is None
    assert await store.claim_request(claim()) == claim()
    assert [kept.event_type for kept in await all_events(store)] == ["project.created"]


async def test_a_request_that_was_claimed_changes_no_project(store: StateStore) -> None:
    await store.put_project(project())
    await store.claim_request(claim())
    await store.set_request_outcome("r1", "run")
    frozen = replace(project(), mode=ProjectMode.FROZEN)
    kept = await store.put_project(frozen, event(), claim=claim(digest="other"))
    assert kept == replace(claim(), outcome="run")
    assert await store.projects() == [project()]
    assert await all_events(store) == []


async def test_outcomes_are_kept_with_the_events_that_tell_them(store: StateStore) -> None:
    await store.claim_request(claim())
    await store.append_events(event("runtime.started"), outcomes={"r1": "run", "unknown": "x"})
    assert await store.claim_request(claim()) == replace(claim(), outcome="run")
    assert len(await all_events(store)) == 1


async def test_events_of_some_runs_are_found(store: StateStore) -> None:
    await store.append_events(*(event("runtime.started", run_id=run) for run in "abc"))
    found, cursor = await store.list_events(
        EventFilter(event_types=("runtime.",), run_ids=("c", "a")), cursor=0, limit=10
    )
    assert [kept.run_id for kept in found] == ["a", "c"]
    assert cursor == 3


async def test_audit_records_and_events_are_listed_apart_and_by_projects(store: StateStore) -> None:
    kinds = [("audit.intent", "web"), ("runtime.ready", "web"), ("audit.outcome", "api"), ("x", "")]
    for event_type, project_id in kinds:
        await store.append_events(
            Event(event_type=event_type, time=datetime.now(UTC), project_id=project_id)
        )

    async def types(**selected: Any) -> list[str]:
        found, _ = await store.list_events(EventFilter(**selected), cursor=0, limit=9)
        return [event.event_type for event in found]

    assert await types() == ["runtime.ready", "x"]
    assert await types(audit=True) == ["audit.intent", "audit.outcome"]
    assert await types(projects=frozenset({"web"})) == ["runtime.ready"]
    assert await types(projects=frozenset({"web"}), audit=True) == ["audit.intent"]
    assert await types(projects=frozenset()) == []

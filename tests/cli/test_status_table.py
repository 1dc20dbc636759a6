"""What `att status --watch` shows on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

import att_client
from att_client import DesiredState, RuntimeState
from att_client.cli.status_table import Board, memory_text

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def runtime(project_id: str, state: RuntimeState, **fields: object) -> att_client.Runtime:
    return att_client.Runtime(
        project_id=project_id,
        state=state,
        desired_state=DesiredState.RUNNING,
        **fields,  # type: ignore[arg-type]  # a test names fields of Runtime
    )


def shown(board: Board) -> list[str]:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(board.table(NOW))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def accept(board: Board, *runtimes: att_client.Runtime, deleted: tuple[str, ...] = ()) -> None:
    board.accept(
        att_client.WatchRuntimesResponse(runtimes=[*runtimes], deleted_project_ids=[*deleted])
    )


def test_a_running_app_is_shown_with_what_it_uses_and_says() -> None:
    board = Board()
    usage = att_client.RuntimeUsage(cpu_percent=12.4, resident_memory_bytes=64 << 20)
    ready = runtime(
        "web",
        RuntimeState.READY,
        start_time=NOW - timedelta(seconds=65),
        ready_time=NOW,
        restarts=2,
        usage=usage,
        release_id="0123456789abcdef",
    )
    accept(board, ready)
    board.last_lines["web"] = "tick 7"
    assert shown(board)[1] == "web ready yes 1 min 5 s 2 12 % 64 MiB 0123456789ab tick 7"


def test_an_app_that_waits_says_until_when_and_why() -> None:
    board = Board()
    waiting = runtime(
        "web",
        RuntimeState.BACKOFF,
        reason="liveness_failed",
        restarts=1,
        next_restart_time=NOW + timedelta(seconds=4),
        start_time=NOW - timedelta(seconds=65),
    )
    accept(board, waiting)
    assert shown(board)[1] == "web backoff, 4.0 s (liveness_failed) 1"


def test_an_app_that_is_not_healthy_says_why() -> None:
    board = Board()
    accept(
        board,
        runtime(
            "web",
            RuntimeState.RUNNING,
            healthy=False,
            health_reason="port_owned_by_other_process",
            start_time=NOW,
        ),
    )
    assert "no (port_owned_by_other_process)" in shown(board)[1]


def test_a_deleted_project_leaves_the_table() -> None:
    board = Board()
    accept(board, runtime("a", RuntimeState.STOPPED), runtime("b", RuntimeState.STOPPED))
    accept(board, deleted=("a",))
    assert [line.split()[0] for line in shown(board)[1:]] == ["b"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1 << 10, "1 KiB"), (63 << 20, "63 MiB"), (5 << 29, "2.5 GiB")],
)
def test_sizes_are_shown_in_their_unit(size: int, text: str) -> None:
    assert memory_text(size) == text

"""The benchmarks measure what they say, and hide no loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import compare, report
from benchmarks.figures import ATT, Figure
from benchmarks.subjects.floor import FLOOR, Floor
from benchmarks.subjects.subject import NotMeasurable


def _figure(mine: float, theirs: float, **more: object) -> Figure:
    figure = Figure(name="capture", unit="s", **more)  # type: ignore[arg-type]  # of the tests below
    figure.add(ATT, mine)
    figure.add("pm2", theirs)
    return figure


@pytest.mark.parametrize(
    ("mine", "theirs", "higher", "ahead"),
    [(2, 1, False, ["pm2"]), (1, 2, False, []), (2, 1, True, []), (1, 2, True, ["pm2"])],
)
def test_who_is_ahead_is_named(mine: float, theirs: float, higher: bool, ahead: list[str]) -> None:
    assert _figure(mine, theirs, higher_is_better=higher).ahead_of_it == ahead


def test_marks_are_held_or_missed_as_numbers_or_as_ratios() -> None:
    assert _figure(2, 1, limit=2.0).held is True
    assert _figure(2, 1, limit=1.9).held is False
    assert _figure(2, 1, limit=1.9, limit_of="pm2").held is False
    assert _figure(2, 1, limit=1.9, limit_of="pm2", higher_is_better=True).held is True
    assert _figure(2, 1, limit=1.9, limit_of="cat").held is None
    assert _figure(2, 1).held is None
    assert _figure(2, 1, limit=1.5, limit_of="pm2", allowance=0.5).held is True
    assert _figure(2, 1, limit=1.5, limit_of="pm2", allowance=0.4).held is False


def test_a_loss_and_a_missing_figure_stand_in_the_report() -> None:
    figure = _figure(2, 1, mark="< 1 s", limit=1)
    figure.missing["JetStream"] = "lost lines"
    page = report.markdown([figure], {"load": "0.1"})
    assert "| capture | 2 s | pm2 1 (2.00 ×) | < 1 s **missed** | pm2 | 1 |" in page
    assert "- capture: JetStream lost lines." in page


async def test_the_floor_keeps_and_gives_every_line(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    assert await compare.received_rate(floor, 1000, 2) > 0
    (captured, _) = await compare.capture([floor], lines=1000, rounds=1)
    assert set(captured.peers) == {FLOOR}
    (batches, singles) = await compare.read_back([floor], lines=1000, rounds=1)
    assert (len(batches.peers[FLOOR]), len(singles.peers[FLOOR])) == (1, 1)
    assert await floor.search("refused") > 0


async def test_what_a_subject_cannot_do_is_no_figure_but_a_reason(tmp_path: Path) -> None:
    for figure in await compare.stalled([Floor(tmp_path)], lines=1000, rounds=2):
        assert figure.peers == {}
        assert figure.missing == {FLOOR: "has no daemon"}
    with pytest.raises(NotMeasurable):
        Floor(tmp_path).daemon()

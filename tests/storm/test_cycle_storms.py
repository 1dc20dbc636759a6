"""The short forms of `make storm-cycles`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.storm.cycles import Storm
from tests.storm.outages import campaign


def test_a_short_storm_leaves_no_cycle_doubled_lost_or_half_done(tmp_path: Path) -> None:
    report = asyncio.run(Storm(tmp_path, projects=2, cycles=8, seed=20261123).run())
    assert not report.wrong, report.text()
    assert report.done["kills of the server"] > 0
    assert report.found["merges"] >= report.found["good_live"] > 0


def test_outages_of_remote_and_forge_roll_nothing_back(tmp_path: Path) -> None:
    report = asyncio.run(campaign(tmp_path, outages=30, seed=20261123))
    assert not report.wrong, report.text()
    assert report.failed.total() >= 30

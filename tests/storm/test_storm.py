"""The short form of `make storm-runtime`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.storm.runtime import Storm


def test_a_short_storm_leaves_nothing_lost_doubled_or_wrong(tmp_path: Path) -> None:
    storm = Storm(tmp_path, projects=8, seconds=8, seed=20261123, starts=12)
    report = asyncio.run(storm.run())
    assert not report.wrong, report.text()
    assert report.found["runs"] > 8, report.text()
    assert report.found["orphans"] == 0

"""The short form of `make soak-logs`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.storm.logs import LogStorm


def test_a_short_storm_loses_and_doubles_no_line(tmp_path: Path) -> None:
    storm = LogStorm(tmp_path, seconds=8, rate=6_000_000, seed=20261130)
    report = asyncio.run(storm.run())
    assert report.good, report.text
    assert report.found["numbers"] > 1000
    assert report.found["runs"] > 1

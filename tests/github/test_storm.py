"""The short form of the storm at GitHub, and what is left to be done after one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from att_client import CycleOutcome
from att_server.core.cycles.worker import CLEANUP_TRIES
from tests.contract.git_projects import make_project
from tests.github.fake import FakeGitHub, Fault, Run
from tests.github.hub import BASE, server_settings, write_server_settings
from tests.github.storm import campaign, carried_out


def test_a_short_storm_leaves_nothing_doubled_lost_or_half_done(tmp_path: Path) -> None:
    report = asyncio.run(campaign(tmp_path, cycles=4, seed=20261130))
    assert not report.wrong, report.text()
    assert report.failed.total() > 10
    assert report.ended["SUCCEEDED"]


async def test_what_github_does_not_take_when_a_cycle_ends_is_removed_later(tmp_path: Path) -> None:
    project = await make_project(tmp_path)
    project.commit_on_remote({"att.toml": BASE.encode()})
    state = tmp_path / "server"
    state.mkdir(mode=0o700)
    away = CLEANUP_TRIES + 2
    with FakeGitHub(project.remote) as fake:
        write_server_settings(state, server_settings(fake))
        fake.runs = lambda _: [Run(conclusion="failure")]
        fake.fails("PATCH", "/pulls/1", *[Fault(status=502)] * away)
        (cycle,) = await carried_out(project, fake, state, 1, random.Random(1))
        assert cycle.outcome is CycleOutcome.FAILED
        assert fake.pulls[1].state == "closed"
        assert fake.at(fake.pulls[1].head) == ""
        assert fake.count("PATCH", "/pulls/1") == away + 1
        assert len(fake.comments[1]) == 1
        assert fake.wrong == []

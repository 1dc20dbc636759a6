"""The short form of `make storm-self`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.own.clone import GOOD, KINDS, ROOT
from tests.own.storm import Storm


def test_every_way_to_change_the_server_finds_what_it_changes() -> None:
    for name, kind in KINDS.items():
        source = (ROOT / kind.path).read_text()
        assert source.count(kind.found) == 1, name
        if name != "syntax-error":
            changed = kind.changed.replace("{name}", "change_1")
            compile(source.replace(kind.found, changed), kind.path, "exec")


@pytest.mark.timeout(900)  # a dozen starts of a server, which is slow on a busy machine
def test_a_good_release_is_live_and_a_bad_one_undone_while_an_app_goes_on(tmp_path: Path) -> None:
    calm = (3600.0, 3600.0)  # kills are in the long form: how many a busy machine bears varies
    storm = Storm(tmp_path, seed=20261130, kinds=("crashes", GOOD), pause=calm, ready=120)
    asyncio.run(storm.run())
    assert not storm.wrong, storm.text()
    assert storm.done["good succeeded"] == 1
    assert storm.done["crashes rolled_back"] == 1

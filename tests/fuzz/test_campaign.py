"""The short form of `make fuzz`."""

from __future__ import annotations

from att_server.rpc.access import Rule
from tests.fuzz.campaign import campaign, ground
from tests.rpc.conftest import METHODS

CALLS_PER_RPC = 12


async def test_no_caller_gets_more_than_is_theirs_and_no_request_harms() -> None:
    with ground() as made:
        tally = await campaign(made, 7, calls=CALLS_PER_RPC * len(METHODS), seconds=None)
    assert tally.denied > 0
    assert tally.right_done > 0
    assert all(Rule.of(method).role for method in METHODS.values())

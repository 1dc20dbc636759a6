"""A host for every test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from att_server.adapters.supervisor_client import SupervisorDriver
from tests.supervisor.host import Host, Listener, new_host


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
async def driver(host: Host, listener: Listener) -> AsyncIterator[SupervisorDriver]:
    """A driver with one project, `app`."""
    made = await host.opened("app", listener=listener)
    yield made
    await made.aclose()

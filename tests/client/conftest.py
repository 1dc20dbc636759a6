"""A scripted server and a client of it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import att_client
from tests.client.stub_server import StubServer


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="att-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def stub(directory: Path) -> AsyncIterator[StubServer]:
    async with StubServer(directory / "att.sock") as server:
        yield server


@pytest.fixture
async def att(stub: StubServer) -> AsyncIterator[att_client.Client]:
    async with att_client.connect(stub.target) as client:
        yield client

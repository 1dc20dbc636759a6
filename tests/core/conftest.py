"""A server on fakes, with one project."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.core.fake_server import Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with server.serving():
        await server.create()
        yield server

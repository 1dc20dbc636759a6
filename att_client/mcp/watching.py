"""Tells when a resource has changed. Nobody's reading costs the app or the server anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import att_client
from att_client import LogAnchor
from att_client.mcp.resources import Address

_REST = 1.0
"""Seconds between two changes that are told: a log may change a thousand times in one."""


async def changes(att: att_client.Client, where: Address) -> AsyncIterator[None]:
    """Yields once it watches, and then after each change, of many in a short time once.

    What changes after the first is told in any case. Waits over outages of the server.
    Ends where nothing can change any more. Raises AttError, such as for a project that
    there is not.
    """
    match where.family.kind:
        case "logs":
            source = _log(att, where.variables["id"])
        case "runtime":
            source = _runtimes(att, where.variables["id"])
        case "cycle":
            source = _cycle(att, where.variables["id"])
        case "releases":
            source = _events(att, where.variables["id"], "release.", "deploy.")
        case _:
            source = _runtimes(att)
    rest = 0.0
    async for _ in source:
        yield
        await asyncio.sleep(rest)
        rest = _REST


async def list_changes(att: att_client.Client) -> AsyncIterator[None]:
    """Yields once it watches, and then when a project was created or deleted."""
    async for _ in _events(att, "", "project.created", "project.deleted"):
        yield


async def _log(att: att_client.Client, project: str) -> AsyncIterator[None]:
    cursor = (await att.logs.read(project, anchor=LogAnchor.END, limit=1)).cursor
    yield
    # A call for each change: what is not read meanwhile is not sent either, however
    # much the app prints.
    while True:
        follow = att.logs.follow(project, cursor=cursor)
        try:
            async for batch in follow.batches():
                if batch.records:
                    cursor = batch.end_cursor
                    break
        finally:
            await follow.aclose()
        yield


async def _runtimes(att: att_client.Client, *projects: str) -> AsyncIterator[None]:
    revision = (await anext(att.runtimes.list(page_size=1).pages())).revision
    yield
    async for _ in att.runtimes.watch(project_ids=projects, after_revision=revision):
        yield


async def _cycle(att: att_client.Client, cycle_id: str) -> AsyncIterator[None]:
    cycle = await att.bootstrap.get(cycle_id)
    yield
    async for _ in att.bootstrap.watch(cycle_id, after_revision=cycle.revision):
        yield


async def _events(att: att_client.Client, project: str, *types: str) -> AsyncIterator[None]:
    last = await att.events.list(project_id=project, page_size=1, tail=True)
    yield
    async for _ in att.events.watch(project_id=project, event_types=types, cursor=last.cursor):
        yield

"""Runs an app with the SDK: python examples/python_sdk_run.py PROJECT DIRECTORY WORD..."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import att_client


async def main(project_id: str, directory: str, command: Sequence[str]) -> int:
    """Registers the app, starts it, prints what it prints and returns its exit code."""
    async with att_client.connect() as att:
        path = os.path.abspath(directory)
        await att.projects.create(project_id, path=path, command=command)
        end = await att.logs.read(project_id, anchor=att_client.LogAnchor.END)
        await att.runtimes.start(project_id)
        async for line in att.logs.follow(project_id, cursor=end.cursor, until_exit=True):
            print(line)
        runtime = await att.runtimes.get(project_id)
    exited = runtime.exit
    return 1 if exited is None or exited.exit_code is None else exited.exit_code


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:])))
    except att_client.AttError as error:
        sys.exit(f"{error.reason}: {error.message}")

"""Follows an app's log with the SDK: python examples/python_sdk_follow.py PROJECT."""

from __future__ import annotations

import asyncio
import sys

import att_client


async def main(project_id: str) -> None:
    """Prints every line from the beginning, with its cursor, until the app has ended."""
    async with att_client.connect() as att:
        async for item in att.logs.follow(project_id, until_exit=True):
            match item:
                case att_client.LogLine():
                    print(f"{item.sequence} {item.stream} {item}")
                case att_client.LogGap():
                    print(f"{item.count} records are missing: {item.reason}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

"""SystemAppUsers: the users of this host, as the server's own settings allow them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from att_server.adapters.server_settings import SERVER_FILE, ServerSetting
from att_server.adapters.zygote_client import ZygoteClient
from att_server.core.app_users import run_as_not_possible
from att_server.core.errors import AttError
from att_server.core.ports import Clock
from att_server.supervisor.user import NoUser, find_user

ANSWERS_WITHIN = 10.0
"""Seconds; a directory may lie on another host."""
_KEY = "run_as_users"


class SystemAppUsers:
    """Implements `AppUsers`: the key `run_as_users` of `settings.toml`, and what the host says.

    What a user reaches, a process of the zygote finds out that becomes that user: modes
    alone do not tell, where there are access control lists or network file systems.
    """

    def __init__(self, zygote: ZygoteClient, state_dir: Path, clock: Clock) -> None:
        """zygote: may have other users; stays the caller's to close."""
        self._zygote = zygote
        self._file = state_dir / SERVER_FILE
        self._allowed: ServerSetting[Sequence[str] | None] = ServerSetting(
            state_dir, clock, _parsed, None
        )

    async def check(self, run_as: str, directory: Path | None = None) -> None:
        """See `AppUsers`."""
        allowed = await self._allowed.value()
        if not run_as:
            if allowed is not None and not await to_thread(_holds, allowed, os.geteuid()):
                raise self._not_allowed(run_as, allowed)
            return
        found = await self._reach(run_as, directory)
        if "user_not_found" in found:
            raise run_as_not_possible(
                run_as,
                "user_not_found",
                f"There is no user {run_as!r} on the server's host. Create the user, or correct "
                "`run_as`.",
            )
        uid = int(found["uid"])
        if allowed is not None and not await to_thread(_holds, allowed, uid):
            raise self._not_allowed(run_as, allowed)
        if "no_right" in found:
            raise run_as_not_possible(
                run_as,
                "no_right",
                f"The server may not run anything as the user {run_as!r}: {found['no_right']}. Run "
                "the server as root, or with these capabilities, or take `run_as` back.",
            )
        if allowed is None and os.geteuid() not in (0, uid):
            # Whoever may start apps would be given what only the server has.
            raise self._not_allowed(run_as, None)
        if "directory_unreachable" in found:
            raise run_as_not_possible(
                run_as,
                "directory_unreachable",
                f"The user {run_as!r} cannot enter {str(directory)!r}: "
                f"{found['directory_unreachable']}. Let that user into it and all directories "
                "above it (chmod o+x, or an access control list), or move the app elsewhere; what "
                "lies in the server's state directory is closed to other users.",
            )

    async def _reach(self, run_as: str, directory: Path | None) -> Mapping[str, Any]:
        there = "" if directory is None else str(await to_thread(_closest, directory))
        request = {"job": "reach", "run_as": run_as, "directory": there}
        answer = bytearray()
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                with ours:
                    with theirs:
                        ours.setblocking(False)
                        await self._zygote.submit(request, theirs)
                    loop = asyncio.get_running_loop()
                    while data := await loop.sock_recv(ours, 64 * 1024):
                        answer += data
            found: Mapping[str, Any] = json.loads(answer)
        except (OSError, ValueError) as error:  # a TimeoutError too, or it was killed
            raise _not_found_out(run_as, error) from error
        if "refused" in found:
            raise _not_found_out(run_as, found.get("message"))
        return found

    def _not_allowed(self, run_as: str, allowed: Sequence[str] | None) -> AttError:
        who = f"as the user {run_as!r}" if run_as else "as the server's own user, without `run_as`"
        listed = "it names none" if allowed is None else f"it names {', '.join(allowed) or 'none'}"
        return run_as_not_possible(
            run_as,
            "user_not_allowed",
            f"Nothing may be run {who}: `{_KEY}` in {self._file} does not name it; {listed}. Use a "
            "user that it names, or have one added.",
        )


def _not_found_out(run_as: str, why: object) -> AttError:
    return run_as_not_possible(
        run_as,
        "no_right",
        f"It cannot be found out what the user {run_as!r} may do: {why}. Call again.",
    )


def _closest(directory: Path) -> Path:
    """The directory, or the closest above it that there is."""
    return next(
        (each for each in (directory, *directory.parents) if os.path.exists(each)), directory
    )


def _holds(names: Sequence[str], uid: int) -> bool:
    for name in names:
        try:
            if find_user(name).uid == uid:
                return True
        except NoUser:
            continue
    return False


def _parsed(document: Mapping[str, Any]) -> Sequence[str] | None:
    from att_server.adapters import app_users_schema

    return app_users_schema.run_as_users(document)

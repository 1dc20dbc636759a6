"""Who listens on a port of this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from att_server.adapters.probes.listeners import listeners
from att_server.supervisor.processes import Process, below, everyone, find

_MAX_REMEMBERED = 1_000
_SUPERVISOR = b"att-supervisor"

_Key = tuple[int, int, str, int]
"""Pid and start of a main process, and an address."""


class Owned(Enum):
    """Whose the listening sockets are that a connection would reach."""

    BY_APP = auto()
    BY_OTHER = auto()
    BY_NOBODY = auto()


class PortOwners:
    """Knows which processes listen where.

    Finding the owner of a listening socket costs milliseconds, so it is
    remembered by the file that it is; to see that it is still there costs next
    to nothing.
    """

    def __init__(self) -> None:
        self._found: dict[_Key, dict[str, str]] = {}

    def remembered(self, pid: int, address: str, port: int) -> bool:
        """Whether it is known without a search that `owned` would be BY_APP."""
        main = find(pid)
        found = None if main is None else self._found.get(_key(main, address, port))
        return found is not None and all(_links_to(file, name) for file, name in found.items())

    def owned(self, pid: int, run_id: str, address: str, port: int) -> Owned:
        """Who listens on the port so that `address` reaches it.

        pid, run_id: the app's main process and its run. BY_APP: every socket
        that shares the port is held by a process of its tree. Raises OSError.
        """
        sockets = _listening(address, port)
        if not sockets:
            return Owned.BY_NOBODY
        main = find(pid)
        held = None if main is None else _held(main, run_id, sockets)
        if main is None or held is None:
            return Owned.BY_OTHER
        if held:
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            self._found[_key(main, address, port)] = held
        return Owned.BY_APP


def _key(main: Process, address: str, port: int) -> _Key:
    return main.pid, main.ticks, address, port


def _listening(address: str, port: int) -> frozenset[str]:
    """The sockets that a connection to the address may reach. Raises OSError.

    Of those that have the port, the kernel takes the closest match: the address
    itself, then the wildcard of its family, then the one of both families.
    """
    by_address: dict[str, set[str]] = {}
    for listener, name in listeners(port):
        by_address.setdefault(listener, set()).add(name)
    for candidates in _reaching(address):
        sockets = {name for form in candidates for name in by_address.get(form, ())}
        if sockets:
            return frozenset(sockets)
    return frozenset()


def _reaching(address: str) -> Iterator[tuple[str, ...]]:
    """The addresses, closest first, whose listeners are reached at `address`."""
    if isinstance(ip_address(address), IPv4Address):
        yield address, f"::ffff:{address}"
        yield ("0.0.0.0",)  # noqa: S104 - it is looked for, not bound
    else:
        yield (address,)
    yield ("::",)


def _held(main: Process, run_id: str, sockets: frozenset[str]) -> dict[str, str] | None:
    """Files below /proc by which the app's tree holds all the sockets; None: it does not.

    Empty if that cannot be known: a process that hides its files, such as one
    with capabilities, can be proven neither owner nor stranger.
    """
    left = set(sockets)
    held: dict[str, str] = {}
    hidden = False
    seen: set[int] = set()
    for pid in _tree(main, run_id):
        if pid in seen:
            continue
        seen.add(pid)
        try:
            for file, name in _files(pid):
                if name in left:
                    left.discard(name)
                    held[file] = name
        except PermissionError:
            hidden = True
        if not left:
            return held
    return {} if hidden else None


def _files(pid: int) -> Iterator[tuple[str, str]]:
    """Raises PermissionError."""
    directory = f"/proc/{pid}/fd"
    with suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(directory):
            file = f"{directory}/{number}"
            with suppress(FileNotFoundError, ProcessLookupError):
                yield file, os.readlink(file)


def _links_to(file: str, name: str) -> bool:
    try:
        return os.readlink(file) == name
    except OSError:
        return False


def _tree(main: Process, run_id: str) -> Iterator[int]:
    """The pids of the app's processes, likely owners first; one may come twice.

    Those that left its main process are children of its supervisor, or carry
    the id of the run.
    """
    yield main.pid
    yield from (process.pid for process in below(main.pid))
    if _read(f"/proc/{main.parent}/comm").strip() == _SUPERVISOR:
        yield from (process.pid for process in below(main.parent))
    if run_id:
        mark = f"ATT_RUN_ID={run_id}".encode()
        for pid in everyone():
            if mark in _read(f"/proc/{pid}/environ").split(b"\0"):
                yield pid


def _read(path: str) -> bytes:
    """What a file below /proc holds; empty if its process is gone or another user's."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""

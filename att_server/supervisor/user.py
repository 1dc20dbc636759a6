"""The users of this host, and how a process becomes one of them for good.

A process that has become another user has nothing of the one it was: no real,
effective or saved id, no group, and no capability, not even one that would be
handed on to what it executes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_RIGHTS = {"CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}
"""By number in capabilities(7): to become another user, and to end what then runs."""
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class NoUser(LookupError):
    """This host knows no such user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user as the host knows it; groups: all, the primary one (gid) among them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def ours(self) -> bool:
        """Whether this process runs as that user already."""
        return self.uid == os.geteuid()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a login of the user would find."""
        found = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}
        return {name: value for name, value in found.items() if value}


def find_user(name: str) -> User:
    """The user with this name or number. Raises NoUser."""
    try:
        number = int(name) if name.isascii() and name.isdecimal() else None
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError, ValueError) as error:
        raise NoUser(f"there is no user {name!r}") from error
    return User(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir,
        shell=entry.pw_shell,
    )


def lacking_rights(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """The capabilities that a process lacks to run others as another user, and to end them.

    status: the file of the process below /proc.
    """
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return tuple(name for name, bit in _RIGHTS.items() if not held >> bit & 1)
    return tuple(_RIGHTS)


def become(user: User) -> None:
    """Makes this process, which has one thread, the user's. Raises OSError.

    Without effect where it is that already.
    """
    if user.ours:
        return
    # An ambient capability would outlive the change between two users other than root.
    if _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        if code != errno.EINVAL:  # a kernel without them
            raise OSError(code, os.strerror(code))
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if user.uid != 0:
        _drop_capabilities()
    if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.gid,) * 3:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _drop_capabilities() -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    none = bytes(6 * 4)  # effective, permitted and inheritable, in two halves
    if _libc.capset(header, none) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

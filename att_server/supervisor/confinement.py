"""What binds a process of an app before its first instruction, so with all that it starts."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass

from att_server.supervisor.cgroup import Cgroup
from att_server.supervisor.limits import Limits
from att_server.supervisor.start_failure import StartFailed
from att_server.supervisor.user import NoUser, User, become, find_user


@dataclass(frozen=True, slots=True)
class Confinement:
    """Limits (kind, soft and hard one each), the control group, and the user, if another one."""

    limits: Sequence[tuple[int, int, int]]
    cgroup: Cgroup | None
    user: User | None

    @classmethod
    def by(cls, limits: Limits, cgroup: Cgroup | None, run_as: str) -> Confinement | None:
        """None if nothing binds it. Raises StartFailed for what this process may not give.

        run_as: the name or number of a user; empty: our own.
        """
        user = _user(run_as) if run_as else None
        bounds = []
        if limits.open_files is not None:
            _check(resource.RLIMIT_NOFILE, "open_files", limits.open_files)
            bounds.append((resource.RLIMIT_NOFILE, limits.open_files, limits.open_files))
        if limits.cpu_time is not None:
            # At the first, SIGXCPU says what it is; at the second the kernel kills.
            seconds = math.ceil(limits.cpu_time)
            _check(resource.RLIMIT_CPU, "cpu_time", seconds + 1)
            bounds.append((resource.RLIMIT_CPU, seconds, seconds + 1))
        bound = bounds or cgroup is not None or user is not None
        return cls(bounds, cgroup, user) if bound else None

    def bound(self) -> None:
        """Binds this process by the limits and the group. Raises OSError."""
        if self.cgroup is not None:
            self.cgroup.add(0)
        for kind, soft, hard in self.limits:
            resource.setrlimit(kind, (soft, hard))

    def become_user(self) -> None:
        """Makes this process the user's, which nothing takes back. Raises OSError."""
        if self.user is not None:
            become(self.user)

    def enter(self, directory: str) -> None:
        """Enters it as the user would, on the whole way from the root. Raises OSError."""
        if self.user is not None:
            os.chdir(directory)

    def failure(self, stage: str, code: int, directory: str) -> StartFailed:
        """Why a process did not get through one of the above."""
        cause = os.strerror(code)
        name = "" if self.user is None else self.user.name
        if stage == "become_user":
            return StartFailed("no_right", f"it cannot be run as the user {name!r}: {cause}")
        if stage == "enter":
            return StartFailed(
                "directory_unreachable",
                f"{directory}: the user {name!r} that it is to run as cannot enter it: {cause}",
            )
        return StartFailed("start_error", f"its limits cannot be set: {cause}")


def _user(run_as: str) -> User | None:
    try:
        user = find_user(run_as)
    except NoUser as error:
        raise StartFailed("user_not_found", f"{error}, whom it is to run as") from error
    return user


def _check(kind: int, name: str, asked: int) -> None:
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY and asked > most:
        raise StartFailed(
            "start_error",
            f"the limit {name} is {asked}, but ATT itself may use {most} at most: "
            "lower the limit, or raise that of the server",
        )

"""`make fuzz`: every rpc of a live server, by every kind of caller, with every kind of request.

`python -m tests.fuzz.campaign --seconds 120 --seed 1`. Ends with an AssertionError at the
first thing that must not be, and prints what was done. The same seed makes the same requests.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc
import psutil

import att_client
from att_client.example import repository
from att_server.core.errors import Reason
from att_server.core.identity import Caller, Role
from att_server.rpc.access import Rule
from tests.fuzz import shipping
from tests.fuzz.requests import arbitrary, damaged, likely
from tests.fuzz.watched_server import Tasks
from tests.rpc.conftest import METHODS, Wire, bearer, connect, read_refusal
from tests.rpc.test_auth import NO_BOUNDARY
from tests.server_process import PATIENCE, wait_until

OWN, HIDDEN = "web", "hidden"
DEADLINE = 3.0
MOST_MEMORY = 96 << 20
MOST_DESCRIPTORS = 64
MOST_TASKS = 32
LEAST_RIGHT = 0.3

NEVER = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS)
REFUSED = (Reason.PERMISSION_DENIED, Reason.UNAUTHENTICATED, Reason.RATE_LIMITED)
BEFORE_ACCESS = (Reason.MALFORMED_MESSAGE, Reason.FIELD_INVALID)
"""What a request is refused for that cannot even be read."""

# What these begin goes on for seconds. They are made right beside: `shipping.py`.
SHIPPED = frozenset({"StartCycle", "RollbackRelease", "DecideCycle", "DeleteProject"})
MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """A kind of caller. caller: None: nobody that is let in."""

    name: str
    caller: Caller | None
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Tally:
    """What was done and how it ended."""

    calls: int = 0
    right: int = 0
    right_done: int = 0
    denied: int = 0
    shipped: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        share = self.right_done / max(1, self.right)
        ends = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common())
        shipped = ", ".join(f"{name} {count}" for name, count in sorted(self.shipped.items()))
        return (
            f"{self.calls} calls, {self.right} of them meant to be right ({share:.0%} done), "
            f"{self.denied} denied as they had to be; done beside: {shipped}; {ends}"
        )


class Ground:
    """A server, two projects, and files outside that nobody may touch."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.tasks = Tasks(place / "tasks")
        self.server = self.tasks.server(place / "s")
        self.outside = place / "outside"
        self.canary = place / "canary"
        self.callers: list[Who] = []
        self.tokens: dict[str, str] = {}
        """By role: of callers who are refused next to nothing."""

    def texts(self) -> list[str]:
        """What would run something, or reach what lies outside, where it is believed."""
        run, secret = f"touch {self.canary}", f"{self.outside}/secret"
        return [
            *(f"$({run})", f"; {run} #", f"`{run}`", f"| {run}", f"\n{run}\n"),
            *(f"--upload-pack={run}", f"ext::sh -c '{run}'", f"--output={self.canary}"),
            *(secret, f"file://{secret}", "../outside/secret", "../../outside", ".git/config"),
            *(".GIT/hooks/pre-commit", ".git\u200c/x", "HEAD@{1 year ago}", ":/text", "a..b"),
            *("refs/heads/x.lock", "0" * 40, "[::ffff:169.254.169.254]:80", "0x7f.1:80"),
            *("LD_PRELOAD", "PATH", "GIT_SSH_COMMAND", "A=B", "(a+)+$", "\\x00", "\ud7ff"),
        ]

    async def prepare(self) -> None:
        """Projects, one of them with a running app and one with releases; callers of all kinds."""
        self.outside.mkdir()
        (self.outside / "secret").write_text("untouched")
        for name in (OWN, HIDDEN):
            repository.make_repository(self.place / name)
        await asyncio.to_thread(shipping.make_repository, self.place)
        async with att_client.connect(self.server.target) as att:
            for name in (OWN, HIDDEN, shipping.SHIP):
                await att.projects.create(name, path=self.place / name)
            await att.runtimes.start(OWN)
        self.callers.append(
            Who(name="socket", caller=Caller(principal="local", role=Role.OPERATOR))
        )
        for role in Role:
            for projects in (None, frozenset({OWN})):
                token = self._token(
                    f"{role}-{'all' if projects is None else 'one'}", role, projects
                )
                self.callers.append(
                    Who(
                        name=f"{role}{'' if projects is None else ' of one'}",
                        caller=Caller(principal="", role=role, projects=projects),
                        metadata=bearer(token),
                    )
                )
        for role in (Role.OPERATOR, Role.APPROVER):
            self.tokens[role] = self._token(f"ship-{role}", role, None)
        self.callers.append(Who(name="bad token", caller=None, metadata=bearer("att_" + "0" * 90)))
        self.callers.append(
            Who(name="basic", caller=None, metadata=(("authorization", "Basic x"),))
        )

    def _token(self, name: str, role: Role, projects: frozenset[str] | None) -> str:
        limits = [] if projects is None else ["--project", *projects]
        words = ["token", "create", "--state-dir", str(self.server.state_dir), "--role", role]
        made = subprocess.run(
            [sys.executable, "-m", "att_server", *words, "--name", name, *limits],
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout.strip()

    def untouched(self) -> Mapping[str, str]:
        """What lies outside, by digest."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.outside.rglob("*"))
            if path.is_file()
        }


class Campaign:
    """Calls the server until the time or the calls are up."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        self._seeded = random.Random(seed)
        self._rules = {name: Rule.of(method) for name, method in METHODS.items()}
        self.tally = Tally()

    async def run(self, *, calls: int | None, seconds: float | None) -> None:
        """Until one of the two is reached. Raises AssertionError."""
        deadline = time.monotonic() + (seconds or 1e9)
        rpcs = sorted(METHODS)
        async with connect(self._ground.server.target, NO_BOUNDARY) as wire:
            while time.monotonic() < deadline and self.tally.calls < (calls or 1 << 60):
                await self._call(wire, rpcs[self.tally.calls % len(rpcs)])

    async def _call(self, wire: Wire, rpc: str) -> None:
        seeded, ground = self._seeded, self._ground
        who = seeded.choice(ground.callers)
        project_id = seeded.choice([OWN, OWN, OWN, HIDDEN])
        right = rpc not in SHIPPED and seeded.random() < 0.4
        if right:
            request = likely(rpc, seeded, project_id, str(ground.place / project_id))
            data = request.SerializeToString()
        else:
            request = arbitrary(
                METHODS[rpc].input_type,
                seeded,
                texts=ground.texts(),
                project_ids=(OWN, HIDDEN, "absent", "../x", ""),
            )
            data = request.SerializeToString()
            if seeded.random() < 0.2:
                data, request = damaged(data, seeded), None
        code, reason = await outcome(wire, rpc, data, who)
        self.tally.calls += 1
        self.tally.outcomes[reason or code.name] += 1
        told = f"{rpc} by {who.name}: {code.name} {reason} for {data!r}"
        assert code not in NEVER, told
        assert reason or code in (
            grpc.StatusCode.OK,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ), told
        rule = self._rules[rpc]
        if who.caller is None or not who.caller.may(rule.role):
            assert reason in (*REFUSED, *BEFORE_ACCESS), told
            self.tally.denied += 1
        elif request is not None and any(
            not who.caller.sees(name) for name in rule.projects(request)
        ):
            assert code is not grpc.StatusCode.OK, told
            self.tally.denied += 1
        elif right:
            self.tally.right += 1
            self.tally.right_done += code is grpc.StatusCode.OK


async def outcome(wire: Wire, rpc: str, data: bytes, who: Who) -> tuple[grpc.StatusCode, str]:
    """How the call ends, with our reason where it is not its own deadline that ends it."""
    try:
        call = wire.call(rpc, data, timeout=DEADLINE, metadata=who.metadata)
        await asyncio.wait_for(call, PATIENCE)
    except grpc.aio.AioRpcError as error:
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        has_reason = "att-reason" in dict(error.trailing_metadata() or ())
        return error.code(), "" if late or not has_reason else read_refusal(error).reason
    return grpc.StatusCode.OK, ""


@contextmanager
def ground() -> Iterator[Ground]:
    place = Path(tempfile.mkdtemp(prefix="att-fuzz-"))
    try:
        made = Ground(place)
        with made.server:
            yield made
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def campaign(made: Ground, seed: int, *, calls: int | None, seconds: float | None) -> Tally:
    """Runs it, and checks what must hold after it. Raises AssertionError."""
    await made.prepare()
    process = psutil.Process(made.server.pid)
    untouched = made.untouched()
    running = Campaign(made, seed)
    # Caches and pools fill up first.
    await running.run(calls=2 * len(METHODS), seconds=None)
    ship = shipping.Shipping(made.server.target, made.place, made.tokens, running.tally.shipped)
    await ship.round(0)
    memory, descriptors = process.memory_info().rss, process.num_fds()
    tasks = made.tasks.count(made.server)
    over = asyncio.Event()
    ships = asyncio.create_task(_ships(ship, over))
    served = asyncio.create_task(_another(made))
    await running.run(calls=calls, seconds=seconds)
    over.set()
    await ships
    served.cancel()
    await asyncio.gather(served, return_exceptions=True)
    assert served.cancelled(), "another client was not served"
    assert process.is_running()
    async with att_client.connect(made.server.target) as att:
        async for runtime in att.runtimes.list():
            await att.runtimes.stop(runtime.project_id, grace=timedelta())
        assert [project.project_id async for project in att.projects.list()]
    wait_until(lambda: process.num_fds() < descriptors + MOST_DESCRIPTORS, "closed descriptors")
    wait_until(lambda: made.tasks.count(made.server) < tasks + MOST_TASKS, "ended tasks")
    assert process.memory_info().rss < memory + MOST_MEMORY
    assert made.untouched() == untouched
    assert not made.canary.exists(), "something was executed"
    tally = running.tally
    assert all(tally.shipped[rpc] for rpc in SHIPPED), tally.text()
    assert tally.right_done >= LEAST_RIGHT * tally.right, tally.text()
    return tally


async def _ships(ship: shipping.Shipping, over: asyncio.Event) -> None:
    """Ships while the campaign goes on, once at least."""
    for number in range(1, MOST_ROUNDS):
        await ship.round(number)
        if over.is_set():
            return


async def _another(made: Ground) -> None:
    """A client that is served all the while; ends only with an error."""
    async with att_client.connect(made.server.target) as att:
        while True:
            await asyncio.wait_for(att.server.info(), PATIENCE)
            await asyncio.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description="Calls every rpc with every kind of request.")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with ground() as made:
        tally = asyncio.run(campaign(made, given.seed, calls=None, seconds=given.seconds))
    print(f"seed {given.seed}: {tally.text()}")


if __name__ == "__main__":
    main()

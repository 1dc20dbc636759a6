"""What is handed to the zygote becomes a supervisor, or is refused with a reason."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.zygote_client import ZygoteClient
from att_server.supervisor import processes
from att_server.supervisor.own_log import OWN_LOG
from att_server.supervisor.spec import Spec
from att_server.supervisor.state import SUPERVISORS, State
from att_server.supervisor.writer_lock import take_lock
from tests.server_process import PATIENCE
from tests.supervisor.host import Host, alive, until

SECRET = 's3cr3t "quoted" wörd\tand\nmore-than-eight'


class Job:
    """A job's socket, and what it has said."""

    def __init__(self, zygote: ZygoteClient) -> None:
        self.zygote = zygote
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

    async def begin(self, **job: object) -> None:
        with self.theirs:
            await self.zygote.submit(job, self.theirs)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.ours, data)

    async def said(self, *, until: str | None = None) -> list[Mapping[str, object]]:
        """All lines up to the end, or until one has this in it."""
        loop = asyncio.get_running_loop()
        data = b""
        async with asyncio.timeout(PATIENCE):
            while part := await loop.sock_recv(self.ours, 65536):
                data += part
                if until is not None and until.encode() in data and data.endswith(b"\n"):
                    break
        return [json.loads(line) for line in data.splitlines()]


@pytest.fixture
async def zygote() -> AsyncIterator[ZygoteClient]:
    made = ZygoteClient()
    yield made
    await made.aclose()


@pytest.fixture
async def job(zygote: ZygoteClient) -> AsyncIterator[Job]:
    made = Job(zygote)
    yield made
    made.ours.close()


def asked(host: Host, *command: str) -> Path:
    """A supervisor's directory with what it is to run."""
    directory = host.project("app") / SUPERVISORS / host.clock.new_id()
    directory.mkdir(parents=True)
    Spec(
        supervisor_id=directory.name,
        project_id="app",
        log_id=host.log_id,
        epoch=1,
        digest="",
        command=command,
        directory=str(host.work),
        env={"PATH": os.environ["PATH"]},
        grace=timedelta(seconds=1),
        probed=False,
    ).save(str(directory))
    return directory


async def test_secrets_reach_the_app_and_nothing_that_is_kept(host: Host, job: Job) -> None:
    directory = asked(
        host,
        "sh",
        "-c",
        'test "$KEY" = "$(cat wanted)" && echo "$KEY" && echo "$KEY" >&2; echo end',
    )
    (host.work / "wanted").write_text(SECRET)
    line = json.dumps({"secrets": {"KEY": SECRET}}).encode() + b"\n"
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    for at in range(0, len(line), 7):  # as it may come
        await job.send(line[at : at + 7])
        await asyncio.sleep(0)
    await job.said()

    assert host.output(stream=1) == b"***\nend\n"
    assert host.output(stream=2) == b"***\n"
    kept = [path for path in host.project("app").rglob("*") if path.is_file()]
    assert len(kept) >= 4
    for path in kept:
        for form in (SECRET, json.dumps(SECRET)[1:-1], "more-than-eight"):
            assert form.encode() not in path.read_bytes(), path


async def test_what_follows_the_secrets_is_a_command_already(host: Host, job: Job) -> None:
    directory = asked(host, "sleep", "60")
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    stop = {"id": 1, "epoch": 9, "command": "stop", "grace": 0}
    await job.send(b'{"secrets": {}}\n' + json.dumps(stop).encode() + b"\n")
    said = await job.said()
    assert any(message.get("id") == 1 and message["ok"] for message in said)
    state = State.load(str(directory))
    assert state is not None
    assert state.state == "stopped"


async def test_without_its_secrets_nothing_is_started(host: Host, job: Job) -> None:
    directory = asked(host, "touch", "started")
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    await job.send(b'{"secrets": {"KEY": "s3cr3t-')
    job.ours.shutdown(socket.SHUT_WR)
    (refusal,) = await job.said()
    assert refusal["refused"] == "failed"
    assert "did not come as a whole" in str(refusal["message"])
    assert not (host.work / "started").exists()
    own_log = (host.project("app") / OWN_LOG).read_text()
    assert 'defect where="run"' in own_log
    assert "s3cr3t-" not in own_log + json.dumps(refusal)


def _is_taken(project: Path) -> bool:
    lock = take_lock(str(project))
    if lock is not None:
        os.close(lock)
    return lock is None


async def test_a_supervisor_whose_start_does_not_come_leaves_no_trace(host: Host, job: Job) -> None:
    directory = asked(host, "touch", "started")
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    await until(lambda: _is_taken(host.project("app")), "the project is taken")
    job.ours.shutdown(socket.SHUT_WR)
    assert await job.said() == []
    assert State.load(str(directory)) is None
    assert host.records() == []
    assert not (host.project("app") / OWN_LOG).exists()
    lock = take_lock(str(host.project("app")))
    assert lock is not None
    os.close(lock)


@pytest.mark.parametrize("line", [b"[]\n", b"{\n", b"\xff\n", b"{}\n"])
async def test_a_first_line_that_is_none_is_refused(host: Host, job: Job, line: bytes) -> None:
    directory = asked(host, "true")
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    await job.send(line)
    (refusal,) = await job.said()
    assert refusal["refused"] == "failed"


async def test_a_command_that_does_not_come_is_refused(job: Job) -> None:
    await job.begin(job="command")
    await job.send(b'{"command":')
    job.ours.shutdown(socket.SHUT_WR)
    (refusal,) = await job.said()
    assert refusal["refused"] == "failed"


async def test_an_error_is_told_and_kept_without_its_secrets(host: Host, job: Job) -> None:
    directory = asked(host, "true")
    (directory / "spec.json").write_text(json.dumps({"limits": "sw0rdf1sh"}))
    await job.begin(job="run", directory=str(directory), log_id=host.log_id, boot_id="b")
    await job.send(b'{"secrets": {"KEY": "sw0rdf1sh", "OTHER": "specification"}}\n')
    (refusal,) = await job.said()
    own_log = (host.project("app") / OWN_LOG).read_text()
    for told in (own_log, json.dumps(refusal)):
        assert "is not a ***" in told
        assert "sw0rdf1sh" not in told


async def test_an_unknown_job_is_refused(job: Job) -> None:
    await job.begin(job="dance")
    assert await job.said() == [{"refused": "failed", "message": "'dance' is no job"}]


async def test_the_process_that_waits_for_a_job_is_replaced_when_killed(
    zygote: ZygoteClient, job: Job
) -> None:
    await zygote.open()
    for _ in range(3):
        waiting = await the_child(zygote.pid)
        os.kill(waiting, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while await the_child(zygote.pid) == waiting:
                await asyncio.sleep(0.005)
    await job.begin(job="dance")
    assert [message["refused"] for message in await job.said()] == ["failed"]


async def test_neither_the_zygote_nor_what_it_forks_descends_from_the_server(
    zygote: ZygoteClient,
) -> None:
    await zygote.open()
    waiting = await the_child(zygote.pid)
    below = {process.pid for process in processes.below(os.getpid())}
    assert not below & {zygote.pid, waiting}


async def test_the_zygote_and_its_child_end_when_it_is_closed(zygote: ZygoteClient) -> None:
    await zygote.open()
    pids = zygote.pid, await the_child(zygote.pid)
    await zygote.aclose()
    assert zygote.pid == 0
    assert not zygote.alive
    await until(lambda: not any(map(alive, pids)), "gone")


async def test_several_users_of_a_dead_zygote_start_one_new_one(zygote: ZygoteClient) -> None:
    await zygote.open()
    first = zygote.pid
    os.kill(first, signal.SIGKILL)
    # What it had been sent and not read is gone with it, which its users see.
    answers = await asyncio.gather(*(answer(zygote) for _ in range(8)))
    assert set(answers) <= {0, 1}
    assert await asyncio.gather(*(answer(zygote) for _ in range(8))) == [1] * 8
    assert zygote.pid != first


async def answer(zygote: ZygoteClient) -> int:
    """How many lines a job of its own says."""
    job = Job(zygote)
    await job.begin(job="dance")
    with job.ours:
        return len(await job.said())


async def the_child(pid: int) -> int:
    """The one child of a process, once it has one."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [
                p.pid for p in processes.everyone().values() if p.parent == pid and not p.zombie
            ]
            if len(found) == 1:
                return found[0]
            await asyncio.sleep(0.005)

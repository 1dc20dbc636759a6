"""Apps that run as another user than the server: the real processes, and real users."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import Config, RuntimeState
from att_client.example import repository
from tests.server_process import PATIENCE, ServerProcess, alive, wait_until

NOBODY = 65534
REFUSED = att_client.RunAsNotPossibleError
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")
SELF = "cat /proc/self/status; env | sed 's/^/env /'; echo opened > /dev/stderr; "
"""What a shell runs to say who it is, line by line; the last one needs its pipe to be its own."""
LISTENS_TO_NOBODY = (
    "trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep 600' & sleep 600 & wait; wait"
)


class Place:
    """A server's state directory, closed as it has to be, beside an app's directory."""

    def __init__(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="att-run-as-"))
        self.top.chmod(0o711)
        self.state = self.top / "s"
        self.app = self.top / "app"
        self.app.mkdir(mode=0o755)

    def settings(self, text: str) -> None:
        """Writes the server's own settings."""
        self.state.mkdir(mode=0o700, exist_ok=True)
        path = self.state / "settings.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        status = self.state.stat()
        os.chown(path, status.st_uid, status.st_gid)

    def server_as(self, user: str, *capabilities: str) -> ServerProcess:
        """A server of another user than root, with these capabilities alone.

        To read what is closed is none that matters here: the Python of the tests may lie
        in a directory of root's.
        """
        self.state.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(self.state, user)
        held = ",".join(("-all", "+dac_read_search", *(f"+{name}" for name in capabilities)))
        return ServerProcess(
            self.state,
            under=(
                *("setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups"),
                *("--inh-caps", held, "--ambient-caps", held, "--bounding-set", held),
            ),
        )


@pytest.fixture
def place() -> Iterator[Place]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may run anything as another user")
    made = Place()
    yield made
    shutil.rmtree(made.top, ignore_errors=True)


@pytest.fixture
def server(place: Place) -> Iterator[ServerProcess]:
    # With groups of its own, which are to be nobody else's.
    with ServerProcess(place.state, under=("setpriv", "--groups", "0,4")) as server:
        yield server


@pytest.fixture
async def att(server: ServerProcess) -> AsyncIterator[att_client.Client]:
    async with att_client.connect(server.target) as client:
        yield client


def token_of(server: ServerProcess, role: str) -> str:
    words = ("token", "create", "--name", "boss", "--role", role)
    made = subprocess.run(
        [sys.executable, "-m", "att_server", *words, "--state-dir", server.state_dir],
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


@asynccontextmanager
async def as_role(server: ServerProcess, role: str) -> AsyncIterator[att_client.Client]:
    config = replace(
        Config(target=server.target),
        token=token_of(server, role),
        timeout=timedelta(seconds=PATIENCE),
    )
    async with att_client.connect(config=config) as client:
        yield client


def shell(script: str, run_as: str | None = "nobody", **more: object) -> att_client.RuntimeSettings:
    settings = att_client.RuntimeSettings(command=["/bin/sh", "-c", script], run_as=run_as)
    return replace(settings, **more)  # type: ignore[arg-type]  # fields of the message


async def printed(att: att_client.Client, project_id: str = "web") -> list[str]:
    """What the run of an app that ends by itself has printed."""
    async with asyncio.timeout(PATIENCE):
        while (await att.runtimes.get(project_id)).exit is None:
            await asyncio.sleep(0.01)
        return [str(line) async for line in att.logs.follow(project_id, cursor=0, until_now=True)]


def facts(lines: list[str]) -> dict[str, list[str]]:
    """The values of `/proc/self/status`, by name."""
    return {
        name: values.split()
        for name, colon, values in (line.partition(":") for line in lines)
        if colon and not name.startswith("env ")
    }


def variables(lines: list[str]) -> dict[str, str]:
    return dict(line[4:].split("=", 1) for line in lines if line.startswith("env "))


def assert_is_nobody(lines: list[str]) -> None:
    """Its ids are all of nobody, the saved ones too, and it has no way to others."""
    found = facts(lines)
    assert found["Uid"] == [str(NOBODY)] * 4
    assert len(set(found["Gid"])) == 1
    assert not {"0", "4"} & {*found["Gid"], *found["Groups"]}
    assert {int(found[name][0], 16) for name in CAPABILITIES} == {0}


async def test_an_app_is_another_user_with_nothing_of_the_servers(
    att: att_client.Client, place: Place
) -> None:
    runtime = shell(SELF, env={"USER": "somebody"})
    made = await att.projects.create("web", path=place.app, runtime=runtime)
    assert made.runtime is not None
    assert made.runtime.run_as == "nobody"
    await att.runtimes.start("web")
    lines = await printed(att)
    assert_is_nobody(lines)
    env = variables(lines)
    assert (env["HOME"], env["LOGNAME"]) == ("/nonexistent", "nobody")
    assert env["USER"] == "somebody"
    # Where the app could not go, it is not sent.
    assert str(place.state) not in "".join(lines)
    assert "opened" in lines


async def test_a_user_may_be_a_number_and_stand_in_att_toml(
    att: att_client.Client, place: Place
) -> None:
    (place.app / "att.toml").write_text(
        f"[runtime]\nrun_as = {NOBODY}\ncommand = ['/bin/sh', '-c', 'cat /proc/self/status']\n"
    )
    await att.projects.create("web", path=place.app)
    await att.runtimes.start("web")
    assert_is_nobody(await printed(att))


async def test_what_the_project_was_given_wins_over_att_toml(
    att: att_client.Client, place: Place
) -> None:
    (place.app / "att.toml").write_text("[runtime]\nrun_as = 'root'\n")
    await att.projects.create("web", path=place.app, runtime=shell("cat /proc/self/status"))
    await att.runtimes.start("web")
    assert_is_nobody(await printed(att))


async def test_a_file_of_variables_that_the_app_could_name_has_to_be_its_own(
    att: att_client.Client, place: Place
) -> None:
    secret = place.top / "others"
    secret.write_text("OTHERS=secret\n")
    (place.app / "att.toml").write_text(f"[runtime]\nenv_file = '{secret}'\n")
    runtime = shell("[ $OTHERS = secret ] && echo got it")
    await att.projects.create("web", path=place.app, runtime=runtime)
    with pytest.raises(att_client.SettingsInvalidError, match="does not belong to 'nobody'"):
        await att.runtimes.start("web")
    await att.projects.create("api", path=place.app, runtime=replace(runtime, env_file=str(secret)))
    await att.runtimes.start("api")
    assert await printed(att, "api") == ["got it"]
    shutil.chown(secret, "nobody")
    await att.runtimes.start("web")
    assert await printed(att) == ["got it"]


async def test_a_tree_of_another_user_is_stopped_to_the_last_process(
    att: att_client.Client, place: Place
) -> None:
    await att.projects.create("web", path=place.app, runtime=shell(LISTENS_TO_NOBODY))
    started = await att.runtimes.start("web")

    def tree() -> list[psutil.Process]:
        main = psutil.Process(started.pid)
        return [main, *main.children(recursive=True)]

    wait_until(lambda: len(tree()) >= 4, "the app's processes")
    family = tree()
    assert {process.uids().real for process in family} == {NOBODY}
    stopped = await att.runtimes.stop("web", grace=timedelta(seconds=0))
    assert stopped.state is RuntimeState.STOPPED
    assert [process.pid for process in family if alive(process.pid)] == []


async def test_an_app_of_another_user_is_signalled_and_measured(
    att: att_client.Client, place: Place
) -> None:
    script = "trap 'echo heard; exit 7' USR1; exec 7</dev/null 8</dev/null; echo up; "
    runtime = shell(script + "while :; do sleep 0.05; done")
    await att.projects.create("web", path=place.app, runtime=runtime)
    await att.runtimes.start("web")
    async with asyncio.timeout(PATIENCE):
        async for line in att.logs.follow("web", cursor=0):
            if str(line) == "up":
                break
        while True:
            usage = (await att.runtimes.get("web")).usage
            if usage is not None and usage.open_file_count >= 5:
                break
            await asyncio.sleep(0.01)
    assert usage.process_count >= 1
    assert usage.resident_memory_bytes > 0
    await att.runtimes.signal("web", signal.SIGUSR1)
    assert "heard" in await printed(att)


async def test_limits_bind_an_app_of_another_user(att: att_client.Client, place: Place) -> None:
    limits = att_client.ResourceLimits(open_files=64, processes=3)
    many = "ulimit -n; for i in 1 2 3 4 5; do sleep 600 & done; wait"
    await att.projects.create("web", path=place.app, runtime=shell(many, limits=limits))
    await att.runtimes.start("web")
    assert await printed(att) == ["64"]
    ended = (await att.runtimes.get("web")).exit
    assert ended is not None
    assert ended.reason == "process_limit"


async def test_command_probes_run_as_the_same_user(att: att_client.Client, place: Place) -> None:
    asks = att_client.CommandProbe(command=["/bin/sh", "-c", f'[ "$(id -u)" = {NOBODY} ]'])
    probe = att_client.Probe(command=asks)
    runtime = shell("exec sleep 600", readiness=probe)
    await att.projects.create("web", path=place.app, runtime=runtime)
    started = await att.runtimes.start("web", wait="ready", timeout=timedelta(seconds=PATIENCE))
    assert started.state is RuntimeState.READY
    assert (await att.runtimes.probe("web", probe)).healthy


async def test_whom_to_tell_of_failures_is_told_as_the_same_user(
    att: att_client.Client, place: Place
) -> None:
    told = place.app / "told"
    told.mkdir()
    told.chmod(0o777)
    (place.app / "att.toml").write_text(
        f"[notify]\ncommand = ['/bin/sh', '-c', 'id -u > {told}/new; mv {told}/new {told}/who']\n"
    )
    policy = att_client.RestartPolicy(
        condition=att_client.RestartPolicyCondition.ALWAYS, max_restarts=0
    )
    await att.projects.create("web", path=place.app, runtime=shell("exit 3", restart=policy))
    await att.runtimes.start("web")
    wait_until((told / "who").exists, "the command of [notify]")
    assert (told / "who").read_text().strip() == str(NOBODY)


async def test_the_tree_of_a_lost_supervisor_is_ended(
    server: ServerProcess, att: att_client.Client, place: Place
) -> None:
    await att.projects.create("web", path=place.app, runtime=shell(LISTENS_TO_NOBODY))
    started = await att.runtimes.start("web")
    main = psutil.Process(started.pid)
    wait_until(lambda: len(main.children(recursive=True)) >= 3, "the app's processes")
    family = [main, *main.children(recursive=True)]
    (state,) = server.supervisor_states()
    os.kill(int(str(state["pid"])), signal.SIGKILL)
    for process in family:
        wait_until(lambda process=process: not alive(process.pid), "its end")  # type: ignore[misc]  # the default is its type


@pytest.mark.parametrize(
    ("run_as", "cause"), [("no-such-user", "user_not_found"), ("4000000000", "user_not_found")]
)
async def test_an_unknown_user_is_refused_before_anything_is_made(
    att: att_client.Client, place: Place, run_as: str, cause: str
) -> None:
    with pytest.raises(REFUSED) as refused:
        await att.projects.create("web", path=place.app, runtime=shell("true", run_as))
    assert refused.value.metadata == {"run_as": run_as, "cause": cause}
    with pytest.raises(att_client.ProjectNotFoundError):
        await att.projects.get("web")


async def test_a_directory_that_the_user_cannot_enter_is_refused(
    server: ServerProcess, att: att_client.Client, place: Place
) -> None:
    closed = place.top / "closed"
    inside = closed / "app"
    inside.mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(REFUSED) as refused:
        await att.projects.create("web", path=inside, runtime=shell("true"))
    assert refused.value.metadata["cause"] == "directory_unreachable"
    assert str(inside) in str(refused.value)
    with pytest.raises(REFUSED):  # a template would have filled it first
        await att.projects.create("web", path=inside / "new", template="nat", runtime=shell("true"))
    assert not (inside / "new").exists()

    await att.projects.create("web", path=place.app, runtime=shell("true"))
    with pytest.raises(REFUSED):
        await att.projects.update("web", path=inside)
    assert (await att.projects.get("web")).path == str(place.app)
    await att.projects.create("root", path=inside, runtime=shell("true", None))
    async with as_role(server, "admin") as boss:
        with pytest.raises(REFUSED):
            await boss.projects.update("root", runtime=shell("true"))


async def test_a_directory_that_is_closed_later_fails_the_start(
    att: att_client.Client, place: Place
) -> None:
    await att.projects.create("web", path=place.app, runtime=shell("true"))
    place.app.chmod(0o700)
    with pytest.raises(REFUSED) as refused:
        await att.runtimes.start("web")
    assert refused.value.metadata["cause"] == "directory_unreachable"
    assert (await att.runtimes.get("web")).pid == 0


async def test_a_directory_that_is_closed_between_two_runs_fails_the_next_one(
    att: att_client.Client, place: Place
) -> None:
    policy = att_client.RestartPolicy(
        condition=att_client.RestartPolicyCondition.ALWAYS,
        initial_backoff=timedelta(milliseconds=10),
        max_restarts=2,
    )
    go = place.top / "go"
    os.mkfifo(go)
    go.chmod(0o666)
    runtime = shell(f"read line < {go}", restart=policy)
    await att.projects.create("web", path=place.app, runtime=runtime)
    await att.runtimes.start("web")
    place.app.chmod(0o700)
    await asyncio.to_thread(go.write_text, "on\n")
    async with asyncio.timeout(PATIENCE):
        while (found := await att.runtimes.get("web")).state is not RuntimeState.FAILED:
            await asyncio.sleep(0.01)
    assert found.exit is not None
    assert "'nobody' that it is to run as cannot enter it" in str(found.exit.start_error)


async def test_only_an_admin_changes_who_an_app_runs_as(
    server: ServerProcess, att: att_client.Client, place: Place
) -> None:
    await att.projects.create("web", path=place.app, runtime=shell("exec sleep 600"))
    for run_as in (None, "root"):
        with pytest.raises(att_client.PermissionDeniedError) as denied:
            await att.projects.update("web", runtime=shell("exec sleep 600", run_as))
        assert denied.value.metadata["required_role"] == "admin"
    as_root = att_client.RuntimeSettings(run_as="root")
    for call in (att.runtimes.start, att.runtimes.restart):
        with pytest.raises(att_client.PermissionDeniedError):
            await call("web", runtime=as_root)
    await att.projects.update("web", runtime=shell("exec sleep 601"))  # what else there is
    async with as_role(server, "admin") as boss:
        await boss.projects.update("web", runtime=shell("exec sleep 600", None))
        started = await boss.runtimes.start("web", runtime=as_root)
        assert psutil.Process(started.pid).uids().real == 0
        await boss.projects.update("web", runtime=shell("exec sleep 600"))
        with pytest.raises(att_client.RuntimeSpecConflictError):
            await att.runtimes.start("web")


async def test_where_users_are_named_nothing_runs_as_another(place: Place) -> None:
    place.settings('run_as_users = ["nobody"]')
    with ServerProcess(place.state) as server:
        async with att_client.connect(server.target) as att:
            with pytest.raises(REFUSED) as refused:
                await att.projects.create("web", path=place.app, runtime=shell("true", "daemon"))
            assert refused.value.metadata == {"run_as": "daemon", "cause": "user_not_allowed"}
            await att.projects.create("web", path=place.app, runtime=shell("true", None))
            with pytest.raises(REFUSED) as refused:
                await att.runtimes.start("web")
            assert refused.value.metadata == {"run_as": "", "cause": "user_not_allowed"}
            with pytest.raises(REFUSED):  # its tests would run as the server's own user
                await att.bootstrap.plan("web", edits={"a": "b"}, message="c")
            await att.projects.create("api", path=place.app, runtime=shell("id -u"))
            await att.runtimes.start("api")
            assert await printed(att, "api") == [str(NOBODY)]


async def test_a_project_of_another_user_has_no_cycles(
    server: ServerProcess, att: att_client.Client, place: Place
) -> None:
    place.app.rmdir()
    repository.make_repository(place.app)
    await att.projects.create("web", path=place.app, runtime=shell("true"))
    with pytest.raises(REFUSED) as refused:
        await att.bootstrap.start("web", edits={"a": "b"}, message="c")
    assert refused.value.metadata == {"run_as": "nobody", "cause": "cycles_not_offered"}


async def test_a_change_that_brings_another_user_along_waits_for_a_decision_and_does_not_start(
    server: ServerProcess, att: att_client.Client, place: Place
) -> None:
    place.app.rmdir()
    repository.make_repository(place.app)
    settings = (place.app / "att.toml").read_text()
    changed = settings.replace("[runtime]\n", "[runtime]\nrun_as = 'nobody'\n", 1)
    await att.projects.create("web", path=place.app)
    async with as_role(server, "approver") as approver, asyncio.timeout(PATIENCE):
        started = await att.bootstrap.start("web", edits={"att.toml": changed}, message="c")
        async for cycle in att.bootstrap.watch(started.cycle_id):
            if cycle.state is att_client.CycleState.AWAITING_APPROVAL:
                break
        assert cycle.approval is not None
        assert cycle.approval.reason == "touches_att_toml"
        await approver.bootstrap.approve(
            cycle.cycle_id,
            commit_sha=cycle.approval.commit_sha,
            plan_digest=cycle.approval.plan_digest,
        )
        ended = await att.bootstrap.wait(cycle.cycle_id)
    reasons = {step.step: step.reason for step in ended.steps}
    assert reasons[att_client.CycleStep.DEPLOY] == "directory_unreachable"
    assert (await att.runtimes.get("web")).pid == 0


async def test_a_server_without_the_right_refuses_before_anything_is_made(place: Place) -> None:
    with place.server_as("nobody") as server:
        async with att_client.connect(server.target) as att:
            with pytest.raises(REFUSED) as refused:
                await att.projects.create("web", path=place.app, runtime=shell("true", "daemon"))
            assert refused.value.metadata == {"run_as": "daemon", "cause": "no_right"}
            assert "CAP_SETUID" in str(refused.value)
            # Its own user it is already.
            await att.projects.create("web", path=place.app, runtime=shell("id -u"))
            await att.runtimes.start("web")
            assert await printed(att) == [str(NOBODY)]


async def test_capabilities_in_place_of_root_are_for_whom_the_settings_name(place: Place) -> None:
    with place.server_as("daemon", "setuid", "setgid", "kill") as server:
        async with att_client.connect(server.target) as att:
            with pytest.raises(REFUSED) as refused:
                await att.projects.create("web", path=place.app, runtime=shell(SELF))
            assert refused.value.metadata == {"run_as": "nobody", "cause": "user_not_allowed"}
    place.settings('run_as_users = ["nobody", "daemon"]')
    with server:
        async with att_client.connect(server.target) as att:
            await att.projects.create("web", path=place.app, runtime=shell(SELF))
            await att.runtimes.start("web")
            assert_is_nobody(await printed(att))
            await att.projects.create("api", path=place.app, runtime=shell(LISTENS_TO_NOBODY))
            started = await att.runtimes.start("api")
            assert psutil.Process(started.pid).uids().real == NOBODY
            stopped = await att.runtimes.stop("api", grace=timedelta(seconds=0))
            assert stopped.state is RuntimeState.STOPPED
            assert not alive(started.pid)

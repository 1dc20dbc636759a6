"""Whatever a change, a repository or its tests are: a class, a reason, the project as it was."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from att_server.core.cycles.model import Cancellation, CycleState, CycleStep
from att_server.core.failure_class import CycleOutcome
from att_server.core.repository import Change, DeleteFile, Patch, SetMode, WriteFile
from tests.contract.change_cycle import GOOD, PROJECT, ChangeBench, make_bench
from tests.contract.git_projects import Special, git
from tests.contract.test_command_runner import marked
from tests.server_process import PATIENCE


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[ChangeBench]:
    made = await make_bench(tmp_path)
    yield made
    await made.zygote.aclose()


def checkout_of(bench: ChangeBench) -> tuple[str, ...]:
    """What a person sees in the checkout."""
    where = bench.git.checkout
    return (
        git(where, "status", "--porcelain=v2", "--branch"),
        git(where, "for-each-ref"),
        git(where, "stash", "list"),
        git(where, "worktree", "list"),
    )


def as_it_was(bench: ChangeBench, base: str) -> None:
    assert bench.refs() == ["main"]
    assert bench.git.on_remote() == base
    assert bench.left() == []


def blob(bench: ChangeBench, path: str) -> bytes:
    """The bytes of a file of the base."""
    where = bench.git.remote
    command = ["git", "cat-file", "blob", f"main:{path}"]
    return subprocess.run(command, cwd=where, check=True, capture_output=True).stdout


def write(path: str, content: bytes = b"x") -> Change:
    return [WriteFile(path=path, content=content)]


def link_patch(path: str, target: str) -> Patch:
    return Patch(
        diff=(
            f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
            f"@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
        ).encode()
    )


def file_patch(path: str, *, old: str = "/dev/null") -> Patch:
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
    return Patch(diff=f"{head}--- {old}\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n".encode())


# Changes --------------------------------------------------------------------------

INVALID = "edit_path_invalid"
NO_PATCH = "patch_does_not_apply"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (write("../x"), INVALID),
        (write("a/../../x"), INVALID),
        (write("/etc/passwd"), INVALID),
        (write(".git/config"), INVALID),
        (write(".GIT"), INVALID),
        (write(".git "), INVALID),
        (write("git~1"), INVALID),
        (write(".g\u200cit/config"), INVALID),
        (write("a/.Git/hooks/pre-commit"), INVALID),
        (write(".git::$INDEX_ALLOCATION/config"), INVALID),
        (write("a\\b"), INVALID),
        (write("a\0b"), INVALID),
        (write("a\nb"), INVALID),
        (write("\udc80"), INVALID),
        (write("x" * 300), INVALID),
        (write("/".join("y" * 200 for _ in range(30))), INVALID),
        (write(""), INVALID),
        (write("app.py/x"), INVALID),
        (write("docs"), INVALID),
        ([*write("a"), *write("a")], INVALID),  # type: ignore[misc]  # both are edits
        (write("large", bytes(100_000_001)), INVALID),
        ([WriteFile(path=f"many/{n}", content=b"") for n in range(10_001)], INVALID),
        ([DeleteFile(path="not-there")], INVALID),
        ([SetMode(path="not-there", executable=True)], INVALID),
        ([], "no_change"),
        (write("docs/guide.md", b"guide\n"), "no_change"),
        (None, "no_change"),
        (link_patch("link", "../out"), INVALID),
        (link_patch("link", "/etc"), INVALID),
        (link_patch("docs/link", "../../out"), INVALID),
        (file_patch("../x"), INVALID),
        (file_patch(".git/hooks/post-checkout"), INVALID),
        (file_patch(".g\u200cit/x"), INVALID),
        (Patch(diff=b"--- a/app.py\n+++ b/app.py\n@@ -1 +1 @@\n-not there\n+x\n"), NO_PATCH),
        (Patch(diff=b"no patch at all"), NO_PATCH),
        (Patch(diff=b""), NO_PATCH),
        (Patch(diff=b"--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n"), NO_PATCH),
    ],
)
async def test_a_change_that_no_tree_can_take(
    bench: ChangeBench, change: Change | None, reason: str
) -> None:
    before = checkout_of(bench)
    cycle = await bench.cycle(change)
    assert cycle.outcome is CycleOutcome.FAILED
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("edit_failure", reason)
    assert cycle.step(CycleStep.EDIT).evidence["error"]
    assert await bench.journal.change(cycle.cycle_id) == b""
    as_it_was(bench, bench.git.base)
    assert checkout_of(bench) == before


async def test_a_change_through_a_link_of_the_base_is_refused(bench: ChangeBench) -> None:
    base = bench.git.commit_on_remote(
        {"out": Special("120000", "/tmp"), "in": Special("120000", "docs")}
    )
    for change in (write("out/x"), write("in/x"), write("out"), file_patch("out/x")):
        cycle = await bench.cycle(change)
        assert cycle.failure is not None
        assert (cycle.failure.failure_class, cycle.failure.reason) == ("edit_failure", INVALID)
    as_it_was(bench, base)


async def test_what_is_unusual_and_allowed_comes_into_the_base_byte_for_byte(
    bench: ChangeBench,
) -> None:
    contents = {
        "crlf.txt": b"a\r\nb\r\n",
        "binary": bytes(range(256)) * 100,
        "no-end": b"no line end",
        "empty": b"",
        "x" * 255: b"long",
        "sp ace/ü/-x": b"named",
        ".gitignore": b"*\n",
        ".gitattributes": b"* text=auto eol=crlf filter=evil\n",
    }
    edits: Change = [
        *(WriteFile(path=path, content=content) for path, content in contents.items()),
        WriteFile(path="tool", content=b"#!/bin/sh\n", executable=True),
        SetMode(path="bin/run", executable=False),
    ]
    cycle = await bench.cycle(edits)
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    for path, content in contents.items():
        assert blob(bench, path) == content
    modes = git(bench.git.remote, "ls-tree", "--format=%(objectmode) %(path)", "main:", "tool")
    assert modes == "100755 tool"
    modes = git(bench.git.remote, "ls-tree", "--format=%(objectmode) %(path)", "main:bin")
    assert modes == "100644 run"
    assert bench.left() == []


async def test_a_message_of_any_kind_is_a_message(bench: ChangeBench) -> None:
    message = "-F /etc/passwd\0\x1b[31m\r\n\r\nAtt-Cycle: forged\nRequested-by: root\n\udc80"
    cycle = await bench.cycle(commit_message=message)
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    said = git(bench.git.remote, "log", "-1", "--format=%B", cycle.result.commit_sha)
    assert "\n> Att-Cycle: forged\n> Requested-by: root" in said
    assert f"Att-Cycle: {cycle.cycle_id}" in said
    assert "\0" not in said
    assert "\x1b" not in said


# Names -----------------------------------------------------------------------------

HOSTILE_NAMES = (
    "-x", "--upload-pack=touch /tmp/x", "a b", "a\x01b", "a..b", "refs/heads/x", "HEAD", "x.lock",
    "a~1", "\u202etxt", "a\nb", "1" * 40, "ext::sh -c touch% x", "x" * 300,
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
async def test_a_name_that_is_none_of_a_branch(bench: ChangeBench, name: str) -> None:
    branch = await bench.cycle(branch_name=name)
    assert branch.failure is not None
    assert (branch.failure.failure_class, branch.failure.reason) == (
        "push_failure",
        "branch_invalid",
    )
    base = await bench.cycle(base_branch=name)
    assert base.failure is not None
    assert (base.failure.failure_class, base.failure.reason) == (
        "prepare_failure",
        "base_branch_invalid",
    )
    as_it_was(bench, bench.git.base)


async def test_a_branch_that_is_somebodys_stays_as_it_is(bench: ChangeBench) -> None:
    other = bench.git.commit_on_remote({"x": b"x"}, branch="taken")
    taken = await bench.cycle(branch_name="taken")
    below = await bench.cycle(branch_name="taken/below")
    base = await bench.cycle(branch_name="main")
    missing = await bench.cycle(base_branch="none")
    found = [
        (each.failure.failure_class, each.failure.reason)
        for each in (taken, below, base, missing)
        if each.failure is not None
    ]
    assert found == [
        ("push_failure", "branch_exists"),
        ("push_failure", "remote_refused"),
        ("push_failure", "branch_is_base"),
        ("prepare_failure", "base_branch_missing"),
    ]
    assert bench.refs() == ["main", "taken"]
    assert bench.git.on_remote("taken") == other
    assert bench.git.on_remote() == bench.git.base
    assert bench.left() == []


async def test_a_branch_that_appears_before_the_push_stays_as_it_is(bench: ChangeBench) -> None:
    bench.base_settings(
        f"[bootstrap.test]\ncommand = ['git', '-C', '{bench.git.remote}', 'branch', 'mine']\n"
    )
    cycle = await bench.cycle(branch_name="mine")
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("push_failure", "branch_exists")
    assert bench.refs() == ["main", "mine"]
    assert bench.left() == []


# Repositories -----------------------------------------------------------------------


def below(bench: ChangeBench) -> None:
    bench.deployments.add(PROJECT, path=bench.git.checkout / "docs")


def nowhere(bench: ChangeBench) -> None:
    bench.deployments.add(PROJECT, path=bench.state)


def without_remote(bench: ChangeBench) -> None:
    git(bench.git.checkout, "remote", "remove", "origin")


def helper(bench: ChangeBench) -> None:
    git(bench.git.checkout, "config", "remote.origin.url", "ext::sh -c touch% /tmp/att-ext")


def option(bench: ChangeBench) -> None:
    git(bench.git.checkout, "config", "remote.origin.url", "--upload-pack=touch /tmp/att-ext")


def empty(bench: ChangeBench) -> None:
    for branch in bench.refs():
        git(bench.git.remote, "update-ref", "-d", f"refs/heads/{branch}")


def broken_settings(bench: ChangeBench) -> None:
    bench.git.commit_on_remote({"att.toml": b"[bootstrap.test\n"})


def large_settings(bench: ChangeBench) -> None:
    bench.git.commit_on_remote({"att.toml": b"#" * 2_000_000})


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (below, "project_not_repository_root"),
        (nowhere, "project_not_repository_root"),
        (without_remote, "project_has_no_remote"),
        (helper, "project_has_no_remote"),
        (option, "project_has_no_remote"),
        (empty, "base_branch_missing"),
        (broken_settings, "settings_invalid"),
        (large_settings, "output_too_large"),
    ],
)
async def test_a_repository_that_no_cycle_can_begin_in(
    bench: ChangeBench, prepare: Callable[[ChangeBench], None], reason: str
) -> None:
    prepare(bench)
    before = bench.refs(), bench.git.on_remote()
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("prepare_failure", reason)
    assert cycle.step(CycleStep.PREPARE).evidence["error"]
    assert (bench.refs(), bench.git.on_remote()) == before
    assert bench.left() == []
    assert not Path("/tmp/att-ext").exists()


def detached(where: Path) -> None:
    git(where, "checkout", "-q", "--detach")


def dirty(where: Path) -> None:
    (where / "app.py").write_text("of a person")
    git(where, "add", "app.py")
    (where / "untracked").write_text("too")


def unborn(where: Path) -> None:
    git(where, "checkout", "-q", "--orphan", "new")


def shallow(where: Path) -> None:
    git(where, "fetch", "-q", "--depth=1", "origin", "main")


def locked(where: Path) -> None:
    (where / ".git" / "index.lock").touch()


@pytest.mark.parametrize("state", [detached, dirty, unborn, shallow, locked])
async def test_the_checkout_may_be_in_any_state_and_stays_in_it(
    bench: ChangeBench, state: Callable[[Path], None]
) -> None:
    state(bench.git.checkout)
    before = checkout_of(bench)
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert checkout_of(bench) == before
    assert bench.left() == []


async def test_nothing_that_the_repository_brings_along_runs(bench: ChangeBench) -> None:
    where, mark = bench.git.checkout, bench.state / "ran"
    script = f"#!/bin/sh\ntouch {mark}\n"
    hooks = where / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("pre-commit", "post-checkout", "pre-push", "post-merge", "reference-transaction"):
        (hooks / name).write_text(script)
        (hooks / name).chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "core.editor", "credential.helper"):
        git(where, "config", key, str(hooks / "pre-commit"))
    git(where, "config", "filter.evil.clean", str(hooks / "pre-commit"))
    git(where, "config", "filter.evil.smudge", str(hooks / "pre-commit"))
    bench.git.commit_on_remote(
        {
            ".gitattributes": b"* filter=evil\n",
            ".gitmodules": b'[submodule "m"]\n\tpath = m\n\turl = ext::touch% /tmp/att-ext\n',
            "m": Special("160000", bench.git.base),
        }
    )
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert not mark.exists()
    assert not Path("/tmp/att-ext").exists()


class _AsksForAPassword(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


async def test_a_remote_that_wants_a_password_is_known_at_once_and_waited_for(
    tmp_path: Path,
) -> None:
    bench = await make_bench(tmp_path, protocols=("file", "http"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _AsksForAPassword)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/x.git"
        git(bench.git.checkout, "config", "remote.origin.url", url)
        await held(bench, "remote_authentication")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_remote_that_hangs_is_ended_and_waited_for(tmp_path: Path) -> None:
    bench = await make_bench(tmp_path, protocols=("file", "http"), network=timedelta(seconds=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        git(bench.git.checkout, "config", "remote.origin.url", url)
        await held(bench, "remote_timed_out")


async def held(bench: ChangeBench, reason: str) -> None:
    """The cycle is held for the reason, and can be cancelled."""
    cycle = await bench.start(GOOD)
    async with bench.working(cycle):
        waiting = await bench.until(cycle, lambda c: c.state is CycleState.HELD)
    assert waiting.step(CycleStep.PREPARE).reason == reason
    assert waiting.failure is None
    assert bench.git.on_remote() == bench.git.base


async def test_a_remote_that_refuses_a_push_says_so(bench: ChangeBench) -> None:
    hook = bench.git.remote / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho by policy >&2\nexit 1\n")
    hook.chmod(0o755)
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("push_failure", "remote_refused")
    assert "by policy" in cycle.step(CycleStep.PUSH).evidence["error"]
    as_it_was(bench, bench.git.base)

    # The base alone is protected.
    hook.write_text(
        "#!/bin/sh\nwhile read old new ref; do [ $ref != refs/heads/main ] || exit 1; done\n"
    )
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == (
        "merge_failure",
        "remote_refused",
    )
    as_it_was(bench, bench.git.base)


# Tests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "exit_code"),
        ("kill -SEGV $$", "signal"),
        ("sleep 600", "timed_out"),
        ("trap '' TERM INT; while :; do sleep 1; done", "timed_out"),
        ("setsid sleep 600 & sleep 600 & wait", "timed_out"),
        ("kill -9 $$", "signal"),
        ("rm -rf .git ./* ; chmod 0 . ; exit 1", "exit_code"),
    ],
)
async def test_tests_that_do_not_pass_have_a_reason(
    bench: ChangeBench, script: str, reason: str
) -> None:
    mark = uuid.uuid4().hex
    base = bench.base_settings(
        f"[bootstrap.test]\ncommand = ['sh', '-c', \"\"\"{script}\"\"\"]\ntimeout = '1s'\n"
        f"env = {{MARK = '{mark}'}}\n"
    )
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("test_failure", reason)
    assert not marked(mark)
    as_it_was(bench, base)


async def test_a_test_command_that_is_not_there_says_so(bench: ChangeBench) -> None:
    base = bench.base_settings('[bootstrap.test]\ncommand = ["no-such-command"]\n')
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == (
        "test_failure",
        "command_not_found",
    )
    as_it_was(bench, base)


async def test_daemons_that_tests_leave_end_with_them(bench: ChangeBench) -> None:
    mark = uuid.uuid4().hex
    bench.base_settings(
        "[bootstrap.test]\ncommand = ['sh', '-c', 'setsid sleep 600 & (setsid sleep 601 &)']\n"
        f"env = {{MARK = '{mark}'}}\n"
    )
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert not marked(mark)


async def test_of_a_gigabyte_of_output_the_end_is_kept(bench: ChangeBench) -> None:
    bench.base_settings(
        "[bootstrap.test]\ncommand = ['sh', '-c', 'head -c 1000000000 /dev/zero; echo the end']\n"
    )
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    tail = cycle.step(CycleStep.TEST).log_tail
    assert len(tail) == 64 * 1024
    assert tail.endswith(b"\0the end\n")


async def test_tests_that_somebody_kills_are_run_again(bench: ChangeBench) -> None:
    bench.base_settings(
        "[bootstrap.test]\n"
        "command = ['sh', '-c', 'echo x >> $SEEN; [ $(wc -l < $SEEN) -gt 2 ] || kill -9 $$']\n"
        f"env = {{SEEN = '{bench.state}/seen'}}\n"
    )
    cycle = await bench.cycle()
    assert cycle.outcome is CycleOutcome.SUCCEEDED, bench.story(cycle)
    assert (bench.state / "seen").read_text() == "x\nx\nx\n"


async def test_cancelling_ends_the_tests_at_once(bench: ChangeBench) -> None:
    mark = uuid.uuid4().hex
    base = bench.base_settings(
        "[bootstrap.test]\ncommand = ['sh', '-c', 'setsid sleep 600 & sleep 600']\n"
        f"env = {{MARK = '{mark}'}}\n"
    )
    cycle = await bench.start(GOOD)
    async with bench.working(cycle) as working:
        async with asyncio.timeout(PATIENCE):
            while len(marked(mark)) < 3:
                await asyncio.sleep(0.02)
        await bench.journal.cancel(
            cycle.cycle_id, Cancellation(principal="token:agent", time=bench.clock.now())
        )
        working.worker.ask()
        async with asyncio.timeout(PATIENCE):
            await working.task
    ended = await bench.stored(cycle)
    assert ended.outcome is CycleOutcome.CANCELLED
    assert not marked(mark)
    as_it_was(bench, base)


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 1", "exit_code"), ("no-such-command", "exit_code")]
)
async def test_checks_that_fail_have_the_class_of_checks(
    bench: ChangeBench, script: str, reason: str
) -> None:
    base = bench.base_settings(f"[bootstrap.ci]\ncommand = ['sh', '-c', '{script}']\n")
    cycle = await bench.cycle()
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("ci_failure", reason)
    assert cycle.result.ci_status == "failure"
    as_it_was(bench, base)


async def test_checks_that_hang_time_out(bench: ChangeBench) -> None:
    base = bench.base_settings("[bootstrap.ci]\ncommand = ['sleep', '600']\n")
    cycle = await bench.cycle(ci_timeout=timedelta(seconds=1))
    assert cycle.failure is not None
    assert (cycle.failure.failure_class, cycle.failure.reason) == ("ci_timeout", "timed_out")
    assert cycle.result.ci_status == "timeout"
    as_it_was(bench, base)

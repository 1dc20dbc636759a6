"""`att init`, `att token` and what a token lets the other commands do."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import att_client
from att_server import token_command
from att_server.core.errors import RefusalReason, StartRefused
from att_server.tokens import TokenError
from tests.cli.att import ATT, att, environment
from tests.server_process import PATIENCE, ServerProcess


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-cli-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def test_tokens_are_made_used_and_revoked_while_the_server_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--state-dir", str(place / "s"))
    with ServerProcess(place / "s", "--log-level", "debug") as server:
        init = att("init", *where, "--json")
        assert init.code == 0, init.stderr
        tokens = init.item["tokens"]
        assert isinstance(tokens, list)
        assert [(token["name"], token["role"]) for token in tokens] == [
            ("admin", "admin"),
            ("approver", "approver"),
        ]
        admin = tokens[0]["secret"]
        create = ("token", "create", *where, "--name", "ci", "--role", "viewer")
        made = att(*create, "--expires", "90d", "--output", str(place / "ci.token"))
        assert (made.code, made.stdout) == (0, b"")
        assert stat.S_IMODE((place / "ci.token").stat().st_mode) == 0o600
        viewer = (place / "ci.token").read_text().strip()

        async with att_client.connect(server.target) as local:
            await local.projects.create("web", path=place)
        # The local user is an operator, and no admin.
        mode = ("project", "mode", "web", "safe", "--reason", "no disk", "--json")
        denied = att(*mode, target=server.target)
        assert (denied.code, denied.error["reason"]) == (4, "PERMISSION_DENIED")
        assert denied.error["metadata"] == {"required_role": "admin"}
        done = att(*mode, target=server.target, env={"ATT_TOKEN": admin})
        assert (done.item["mode"], done.item["mode_reason"]) == ("safe", "no disk")

        monkeypatch.setenv("ATT_TOKEN_FILE", str(place / "ci.token"))
        async with att_client.connect(server.target) as client:
            assert (await client.projects.get("web")).mode_reason == "no disk"
            with pytest.raises(att_client.PermissionDeniedError) as lacking:
                await client.runtimes.start("web")
            assert att("token", "revoke", *where, "ci").code == 0
            refused = await refusal(client)
        monkeypatch.delenv("ATT_TOKEN_FILE")

        listed = att("token", "list", *where, "--json")
        states = [item["token"]["state"] for item in listed.items]  # type: ignore[index]  # JSON
        assert states == ["valid", "valid", "revoked"]
        async with att_client.connect(server.target) as local:
            events = (await local.events.list(page_size=100)).events
        told = [(event.event_type, event.principal) for event in events if event.principal]
        me = f"local:{os.getuid()}"
        assert told == [
            *[("token.created", me)] * 3,
            ("project.created", me),
            ("project.mode", "token:admin"),
            ("token.revoked", me),
        ]

    # Neither the database nor a log, an event or an error has a secret.
    (place / "ci.token").unlink()
    written = b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())
    errors = "".join([init.stderr, made.stderr, denied.stderr, done.stderr, listed.stderr])
    told_to_users = f"{errors} {listed.stdout!r} {events} {lacking.value!r} {refused!r}"
    assert written
    for text in (admin, viewer, tokens[1]["secret"]):
        secret = text.split("_")[2]
        assert secret.encode() not in written
        assert secret not in told_to_users


async def refusal(client: att_client.Client) -> att_client.UnauthenticatedError:
    """What a token that was revoked is told, within a second or so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.projects.get("web")
            except att_client.UnauthenticatedError as error:
                return error


def test_init_makes_the_directory_and_shows_its_tokens_at_a_terminal_only(place: Path) -> None:
    init = ("init", "--state-dir", str(place / "s"))
    piped = att(*init)
    assert (piped.code, piped.stdout) == (1, b"")
    assert "NOT_A_TERMINAL" in piped.stderr
    assert not (place / "s").exists()

    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [*ATT, *init],
        env=environment(""),
        stdin=subprocess.DEVNULL,
        stdout=its_end,
        stderr=subprocess.PIPE,
    )
    os.close(its_end)
    _, stderr = process.communicate(timeout=PATIENCE)
    shown = os.read(terminal, 4096).decode().split()
    os.close(terminal)
    assert process.returncode == 0, stderr
    assert shown[::2] == ["admin", "approver"]
    assert all(token.startswith("att_") for token in shown[1::2])
    assert stat.S_IMODE((place / "s").stat().st_mode) == 0o700


def test_a_token_that_cannot_be_handed_over_is_not_left_behind(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--state-dir", str(place / "s"))

    def do(*words: str) -> None:
        work, _ = token_command.task([*words, *where])
        work()

    do("init", "--output", str(place))
    assert (place / "approver.token").read_text().startswith("att_")
    create = ("token", "create", "--name", "bot", "--role", "operator", "--output")
    for words, reason in [
        (("init", "--json"), "ALREADY_INITIALISED"),
        ((*create, str(place / "admin.token")), "OUTPUT_EXISTS"),
        ((*create, str(place / "nowhere" / "x")), "NOT_SHOWN"),
    ]:
        with pytest.raises(TokenError) as refused:
            do(*words)
        assert refused.value.reason == reason
    capsys.readouterr()
    do("token", "list", "--json")
    found = [json.loads(line)["token"] for line in capsys.readouterr().out.splitlines()]
    assert {token["name"]: token["state"] for token in found} == {
        "admin": "valid",
        "approver": "valid",
        "bot": "revoked",
    }


def test_init_makes_the_directory_that_its_files_go_to(place: Path) -> None:
    def init(output: Path) -> None:
        work, _ = token_command.task(
            ["init", "--output", str(output), "--state-dir", str(place / "s")]
        )
        work()

    with pytest.raises(TokenError) as refused:
        init(place / "nowhere" / "below")
    assert refused.value.reason == "OUTPUT_NOT_WRITABLE"
    init(place / "handed")
    assert stat.S_IMODE((place / "handed").stat().st_mode) == 0o700
    found = sorted((place / "handed").iterdir())
    assert [file.name for file in found] == ["admin.token", "approver.token"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in found} == {0o600}


def test_a_token_is_rotated_into_its_file_and_nothing_else_is_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--state-dir", str(place / "s"))

    def do(*words: str) -> None:
        work, _ = token_command.task([*words, *where])
        work()

    do("init", "--output", str(place))
    file, other = place / "t.token", place / "notes.txt"
    do(
        "token",
        "create",
        "--role",
        "viewer",
        "--project",
        "web",
        "--project",
        "api",
        "--out",
        f"{file}",
    )
    first = file.read_text()
    capsys.readouterr()
    do("tokens", "list", "--json")
    made = json.loads(capsys.readouterr().out.splitlines()[-1])["token"]
    assert made["projects"] == ["api", "web"]
    assert made["name"].startswith("viewer-")
    other.write_text("my notes")
    other.chmod(0o600)
    for output in (other, place):
        with pytest.raises(TokenError):
            do("token", "rotate", made["name"], "--out", str(output))
    do("token", "rotate", made["name"], "--overlap", "1h", "--out", str(file))
    assert file.read_text() != first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert other.read_text() == "my notes"
    assert sorted(p.name for p in place.iterdir()) == sorted(
        ["s", "admin.token", "approver.token", "t.token", "notes.txt"]
    )
    capsys.readouterr()
    do("token", "list", "--json")
    old, new = (json.loads(line)["token"] for line in capsys.readouterr().out.splitlines()[-2:])
    assert (old["state"], new["state"]) == ("replaced", "valid")
    assert old["successor_id"] == new["token_id"]


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--name", "x", "--role", "king"),
        ("create", "--name", "x", "--role", "viewer", "--expires", "soon"),
        ("create", "--name", "x"),
        ("revoke",),
        (),
    ],
)
def test_wrong_arguments_are_a_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        token_command.task(["token", *words])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "words",
    [("create", "--name", "x", "--role", "viewer"), ("list",), ("revoke", "x")],
)
def test_a_directory_without_a_server_is_named_and_not_made(
    place: Path, words: tuple[str, ...]
) -> None:
    work, _ = token_command.task(["token", *words, "--state-dir", str(place / "s")])
    with pytest.raises(TokenError) as refused:
        work()
    assert refused.value.reason == "STATE_NOT_FOUND"
    assert not (place / "s").exists()


def test_a_directory_that_others_may_enter_gets_no_token(place: Path) -> None:
    work, _ = token_command.task(["init", "--state-dir", str(place), "--json"])
    place.chmod(0o755)
    with pytest.raises(StartRefused) as refused:
        work()
    assert refused.value.reason is RefusalReason.INSECURE_STATE_DIR
    assert list(place.iterdir()) == []


def test_init_self_registers_a_checkout_of_att_and_nothing_else(place: Path) -> None:
    root = Path(__file__).parents[2]
    where = ("--state-dir", str(place / "s"), "--json")
    refused = att("init", "--self", "--repository", str(place), *where)
    assert refused.code == 1
    assert refused.error["reason"] == "NOT_ATT_REPOSITORY"
    for _ in range(2):  # the second time there are tokens already, and no new ones
        done = att("init", "--self", "--repository", str(root), *where)
        assert done.code == 0, done.stderr
    registered = json.loads((place / "s" / "launcher" / "project.json").read_text())
    assert (registered["project_id"], registered["path"]) == ("att", str(root))

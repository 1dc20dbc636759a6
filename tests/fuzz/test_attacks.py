"""The list of attacks as a table: what each is answered, and that nothing came of any."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

import att_client
from att_client.example import repository
from tests.rpc.conftest import METHODS, Wire, connect, read_refusal
from tests.rpc.test_auth import NO_BOUNDARY
from tests.server_process import PATIENCE, ServerProcess

FIELD, EDIT, PATH = "FIELD_INVALID", "EDIT_PATH_INVALID", "PROJECT_PATH_INVALID"
ABSENT = "PROJECT_NOT_FOUND"
CANARY = "/tmp/att-canary-of-attacks"
TOUCH = f"touch {CANARY}"
APP = {"command": ["sleep", "600"]}


def edits(*paths: str, content: str = "eA==") -> dict[str, Any]:
    return {
        "cycle": {"project_id": "web", "edits": [{"path": p, "content": content} for p in paths]}
    }


def patch(text: str) -> dict[str, Any]:
    return {"cycle": {"project_id": "web", "patch": base64.b64encode(text.encode()).decode()}}


def commit(name: str) -> dict[str, Any]:
    return {"cycle": {"project_id": "web", "commit": name}}


def start(**runtime: Any) -> dict[str, Any]:
    return {"project_id": "web", "runtime": runtime}


def probe(**kind: Any) -> dict[str, Any]:
    return {"project_id": "web", "probe": kind}


LINK = (
    "diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n"
    "+/etc/passwd\n\\ No newline at end of file\n"
)
SUBMODULE = (
    "diff --git a/sub b/sub\nnew file mode 160000\n--- /dev/null\n+++ b/sub\n@@ -0,0 +1 @@\n"
    f"+Subproject commit {'a' * 40}\n"
)

ATTACKS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    # Ids
    *(
        ("GetProject", {"project_id": name}, (FIELD,))
        for name in [
            *("", "a" * 64, "a" * 1_000_000, "../x", "a/b", ".", "..", "-rf", "--help", "a\0b"),
            *("a\u202eb", "a\u200db", "ｗｅｂ", "WEB", "web ", "web.", "Ⅰ", "ı", "web\n"),
        ]
    ),
    ("GetProject", {"project_id": "con"}, (ABSENT,)),
    # Paths
    *(
        ("CreateProject", {"project_id": "new", "path": path}, (FIELD, PATH))
        for path in [
            *("", "relative", "../../", "/nonexistent/x", "/dev/zero", "/proc/self/mem"),
            *("/" + "d" * 4097, "/tmp\0/x", "file:///tmp"),
        ]
    ),
    # Edits and patches
    *(
        ("PlanCycle", edits(path), (EDIT, FIELD))
        for path in [
            *(".git/hooks/pre-commit", ".GIT/config", ".git./x", "git~1/x", ".g\u200cit/x"),
            *("../../evil", "/etc/passwd", "a/../../x", "a//b", "", ".", "..", "a/.git/config"),
            *(".git /x", "x\0y", "a\nb"),
        ]
    ),
    ("PlanCycle", edits("app.py/x"), ("PATCH_DOES_NOT_APPLY", EDIT, FIELD)),
    ("PlanCycle", edits("x.py", "x.py"), (FIELD, EDIT)),
    ("PlanCycle", patch(LINK), ("PATCH_DOES_NOT_APPLY", EDIT, FIELD)),
    ("PlanCycle", patch(SUBMODULE), ("PATCH_DOES_NOT_APPLY", EDIT, FIELD)),
    ("PlanCycle", patch(LINK.replace("+1 @@", "+1,999999999 @@")), ("PATCH_DOES_NOT_APPLY", FIELD)),
    ("PlanCycle", patch("no patch at all"), ("PATCH_DOES_NOT_APPLY", FIELD, EDIT)),
    # Names of commits and branches
    *(
        ("PlanCycle", commit(name), (FIELD,))
        for name in [
            *(f"--upload-pack={TOUCH}", "-x", f"--output={CANARY}", "HEAD@{1 year ago}", ":/text"),
            *("a..b", "^{/regex}", "HEAD", "main", "0" * 39, "g" * 40),
        ]
    ),
    *(
        ("PlanCycle", {"cycle": {**edits("x.py")["cycle"], "branch_name": name}}, (FIELD,))
        for name in [
            "-x",
            "a..b",
            "x.lock",
            "@",
            "a//b",
            "a\nb",
            "a\0b",
            "refs/heads/x.lock",
            "a b",
        ]
    ),
    *(
        ("ReadFile", {"project_id": "web", "path": path}, (FIELD, EDIT, "FILE_NOT_FOUND"))
        for path in ["../../etc/passwd", "/etc/passwd", ".git/config", f"$({TOUCH})", "-rf"]
    ),
    ("SearchFiles", {"project_id": "web", "pattern": "(?=a)"}, (FIELD,)),
    ("SearchFiles", {"project_id": "web", "pattern": "a" * 100_000}, (FIELD,)),
    # Commands, environments, limits
    ("StartRuntime", start(command=[""]), (FIELD,)),
    ("StartRuntime", start(command=["a\0b"]), (FIELD,)),
    ("StartRuntime", start(command=["x" * 3_000_000]), (FIELD,)),
    ("StartRuntime", start(command=["/nonexistent/program"]), ("COMMAND_NOT_FOUND",)),
    ("StartRuntime", start(command=[f"$({TOUCH})"]), ("COMMAND_NOT_FOUND",)),
    *(
        ("StartRuntime", start(**APP, env={name: "x"}), (FIELD,))
        for name in ["A=B", "", "ATT_TOKEN", "a\0b"]
    ),
    ("StartRuntime", {**start(**APP), "timeout": "-1s"}, (FIELD,)),
    ("StartRuntime", {**start(**APP), "timeout": "315576000000s"}, (FIELD,)),
    # Probes
    *(
        ("ProbeHealth", probe(http={"url": url}), (FIELD,))
        for url in [
            *("http://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://0x7f.1/"),
            *("http://2130706433/", "http://localhost.evil.example/", "file:///etc/passwd"),
            *("http://a:b@127.0.0.1/", "gopher://127.0.0.1/", "http://127.0.0.1:0/"),
        ]
    ),
    *(
        ("ProbeHealth", probe(tcp={"host": host, "port": port}), (FIELD,))
        for host, port in [
            *(
                ("169.254.169.254", 80),
                ("127.0.0.1", 0),
                ("127.0.0.1", 70_000),
                ("evil.example", 1),
            ),
            *(("::ffff:169.254.169.254", 80), ("0x7f.1", 80)),
        ]
    ),
    # Pages, cursors, times
    ("ListProjects", {"page_size": -1}, (FIELD,)),
    ("ListProjects", {"page_token": "garbage!"}, (FIELD,)),
    ("ListCycles", {"page_token": "' OR 1=1 --"}, (FIELD,)),
    ("ListEvents", {"cursor": "-1"}, (FIELD,)),
    (
        "ReadLogs",
        {"project_id": "web", "start": {"cursor": str(2**62)}},
        ("LOG_CURSOR_AHEAD", FIELD),
    ),
    ("ReadLogs", {"project_id": "web", "start": {"cursor": "-1"}}, (FIELD,)),
    ("WatchRuntimes", {"progress_interval": "0s"}, (FIELD,)),
    ("WatchRuntimes", {"project_ids": ["web"] * 100_000}, (FIELD,)),
    ("SignalRuntime", {"project_id": "web", "signal": 9999}, (FIELD,)),
    ("DecideCycle", {"cycle_id": "x"}, ("PERMISSION_DENIED",)),
    ("SetProjectMode", {"project_id": "web", "mode": 1}, ("PERMISSION_DENIED",)),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-att-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ServerProcess]:
    repository.make_repository(place / "web")
    with ServerProcess(place / "s") as process:
        yield process


@pytest.fixture
async def wire(server: ServerProcess, place: Path) -> AsyncIterator[Wire]:
    async with att_client.connect(server.target) as att:
        await att.projects.create("web", path=place / "web")
    async with connect(server.target, NO_BOUNDARY) as wire:
        yield wire


def tree(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("number", range(len(ATTACKS)))
async def test_an_attack_is_answered_with_its_reason(wire: Wire, number: int) -> None:
    rpc, fields, reasons = ATTACKS[number]
    request = json_format.ParseDict(fields, GetMessageClass(METHODS[rpc].input_type)())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await wire.call(rpc, request, timeout=PATIENCE)
    assert read_refusal(refused.value).reason in reasons, fields


async def test_nothing_came_of_any(wire: Wire, place: Path, server: ServerProcess) -> None:
    before = tree(place / "web")
    assert "app.py" in before
    assert not os.path.lexists(CANARY)
    async with att_client.connect(server.target) as att:
        assert [project.project_id async for project in att.projects.list()] == ["web"]
        assert (await att.runtimes.get("web")).run_id == ""
        assert [cycle async for cycle in att.bootstrap.list("web")] == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x05ab",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\xff\xfe",
        b"\x0b" * 200,
        b"\xff" * 64,
        b"\x08",
    ],
)
async def test_bytes_that_are_no_message_are_malformed(wire: Wire, data: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await wire.unary("CreateProject", data)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert read_refusal(refused.value).reason == "MALFORMED_MESSAGE"


@pytest.mark.parametrize(
    "path",
    [
        "/att.v1.ProjectService/../GetProject",
        "/att.v1.ProjectService/__class__",
        "/att.v1.ProjectService/getproject",
        "/att.v1.projectservice/GetProject",
        "/att.v1.ProjectService.GetProject",
        "/att.v1.ProjectService/GetProject/",
        "/supervisor.control/stop",
    ],
)
async def test_what_is_no_method_is_not_implemented(wire: Wire, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await wire.raw(path)
    assert read_refusal(refused.value).reason == "NOT_IMPLEMENTED"

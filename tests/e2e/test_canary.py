"""A token and a secret are where they belong: in no log, database, event, argument, child or error.

`tests/conftest.py` looks for tokens in all that the whole suite has left behind.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import att_client
from att_client import Config, RuntimeSettings
from tests.certificates import Authority
from tests.server_process import ServerProcess, wait_until

SECRET = "canary-" + "5ec3e7" * 6
TELLS = (
    "import os, sys, time; print(dict(os.environ), sys.argv, flush=True); "
    "print(os.environ['API_KEY'], flush=True); time.sleep(600)"
)


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="att-can-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def att_server(place: Path, *words: str) -> str:
    """What a command on the state directory prints."""
    made = subprocess.run(
        [sys.executable, "-m", "att_server", *words, "--state-dir", place / "s"],
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


async def test_neither_a_token_nor_a_secret_is_anywhere_after_a_life_of_it(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = place / "app"
    app.mkdir()
    (app / ".env").write_text(f"API_KEY={SECRET}\n")
    (app / ".env").chmod(0o600)
    att_server(place, "init", "--json")
    # Who comes over the network makes projects only where that is allowed.
    own = place / "s" / "settings.toml"
    own.touch(mode=0o600)
    own.write_text(f'project_roots = ["{place}"]')
    known = {
        role: att_server(place, "token", "create", "--role", role, "--name", role)
        for role in ("operator", "viewer")
    }
    authority = Authority(place)
    files = authority.issue("server")
    server = ServerProcess(
        place / "s",
        *("--log-level", "debug", "--allow-root", "--listen", "127.0.0.1:0"),
        *("--tls-cert", str(files.certificate), "--tls-key", str(files.key)),
        environ={"ATT_TOKEN": known["operator"], "CANARY": SECRET},
    )
    told: list[str] = []
    with server:
        target = server.ready.split(", ")[1]
        operator = Config(target=target, token=known["operator"], ca_file=authority.file)
        viewer = Config(target=server.target, token=known["viewer"])
        async with att_client.connect(config=operator) as att:
            await att.projects.create("web", path=app)
            settings = RuntimeSettings(command=[sys.executable, "-c", TELLS], env_file=".env")
            await att.runtimes.start("web", runtime=settings)
            lines = []
            async for line in att.logs.follow("web"):
                lines.append(str(line))
                if len(lines) == 2:
                    break
            told += lines
            spoilt = known["operator"][:-1] + "x"
            for config in (viewer, Config(target=server.target, token=spoilt)):
                with pytest.raises(att_client.AttError) as refused:
                    async with att_client.connect(config=config) as other:
                        await other.runtimes.stop("web")
                told += [repr(refused.value), refused.value.message, repr(refused.value.metadata)]
            for audit in (False, True):
                page = await att.events.list(audit=audit, page_size=1000)
                told += map(repr, page.events)
            told.append(repr(await att.projects.get("web")))
            told.append(repr(await att.runtimes.get("web")))
            for process in psutil.Process(server.pid).children(recursive=True):
                told += process.cmdline()
                told += process.environ().values()
            told += psutil.Process(server.pid).cmdline()
        att_server(place, "backup", str(place / "b.tar.gz"))
        wait_until(lambda: bool(list((place / "s").rglob("*.seg"))), "a segment")
    written = {
        path: path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and path != app / ".env"
    }
    with tarfile.open(place / "b.tar.gz") as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                written[Path(member.name)] = file.read()
    assert any(path.name == "server.log" for path in written)
    assert any(path.name == "att.db" for path in written)
    said = "\n".join([*told, *caplog.messages, repr(operator), repr(viewer)])
    # The app printed its environment, and with it the secret that is masked.
    assert "PATH" in said
    for text in (*known.values(), SECRET):
        needle = text.split("_")[2] if text.startswith("att_") else text
        assert needle not in said
        assert [str(path) for path, data in written.items() if needle.encode() in data] == []

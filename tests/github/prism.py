"""`python -m tests.github.prism --cache DIR`: every request to GitHub, sent to Prism.

Prism serves the committed part of GitHub's own description and refuses what is not in its
form. It is installed into DIR the first time; then nothing but this host is used.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from att_server.adapters.clock import SystemClock
from att_server.adapters.github.api import GitHubApi
from att_server.adapters.github.repository import GitHubRepository, Pull
from att_server.core.cycles.settings import GitHubSettings
from tests.github.subset import OPERATIONS, SUBSET
from tests.server_process import PATIENCE

PACKAGE = "@stoplight/prism-cli"
VERSION = "5.14.2"
SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.github.prism", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    cache: Path = parser.parse_args().cache
    install(cache)
    log = cache / "prism.log"
    with served(cache, log) as url:
        asyncio.run(ask(url))
    received, wrong = told(log.read_text())
    wanted = {f"{method} {path}" for path, methods in OPERATIONS.items() for method in methods}
    never = sorted(wanted - received)
    for each in [*wrong, *(f"never asked for: {each}" for each in never)]:
        print(f"WRONG: {each}")
    print(f"{len(received)} of {len(wanted)} operations of GitHub's description asked for")
    return 1 if wrong or never else 0


def install(cache: Path) -> None:
    """Prism, in a directory of its own."""
    package = cache / "node_modules" / PACKAGE / "package.json"
    if package.is_file() and f'"version": "{VERSION}"' in package.read_text():
        return
    cache.mkdir(parents=True, exist_ok=True)
    print(f"installing {PACKAGE} {VERSION} into {cache}", flush=True)
    subprocess.run(
        [
            "npm", "install", "--prefix", cache, "--no-package-lock", "--no-audit", "--no-fund",
            "--loglevel=error", f"{PACKAGE}@{VERSION}",
        ],
        check=True,
    )  # fmt: skip


@contextmanager
def served(cache: Path, log: Path) -> Iterator[str]:
    """Prism on a port of this host, and where; what it says is in `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        prism = subprocess.Popen(
            [
                (cache / "node_modules/.bin/prism").absolute(), "mock",
                "--host", "127.0.0.1", "--port", str(port), SUBSET,
            ],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while "Prism is listening" not in log.read_text():
            if prism.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Prism does not serve, see {log}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        prism.terminate()
        prism.wait()


async def ask(url: str) -> None:
    """Sends every request that ATT has, and one that is wrong, so that a check can fail."""
    api = GitHubApi(clock=SystemClock(), environ={"GITHUB_TOKEN": "a-token"})
    found = GitHubRepository(api, GitHubSettings(api_url=url), "octocat/Hello-World")
    try:
        await found.facts()
        await found.rules("main")
        await found.check_runs(SHA)
        await found.statuses(SHA)
        await found.pulls("new-topic", "master")
        await found.pull(1347)
        assert isinstance(await found.open_pull("new-topic", "master", "Title", "Body"), Pull)
        merged = await found.merge(1347, head=SHA, method="squash", title="Title", message="Body")
        assert merged.status == 200
        await found.close_pull(1347)
        await found.comments(1347)
        await found.comment(1347, "Body")
        refused = await found.merge(7, head=SHA, method="yolo", title="Title", message="Body")
        assert refused.status == 422
    finally:
        await api.aclose()


def told(log: str) -> tuple[set[str], list[str]]:
    """The operations that were asked for rightly, and what was wrong with others' requests.

    Of its own examples Prism says that they are not in their form; that is GitHub's.
    """
    received, wrong, refused = set(), [], 0
    for request in re.split(r"(?=\[HTTP SERVER\])", log)[1:]:
        found = re.match(r"\[HTTP SERVER\] (\w+) (\S+)", request)
        assert found is not None
        passed = "The request passed the validation rules" in request
        if found[2].endswith("/pulls/7/merge"):
            refused += not passed
        elif passed:
            received.add(f"{found[1]} {_template(found[2])}")
        else:
            wrong.append(request.strip())
    return received, wrong if refused else [*wrong, "Prism refuses nothing"]


def _template(path: str) -> str:
    for template in OPERATIONS:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return template
    return path


if __name__ == "__main__":
    sys.exit(main())

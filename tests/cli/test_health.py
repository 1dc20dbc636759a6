"""`att health`, and `att status --watch`, on a real server."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

from tests.cli.att import ATT, att, environment, python, running_att
from tests.server_process import PATIENCE

SERVES = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/broken" else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("listening on", server.server_port, flush=True)
server.serve_forever()
"""


def serving(target: str, project_id: str, path: Path) -> int:
    """Starts an app that serves HTTP, and returns its port."""
    words = ["project", "create", project_id, "--path", str(path), "--ready-log", "listening on"]
    created = att(*words, "--command", shell(SERVES), target=target)
    assert created.code == 0, created.stderr
    started = att("start", project_id, "--wait", "ready", "--json", target=target)
    assert started.code == 0, started.stderr
    log = att("logs", project_id, "--tail", "1", target=target).stdout
    return int(log.split()[-1])


def shell(code: str) -> str:
    return shlex.join(python(code))


def test_an_app_is_checked_by_what_is_asked_for(target: str, tmp_path: Path) -> None:
    port = serving(target, "checked", tmp_path)
    url = f"http://127.0.0.1:{port}"
    for words, reason, code in (
        ((), "log_matched", 0),
        (("--http", f"{url}/broken"), "http_status", 1),
        (("--tcp", str(port)), "tcp_ok", 0),
        (("--command", "sleep 60", "--timeout", "50ms"), "command_timeout", 1),
        (("--log", "no such line"), "log_not_matched", 1),
    ):
        checked = att("health", "checked", *words, "--json", target=target)
        assert (checked.item["health_reason"], checked.code) == (reason, code), words
        assert checked.item["healthy"] is (code == 0)
    assert b"not healthy (command_exit, exit code 3" in (
        att("health", "checked", "--command", "sh -c 'exit 3'", target=target).stdout
    )
    att("stop", "checked", "--grace", "0", target=target)
    ended = att("health", "checked", "--json", target=target)
    assert ended.code == 1
    assert ended.item["healthy"] is False


def test_a_check_that_cannot_be_made_is_refused(target: str, tmp_path: Path) -> None:
    att(*("project", "create", "refused", "--path", str(tmp_path)), target=target)
    two = att("health", "refused", "--tcp", "80", "--log", "x", "--json", target=target)
    assert (two.code, two.error["reason"]) == (2, "USAGE")
    abroad = att("health", "refused", "--http", "http://192.0.2.1/", "--json", target=target)
    assert (abroad.code, abroad.error["reason"]) == (1, "FIELD_INVALID")
    nobody = att("health", "nobody", "--json", target=target)
    assert nobody.error["reason"] == "PROJECT_NOT_FOUND"


def test_a_watch_prints_each_state_and_the_end_of_a_project(target: str, tmp_path: Path) -> None:
    words = ("project", "create", "watched", "--path", str(tmp_path), "--command", "sleep 600")
    assert att(*words, target=target).code == 0
    watch = running_att("status", "watched", "--watch", "--json", target=target)
    assert watch.stdout is not None
    try:
        assert json.loads(watch.stdout.readline())["state"] == "stopped"
        att("start", "watched", target=target)
        while (seen := json.loads(watch.stdout.readline()))["state"] != "ready":
            assert seen["state"] in ("stopped", "starting", "running")
        att("stop", "watched", "--grace", "0", target=target)
        while (seen := json.loads(watch.stdout.readline()))["state"] != "stopped":
            assert seen["state"] in ("ready", "stopping")
        att("project", "delete", "watched", "--yes", target=target)
        while not (seen := json.loads(watch.stdout.readline())).get("deleted"):
            assert seen["project_id"] == "watched"
    finally:
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=PATIENCE)
    assert watch.returncode == 130


def test_a_terminal_gets_a_table_that_lives(target: str, tmp_path: Path) -> None:
    words = ("project", "create", "shown", "--path", str(tmp_path))
    att(
        *words,
        "--command",
        shell("import time; print('hello', flush=True); time.sleep(600)"),
        target=target,
    )
    att("start", "shown", target=target)
    ours, theirs = pty.openpty()
    watch = subprocess.Popen(
        [*ATT, "status", "shown", "--watch"],
        env=environment(target, {"COLUMNS": "160", "TERM": "xterm"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = b""
    while not (b"LAST LINE" in screen and b"hello" in screen and b"ready" in screen):
        screen += os.read(ours, 65536)
    watch.send_signal(signal.SIGINT)
    assert watch.wait(PATIENCE) == 130
    os.close(ours)
    att("stop", "shown", "--grace", "0", target=target)

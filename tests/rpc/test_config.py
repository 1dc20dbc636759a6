"""What the server may be told, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from att_server.config import Config
from att_server.core.errors import RefusalReason, StartRefused


def resolve(
    state_dir: str | None = None,
    listen: str | None = None,
    log_level: str = "info",
    **environ: str,
) -> Config:
    listening = [] if listen is None else [listen]
    return Config.resolve(
        state_dir=state_dir, listen=listening, log_level=log_level, environ=environ
    )


@pytest.mark.parametrize(
    ("argument", "environ", "expected"),
    [
        ("/a", {"ATT_STATE_DIR": "/b", "XDG_STATE_HOME": "/c", "HOME": "/d"}, "/a"),
        (None, {"ATT_STATE_DIR": "/b", "XDG_STATE_HOME": "/c", "HOME": "/d"}, "/b"),
        (None, {"XDG_STATE_HOME": "/c", "HOME": "/d"}, "/c/att"),
        (None, {"XDG_STATE_HOME": "relative", "HOME": "/d"}, "/d/.local/state/att"),
        (None, {"HOME": "/d"}, "/d/.local/state/att"),
    ],
)
def test_the_state_directory_is_the_first_that_is_named(
    argument: str | None, environ: dict[str, str], expected: str
) -> None:
    config = resolve(argument, **environ)
    assert config.state_dir == Path(expected)
    assert config.socket_path == Path(expected) / "att.sock"


def test_a_relative_state_directory_is_against_the_current_one() -> None:
    assert resolve("state/../other").state_dir == Path.cwd() / "other"


def test_a_listener_may_be_elsewhere() -> None:
    assert resolve("/a", "unix:/run/att/s").socket_path == Path("/run/att/s")


@pytest.mark.parametrize(
    "listen",
    [
        "tcp:127.0.0.1:1",
        "127.0.0.1",
        ":7443",
        "127.0.0.1:65536",
        "[::1:7443",
        "[zz]:1",
        "a b:1",
        "host/x:1",
        "unix:relative",
        "unix-abstract:x",
        "",
        "unix:",
    ],
)
def test_what_is_no_listener_is_refused(listen: str) -> None:
    with pytest.raises(StartRefused) as refused:
        resolve("/a", listen)
    assert refused.value.reason is RefusalReason.LISTENER_NOT_ALLOWED


def test_a_socket_path_may_have_107_bytes_and_not_108() -> None:
    longest = "/" + "d" * (106 - len("/att.sock"))
    assert len(os.fsencode(resolve(longest).socket_path)) == 107
    with pytest.raises(StartRefused) as refused:
        resolve(longest + "d")
    assert refused.value.reason is RefusalReason.SOCKET_PATH_TOO_LONG


def test_bytes_and_not_characters_of_the_socket_path_count() -> None:
    with pytest.raises(StartRefused) as refused:
        resolve("/" + "ü" * 60)
    assert refused.value.reason is RefusalReason.SOCKET_PATH_TOO_LONG


@pytest.mark.parametrize("state_dir", ["", "a\0b"])
def test_a_state_directory_without_a_name_is_refused(state_dir: str) -> None:
    with pytest.raises(StartRefused) as refused:
        resolve(state_dir)
    assert refused.value.reason is RefusalReason.CONFIG_INVALID


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(StartRefused) as refused:
        resolve("/a", log_level="loud")
    assert refused.value.reason is RefusalReason.CONFIG_INVALID


def test_probe_hosts_come_from_arguments_and_environment() -> None:
    environ = {"HOME": "/d", "ATT_PROBE_HOSTS": "db.example, ::1,"}
    config = Config.resolve(
        state_dir=None,
        log_level="info",
        environ=environ,
        probe_hosts=["Web.Example", "10.0.0.7"],
    )
    assert config.probe_hosts == {"web.example", "10.0.0.7", "db.example", "::1"}
    assert resolve("/a").probe_hosts == frozenset()


@pytest.mark.parametrize(
    "host", ["", "http://web", "web:80", "[::1]", "a b", "*", "a/b", "-web", "web.", "x" * 300]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(StartRefused) as caught:
        Config.resolve(state_dir="/a", log_level="info", environ={}, probe_hosts=[host])
    assert caught.value.reason is RefusalReason.CONFIG_INVALID


def test_the_log_lies_below_the_state_directory() -> None:
    assert resolve("/a").log_path == Path("/a/log/server.log")

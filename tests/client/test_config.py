"""The environment and the arguments say where the server is, in one order."""

from __future__ import annotations

from datetime import timedelta

import pytest

import att_client
from att_client import Config, ConfigInvalidError, config


@pytest.mark.parametrize(
    ("environ", "target", "source"),
    [
        ({"ATT_TARGET": "unix:/a", "ATT_STATE_DIR": "/b"}, "unix:/a", "ATT_TARGET"),
        ({"ATT_STATE_DIR": "/b", "XDG_STATE_HOME": "/c"}, "unix:/b/att.sock", "ATT_STATE_DIR"),
        ({"XDG_STATE_HOME": "/c", "HOME": "/d"}, "unix:/c/att/att.sock", "XDG_STATE_HOME"),
        (
            {"XDG_STATE_HOME": "c", "HOME": "/d"},
            "unix:/d/.local/state/att/att.sock",
            "the default state directory",
        ),
        (
            {"ATT_TARGET": "", "ATT_STATE_DIR": "", "XDG_STATE_HOME": "", "HOME": "/d"},
            "unix:/d/.local/state/att/att.sock",
            "the default state directory",
        ),
    ],
)
def test_the_first_of_target_state_dir_and_defaults_wins(
    environ: dict[str, str], target: str, source: str
) -> None:
    found = Config.from_env(environ)
    assert (found.target, found.source) == (target, source)


def test_an_argument_wins_over_the_environment_but_leaves_the_timeout() -> None:
    environ = {"ATT_TARGET": "unix:/a", "ATT_TIMEOUT": "2.5"}
    found = Config.from_env(environ, target="unix:/b")
    assert found.target == "unix:/b"
    assert found.timeout == timedelta(seconds=2.5)


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATT_TARGET", "unix:/from/env")
    assert att_client.connect().target == "unix:/from/env"
    assert att_client.connect("unix:/x").target == "unix:/x"
    assert att_client.connect(config=Config(target="unix:/y")).target == "unix:/y"
    assert att_client.connect("unix:/z", config=Config(target="unix:/y")).target == "unix:/z"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "unix:",
        "unix:a",
        "unix:a/b",
        "/a/att.sock",
        "localhost",
        ":80",
        "localhost:0",
        "localhost:65536",
        "[x]:80",
        "a b:80",
        "https://a:80",
        "tcp:localhost:80",
        "tcp:10.0.0.1:80",
        "tcp:[::]:80",
        "unix:/a\0b",
        "unix:/a,b",
        "tcp:/x",
    ],
)
def test_another_kind_of_target_is_refused_with_what_named_it(target: str) -> None:
    with pytest.raises(ConfigInvalidError, match="the argument `target`"):
        att_client.connect(target)


@pytest.mark.parametrize(
    ("target", "encrypted"),
    [
        ("att.example.org:7443", True),
        ("127.0.0.1:7443", True),
        ("[::1]:7443", True),
        ("tcp:127.0.0.1:7443", False),
        ("tcp:[::1]:7443", False),
    ],
)
def test_a_port_is_reached_over_tls_unless_it_is_here_and_nobody_minds(
    target: str, encrypted: bool
) -> None:
    assert Config(target=target).address.encrypted is encrypted
    if encrypted:
        assert Config(target=target, token="att_x").token
    else:
        with pytest.raises(ConfigInvalidError, match="clear text") as error:
            Config(target=target, token="att_secret")
        assert "att_secret" not in error.value.message


def test_tls_files_come_from_the_environment_and_a_certificate_has_its_key() -> None:
    files = {"ATT_CA_FILE": "/ca", "ATT_CERT_FILE": "/c", "ATT_KEY_FILE": "/k"}
    found = Config.from_env(files, target="a:1")
    assert [str(found.ca_file), str(found.cert_file), str(found.key_file)] == ["/ca", "/c", "/k"]
    with pytest.raises(ConfigInvalidError, match="ATT_KEY_FILE"):
        Config.from_env({"ATT_CERT_FILE": "/c"}, target="a:1")


def test_a_socket_path_is_refused_where_the_kernel_would() -> None:
    assert Config(target="unix:/" + "a" * 106).target
    with pytest.raises(ConfigInvalidError, match="107"):
        Config(target="unix:/" + "a" * 107)
    with pytest.raises(ConfigInvalidError, match="ATT_STATE_DIR"):
        Config.from_env({"ATT_STATE_DIR": "/" + "ä" * 60})


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "x", "1e9", "30s"])
def test_a_timeout_that_is_none_is_refused(timeout: str) -> None:
    with pytest.raises(ConfigInvalidError, match="ATT_TIMEOUT"):
        Config.from_env({"ATT_TIMEOUT": timeout})
    with pytest.raises(ConfigInvalidError, match="timeout"):
        Config(target="unix:/a", timeout=timedelta(0))


def test_the_table_lists_the_variables_that_are_read() -> None:
    read: set[str] = set()

    class Recording(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:
            read.add(key)
            return ""

    Config.from_env(Recording())
    assert config.__doc__ is not None
    told = {line.split("`")[1] for line in config.__doc__.splitlines() if line.startswith("| `")}
    assert read - {"HOME"} == told

"""Where a server listens and where it does not: each cell of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from att_server.core.errors import RefusalReason, StartRefused
from att_server.core.listeners import (
    Listener,
    NetworkTerms,
    SocketListener,
    TcpListener,
    TlsFiles,
    one_socket,
    parse_listener,
)

TLS = TlsFiles(certificate=Path("/c"), key=Path("/k"))
MUTUAL = TlsFiles(certificate=Path("/c"), key=Path("/k"), client_ca=Path("/a"))

HERE = ("127.0.0.1:7443", "127.1.2.3:0", "[::1]:7443")
ELSEWHERE = (
    "0.0.0.0:7443",
    "[::]:7443",
    "192.0.2.1:7443",
    "[::ffff:127.0.0.1]:7443",
    "localhost:7443",
    "att.example.org:7443",
)
USER, ROOT = 1000, 0


def refusal(text: str, *, any_token: bool = False, uid: int = USER, **terms: object) -> str:
    """The reason that the listener is refused for; empty where it is not."""
    listener = parse_listener(text)
    assert isinstance(listener, TcpListener)
    try:
        NetworkTerms(listeners=(listener,), **terms).check(  # type: ignore[arg-type]  # of any kind
            any_token=any_token, uid=uid
        )
    except StartRefused as refused:
        return refused.reason
    return ""


@pytest.mark.parametrize("text", HERE)
def test_the_loopback_wants_a_token_or_certificates(text: str) -> None:
    assert refusal(text) == RefusalReason.AUTH_REQUIRED
    assert refusal(text, tls=TLS) == RefusalReason.AUTH_REQUIRED
    assert refusal(text, any_token=True) == ""
    assert refusal(text, any_token=True, tls=TLS) == ""
    assert refusal(text, tls=MUTUAL) == ""
    assert refusal(text, no_auth=True) == ""
    # The flag lets nobody in over TLS, so it does not start that.
    assert refusal(text, no_auth=True, tls=TLS) == RefusalReason.AUTH_REQUIRED


@pytest.mark.parametrize("text", ELSEWHERE)
def test_every_other_listener_wants_tls_and_a_token_or_certificates_whatever_the_flags(
    text: str,
) -> None:
    assert refusal(text) == RefusalReason.TLS_REQUIRED
    assert refusal(text, any_token=True, no_auth=True) == RefusalReason.TLS_REQUIRED
    assert refusal(text, tls=TLS) == RefusalReason.AUTH_REQUIRED
    assert refusal(text, tls=TLS, no_auth=True) == RefusalReason.AUTH_REQUIRED
    assert refusal(text, tls=TLS, any_token=True) == ""
    assert refusal(text, tls=MUTUAL) == ""


@pytest.mark.parametrize("text", [*HERE, *ELSEWHERE])
def test_root_serves_the_socket_only_unless_it_is_allowed(text: str) -> None:
    assert refusal(text, any_token=True, tls=TLS, uid=ROOT) == RefusalReason.REFUSING_ROOT
    assert refusal(text, any_token=True, tls=TLS, uid=ROOT, allow_root=True) == ""
    NetworkTerms().check(any_token=False, uid=ROOT)


def test_one_listener_that_is_refused_refuses_all() -> None:
    listeners = (TcpListener(host="127.0.0.1", port=1), TcpListener(host="0.0.0.0", port=2))
    with pytest.raises(StartRefused) as refused:
        NetworkTerms(listeners=listeners).check(any_token=True, uid=USER)
    assert refused.value.reason is RefusalReason.TLS_REQUIRED


def test_a_refusal_says_exactly_what_to_add() -> None:
    with pytest.raises(StartRefused) as refused:
        NetworkTerms(listeners=(TcpListener(host="0.0.0.0", port=7443),)).check(
            any_token=False, uid=USER
        )
    for words in ("0.0.0.0:7443", "--tls-cert", "--tls-key", "att token create"):
        assert words in refused.value.message


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("unix:/run/att/s", SocketListener(path=Path("/run/att/s"))),
        ("127.0.0.1:0", TcpListener(host="127.0.0.1", port=0)),
        ("[::]:7443", TcpListener(host="::", port=7443)),
        ("att.example.org:65535", TcpListener(host="att.example.org", port=65_535)),
    ],
)
def test_a_listener_is_a_socket_or_a_port(text: str, meant: Listener) -> None:
    assert parse_listener(text) == meant


def test_a_server_has_one_socket() -> None:
    default, other = Path("/d"), SocketListener(path=Path("/o"))
    assert one_socket([TcpListener(host="::1", port=1)], default) == default
    assert one_socket([other], default) == Path("/o")
    with pytest.raises(StartRefused) as refused:
        one_socket([other, other], default)
    assert refused.value.reason is RefusalReason.LISTENER_NOT_ALLOWED

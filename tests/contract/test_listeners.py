"""What is told of the sockets that listen on a port, by the kernel and by its tables."""

from __future__ import annotations

import os
import socket

import pytest

from att_server.adapters.probes import listeners as module
from att_server.adapters.probes.listeners import listeners


@pytest.fixture(params=["kernel", "tables"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as on a host whose kernel cannot be asked."""
    if request.param == "tables":
        monkeypatch.setattr(module, "_SOCK_DIAG", 250)


def name_of(listener: socket.socket) -> str:
    return os.readlink(f"/proc/self/fd/{listener.fileno()}")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.8.7", "0.0.0.0", "::1", "::"])
def test_a_listener_is_told_by_its_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        found = listeners(listener.getsockname()[1])
        assert (address, name_of(listener)) in found


@pytest.mark.usefixtures("way")
def test_an_address_of_the_other_family_is_told_as_such() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        (found,) = listeners(listener.getsockname()[1])
    assert found[0].startswith("::ffff:")


@pytest.mark.usefixtures("way")
def test_all_that_share_a_port_are_told() -> None:
    with socket.socket() as one, socket.socket() as two:
        for listener in (one, two):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        two.bind(one.getsockname())
        for listener in (one, two):
            listener.listen()
        found = {name for _, name in listeners(one.getsockname()[1])}
        assert found == {name_of(one), name_of(two)}


@pytest.mark.usefixtures("way")
def test_a_socket_that_does_not_listen_is_not_told() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        port = listener.getsockname()[1]
        assert listeners(connection.getsockname()[1]) == []
        assert len(listeners(port)) == 1
    assert listeners(port) == []

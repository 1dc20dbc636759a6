"""What every prober keeps to, and what an app's answer over HTTP means."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import psutil
import pytest

from att_server.adapters.probes import SystemProber
from att_server.core.ports import Prober
from att_server.core.settings import HttpProbe, Probe
from att_server.testing.clock import FakeClock
from att_server.testing.log_store import MemoryLogStore
from att_server.testing.prober import FakeProber
from tests.contract.probed_apps import LONG, SubprocessRunner, target
from tests.contract.probed_apps import app as app_of
from tests.server_process import PATIENCE


def app(
    way: str, *, host: str = "127.0.0.1", port: int = 0, run_id: str = ""
) -> AbstractContextManager[tuple[int, int]]:
    """An app that answers in some way (see `http_app.py`): its pid and port."""
    return app_of("http_app.py", way, host, port, run_id=run_id)


def probe(port: int, *, host: str = "127.0.0.1", timeout: timedelta = LONG) -> Probe:
    return Probe(kind=HttpProbe(url=f"http://{host}:{port}/health"), timeout=timeout)


def system_prober(allowed_hosts: frozenset[str] = frozenset()) -> SystemProber:
    return SystemProber(
        FakeClock(),
        logs=MemoryLogStore(),
        commands=SubprocessRunner(),
        allowed_hosts=allowed_hosts,
    )


@pytest.fixture
async def prober() -> AsyncIterator[SystemProber]:
    made = system_prober()
    yield made
    await made.aclose()


App = Callable[[int], AbstractContextManager[tuple[Prober, Probe, int]]]


@pytest.fixture(params=["system", "fake"])
def app_that_answers(request: pytest.FixtureRequest, prober: SystemProber) -> App:
    """An app that answers with a status: a prober for it, its probe and its pid."""

    @contextmanager
    def real(status: int) -> Iterator[tuple[Prober, Probe, int]]:
        with app(str(status)) as (pid, port):
            yield prober, probe(port), pid

    @contextmanager
    def fake(status: int) -> Iterator[tuple[Prober, Probe, int]]:
        made = FakeProber()
        asked = probe(1)
        made.set(asked.kind, healthy=200 <= status <= 399, status=status)
        yield made, asked, 7

    return real if request.param == "system" else fake


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_a_good_status_is_healthy(app_that_answers: App, status: int) -> None:
    with app_that_answers(status) as (prober, asked, pid):
        result = await prober.probe(asked, target(pid))
    assert (result.healthy, result.probe, result.reason) == (True, "http", "http_ok")
    assert result.http_status == status
    assert result.checked_at == FakeClock().now()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_another_status_is_unhealthy(app_that_answers: App, status: int) -> None:
    with app_that_answers(status) as (prober, asked, pid):
        result = await prober.probe(asked, target(pid))
    assert (result.healthy, result.probe, result.reason) == (False, "http", "http_status")
    assert result.http_status == status


@pytest.mark.parametrize("made", [system_prober, FakeProber])
async def test_an_app_that_does_not_listen_is_unhealthy(made: Callable[[], Prober]) -> None:
    prober = made()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    result = await prober.probe(probe(port), target(os.getpid()))
    assert (result.healthy, result.reason, result.http_status) == (False, "http_error", None)
    await prober.aclose()


async def test_a_prober_can_be_closed_unused_and_twice(prober: SystemProber) -> None:
    await prober.aclose()
    await prober.aclose()


async def test_an_app_that_does_not_answer_in_time_is_unhealthy(prober: SystemProber) -> None:
    with app("silent") as (pid, port):
        asked = probe(port, timeout=timedelta(milliseconds=100))
        result = await prober.probe(asked, target(pid))
    assert (result.healthy, result.reason, result.http_status) == (False, "http_timeout", None)


@pytest.mark.parametrize("way", ["garbage", "gone"])
async def test_an_answer_that_is_no_http_is_unhealthy(prober: SystemProber, way: str) -> None:
    with app(way) as (pid, port):
        result = await prober.probe(probe(port), target(pid))
    assert (result.healthy, result.reason) == (False, "http_error")


async def test_the_body_of_an_answer_is_not_waited_for(prober: SystemProber) -> None:
    with app("slow-body") as (pid, port):
        result = await prober.probe(probe(port), target(pid))
    assert result.healthy


async def test_a_redirect_is_an_answer_and_not_followed(prober: SystemProber) -> None:
    with app("moved") as (pid, port):
        result = await prober.probe(probe(port), target(pid))
    assert (result.healthy, result.http_status) == (True, 302)


async def test_proxies_of_the_environment_are_not_used(
    prober: SystemProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with app("200") as (pid, port):
        assert (await prober.probe(probe(port), target(pid))).healthy


@pytest.mark.parametrize(
    ("listening", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.9"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("::", "127.0.0.1"),
    ],
)
async def test_an_app_is_found_on_every_address_it_listens_on(
    prober: SystemProber, listening: str, asked: str
) -> None:
    with app("200", host=listening) as (pid, port):
        result = await prober.probe(probe(port, host=asked), target(pid))
    assert result.reason == "http_ok"


@pytest.mark.parametrize("way", ["child", "daemon"])
async def test_a_listener_of_the_apps_tree_is_the_apps(prober: SystemProber, way: str) -> None:
    with app(way, run_id="RUN1") as (pid, port):
        result = await prober.probe(probe(port), target(pid, run_id="RUN1"))
    assert result.reason == "http_ok"


async def test_a_listener_that_left_the_app_and_its_environment_is_the_apps(
    prober: SystemProber,
) -> None:
    with app("bare", run_id="RUN1") as (supervisor, port):
        main = min(psutil.Process(supervisor).children(), key=lambda child: child.create_time())
        result = await prober.probe(probe(port), target(main.pid, run_id="RUN1"))
    assert result.reason == "http_ok"


async def test_an_answer_of_another_process_is_not_believed(prober: SystemProber) -> None:
    with app("200", run_id="RUN1") as (_, port), app("200", run_id="RUN2") as (pid, _):
        result = await prober.probe(probe(port), target(pid))
    assert (result.healthy, result.reason) == (False, "port_owned_by_other_process")


async def test_an_answer_for_a_process_that_is_gone_is_not_believed(prober: SystemProber) -> None:
    with app("200") as (gone, _):
        pass
    with app("200") as (_, port):
        result = await prober.probe(probe(port), target(gone))
    assert result.reason == "port_owned_by_other_process"


async def test_a_port_that_changed_hands_is_noticed(prober: SystemProber) -> None:
    with app("child") as (pid, port):
        first = await prober.probe(probe(port), target(pid))
        (listening,) = psutil.Process(pid).children()
        listening.kill()
        listening.wait(PATIENCE)
        with app("200", port=port):
            second = await prober.probe(probe(port), target(pid))
    assert (first.reason, second.reason) == ("http_ok", "port_owned_by_other_process")


async def test_a_check_can_be_cancelled(prober: SystemProber) -> None:
    with app("silent") as (pid, port):
        check = asyncio.create_task(prober.probe(probe(port), target(pid)))
        done, _ = await asyncio.wait([check], timeout=0.05)
        assert not done
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check


async def test_an_app_that_dribbles_costs_no_more_than_the_timeout(prober: SystemProber) -> None:
    with app("drip") as (pid, port):
        asked = probe(port, timeout=timedelta(milliseconds=300))
        result = await prober.probe(asked, target(pid))
    assert (result.healthy, result.reason) == (False, "http_timeout")


@pytest.mark.parametrize(("way", "reason"), [("big-head", "http_error"), ("big-body", "http_ok")])
async def test_an_app_that_sends_a_gibibyte_costs_no_memory(
    prober: SystemProber, way: str, reason: str
) -> None:
    with app("200") as (pid, port):
        await prober.probe(probe(port), target(pid))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with app(way) as (pid, port):
        result = await prober.probe(probe(port), target(pid))
    assert result.reason == reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_the_app_is_asked_by_the_name_that_was_given(prober: SystemProber, host: str) -> None:
    with app("for-localhost") as (pid, port):
        result = await prober.probe(probe(port, host=host), target(pid))
    assert result.http_status == (200 if host == "localhost" else 400)


async def test_the_answer_after_an_interim_one_counts(prober: SystemProber) -> None:
    with app("early") as (pid, port):
        assert (await prober.probe(probe(port), target(pid))).http_status == 200


async def test_nothing_is_sent_to_a_stranger(prober: SystemProber) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        app("200", run_id="RUN2") as (pid, _),
    ):
        listener.setblocking(False)
        result = await prober.probe(probe(listener.getsockname()[1]), target(pid))
        assert result.reason == "port_owned_by_other_process"
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_of_two_listeners_of_a_port_the_one_that_answers_counts(
    prober: SystemProber,
) -> None:
    with app("200", host="0.0.0.0") as (pid, port), socket.socket(socket.AF_INET6) as stranger:
        stranger.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        stranger.bind(("::1", port))
        stranger.listen()
        v6 = await prober.probe(probe(port, host="[::1]"), target(pid))
        v4 = await prober.probe(probe(port), target(pid))
        both = await prober.probe(probe(port, host="localhost"), target(pid))
    assert v6.reason == "port_owned_by_other_process"
    assert (v4.reason, both.reason) == ("http_ok", "http_ok")


@pytest.mark.parametrize("host", ["host.invalid", "192.0.2.1", "[2001:db8::1]"])
async def test_a_host_that_is_not_allowed_is_not_asked(prober: SystemProber, host: str) -> None:
    result = await prober.probe(probe(1, host=host), target(os.getpid()))
    assert result.reason == "http_error"


async def test_a_name_that_is_allowed_but_unknown_is_unhealthy() -> None:
    prober = system_prober(frozenset({"host.invalid"}))
    result = await prober.probe(probe(1, host="host.invalid"), target(os.getpid()))
    assert result.reason in ("http_error", "http_timeout")
    await prober.aclose()


async def test_an_allowed_host_need_not_be_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    (address, *_) = [
        info.address
        for infos in psutil.net_if_addrs().values()
        for info in infos
        if info.family is socket.AF_INET and not info.address.startswith("127.")
    ] or [""]
    if not address:
        return  # this host has the loopback interface alone
    prober = system_prober(frozenset({address}))
    with app("200", host=address) as (_, port):
        result = await prober.probe(probe(port, host=address), target(os.getpid()))
    assert result.reason == "http_ok"
    await prober.aclose()


async def test_a_hundred_apps_that_hang_cost_a_hundred_descriptors_and_no_thread(
    prober: SystemProber,
) -> None:
    me = psutil.Process()
    with app("silent") as (pid, port):
        await prober.probe(probe(port, timeout=timedelta(milliseconds=50)), target(pid))
        files, threads = me.num_fds(), me.num_threads()
        checks = [asyncio.create_task(prober.probe(probe(port), target(pid))) for _ in range(100)]
        await asyncio.wait(checks, timeout=1)
        assert me.num_fds() <= files + 110
        assert me.num_threads() <= threads + 8
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
    assert me.num_fds() <= files + 2

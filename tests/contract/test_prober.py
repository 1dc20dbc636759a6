"""What every prober keeps to, and what an app's answer over HTTP means."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from att_server.adapters.probes import HttpProber
from att_server.core.model import HttpProbe
from att_server.core.ports import Prober
from att_server.testing.clock import FakeClock
from att_server.testing.prober import FakeProber

PROGRAM = Path(__file__).with_name("http_app.py")


@contextmanager
def app(
    way: str, *, host: str = "127.0.0.1", port: int = 0, run_id: str = ""
) -> Iterator[tuple[int, int]]:
    """An app that answers in some way (see `http_app.py`): its pid and port."""
    command = [sys.executable, str(PROGRAM), way, host, str(port)]
    environ = {**os.environ, "ATT_RUN_ID": run_id}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environ, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def probe(port: int, *, host: str = "127.0.0.1", timeout: timedelta | None = None) -> HttpProbe:
    return HttpProbe(url=f"http://{host}:{port}/health", timeout=timeout or timedelta(seconds=20))


@pytest.fixture
async def prober() -> AsyncIterator[HttpProber]:
    made = HttpProber(FakeClock())
    yield made
    await made.aclose()


App = Callable[[int], AbstractContextManager[tuple[Prober, HttpProbe, int]]]


@pytest.fixture(params=["http", "fake"])
def app_that_answers(request: pytest.FixtureRequest, prober: HttpProber) -> App:
    """An app that answers with a status: a prober for it, its probe and its pid."""

    @contextmanager
    def real(status: int) -> Iterator[tuple[Prober, HttpProbe, int]]:
        with app(str(status)) as (pid, port):
            yield prober, probe(port), pid

    @contextmanager
    def fake(status: int) -> Iterator[tuple[Prober, HttpProbe, int]]:
        made = FakeProber()
        made.set(probe(1).url, healthy=200 <= status <= 399, status=status)
        yield made, probe(1), 7

    return real if request.param == "http" else fake


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_a_good_status_is_healthy(app_that_answers: App, status: int) -> None:
    with app_that_answers(status) as (prober, asked, pid):
        result = await prober.probe(asked, pid=pid)
    assert (result.healthy, result.probe, result.reason) == (True, "http", "http_ok")
    assert result.http_status == status
    assert result.checked_at == FakeClock().now()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_another_status_is_unhealthy(app_that_answers: App, status: int) -> None:
    with app_that_answers(status) as (prober, asked, pid):
        result = await prober.probe(asked, pid=pid)
    assert (result.healthy, result.probe, result.reason) == (False, "http", "http_status")
    assert result.http_status == status


@pytest.mark.parametrize("made", [lambda: HttpProber(FakeClock()), FakeProber])
async def test_an_app_that_does_not_listen_is_unhealthy(made: Callable[[], Prober]) -> None:
    prober = made()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    result = await prober.probe(probe(port), pid=os.getpid())
    assert (result.healthy, result.reason, result.http_status) == (False, "http_error", None)
    await prober.aclose()


async def test_a_prober_can_be_closed_unused_and_twice(prober: HttpProber) -> None:
    await prober.aclose()
    await prober.aclose()


async def test_an_app_that_does_not_answer_in_time_is_unhealthy(prober: HttpProber) -> None:
    with app("silent") as (pid, port):
        asked = probe(port, timeout=timedelta(milliseconds=100))
        result = await prober.probe(asked, pid=pid)
    assert (result.healthy, result.reason, result.http_status) == (False, "http_timeout", None)


async def test_an_answer_that_is_no_http_is_unhealthy(prober: HttpProber) -> None:
    with app("garbage") as (pid, port):
        result = await prober.probe(probe(port), pid=pid)
    assert (result.healthy, result.reason) == (False, "http_error")


async def test_the_body_of_an_answer_is_not_waited_for(prober: HttpProber) -> None:
    with app("slow-body") as (pid, port):
        result = await prober.probe(probe(port), pid=pid)
    assert result.healthy


async def test_a_redirect_is_an_answer_and_not_followed(prober: HttpProber) -> None:
    with app("moved") as (pid, port):
        result = await prober.probe(probe(port), pid=pid)
    assert (result.healthy, result.http_status) == (True, 302)


async def test_proxies_of_the_environment_are_not_used(
    prober: HttpProber, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with app("200") as (pid, port):
        assert (await prober.probe(probe(port), pid=pid)).healthy


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
    prober: HttpProber, listening: str, asked: str
) -> None:
    with app("200", host=listening) as (pid, port):
        result = await prober.probe(probe(port, host=asked), pid=pid)
    assert result.reason == "http_ok"


@pytest.mark.parametrize("way", ["child", "daemon"])
async def test_a_listener_of_the_apps_tree_is_the_apps(prober: HttpProber, way: str) -> None:
    with app(way, run_id="RUN1") as (pid, port):
        result = await prober.probe(probe(port), pid=pid)
    assert result.reason == "http_ok"


async def test_an_answer_of_another_process_is_not_believed(prober: HttpProber) -> None:
    with app("200", run_id="RUN1") as (_, port), app("200", run_id="RUN2") as (pid, _):
        result = await prober.probe(probe(port), pid=pid)
    assert (result.healthy, result.reason) == (False, "port_owned_by_other_process")


async def test_an_answer_for_a_process_that_is_gone_is_not_believed(prober: HttpProber) -> None:
    with app("200") as (gone, _):
        pass
    with app("200") as (_, port):
        result = await prober.probe(probe(port), pid=gone)
    assert result.reason == "port_owned_by_other_process"


async def test_a_port_that_changed_hands_is_noticed(prober: HttpProber) -> None:
    with app("child") as (pid, port):
        first = await prober.probe(probe(port), pid=pid)
        (listening,) = psutil.Process(pid).children()
        listening.kill()
        listening.wait(timeout=30)
        with app("200", port=port):
            second = await prober.probe(probe(port), pid=pid)
    assert (first.reason, second.reason) == ("http_ok", "port_owned_by_other_process")


async def test_a_check_can_be_cancelled(prober: HttpProber) -> None:
    with app("silent") as (pid, port):
        check = asyncio.create_task(prober.probe(probe(port), pid=pid))
        done, _ = await asyncio.wait([check], timeout=0.05)
        assert not done
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check

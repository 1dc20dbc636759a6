"""What every test stands on: no settings from outside, and the length of kill storms."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import canary

# Tests that were started in the background ignore SIGINT, and with them every
# process that they start to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says how busy the machine is. The gate tries the same examples
# each time, so that what it says is about the change; `make check-properties` tries others.
_ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("att", _ANY_SPEED, derandomize=True)
settings.register_profile("explore", _ANY_SPEED, max_examples=2000)
settings.load_profile("att")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=10,
        help="how often a kill storm kills (default 10; `make check-faults-long` uses 100)",
    )
    parser.addoption(
        "--previous",
        action="append",
        default=[],
        help="a release that tests/compat keeps, or a revision, to run by turns with this one",
    )


@pytest.fixture(scope="session", autouse=True)
def no_token_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Looks, after all tests, for tokens in what they have left: logs, databases, backups.

    They belong into files that are named for it, and nowhere else.
    """
    with canary.watching(tmp_path_factory.getbasetemp()) as found:
        yield
    assert found == []


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How often a kill storm kills."""
    count: int = request.config.getoption("--kills")
    return count


@pytest.fixture(autouse=True)
def storms_are_not_measured(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spares processes that are killed or timed the coverage, which a SIGKILL loses anyway."""
    if {"faults", "examples", "own"} & set(request.path.parts):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes what a developer's shell may say about ATT."""
    for name in list(os.environ):
        if name.startswith("ATT_"):
            monkeypatch.delenv(name)

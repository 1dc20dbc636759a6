"""What every test stands on: no settings from outside, and the length of kill storms."""

from __future__ import annotations

import os
import signal

import pytest

# Tests that were started in the background ignore SIGINT, and with them every
# process that they start to interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kills",
        type=int,
        default=10,
        help="how often a kill storm kills (default 10; `make check-faults-long` uses 100)",
    )


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
    if {"faults", "examples"} & set(request.path.parts):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes what a developer's shell may say about ATT."""
    for name in list(os.environ):
        if name.startswith("ATT_"):
            monkeypatch.delenv(name)

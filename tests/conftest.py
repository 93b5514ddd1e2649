"""What many tests share: a real Mosquitto, a real InfluxDB, and waiting for a condition instead of sleeping in hope."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from servers import Influx

from messages.broker import Broker

# The same examples in every run: a red test is a defect, never luck. `--hypothesis-profile=search` looks for new ones.
# How long an example takes says how busy the machine is, not whether a promise is kept.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", max_examples=1_000, deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _a_log_of_its_own() -> Iterator[None]:
    """What a test says of logging ends with it: the next one's log goes where that one looks for it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A private Mosquitto that may be killed and started again."""
    with Broker(directory=tmp_path / "broker") as running:
        yield running


@pytest.fixture(scope="session")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """An InfluxDB 1.x for tests that make databases of their own in it, and leave it running."""
    with Influx(tmp_path_factory.mktemp("influx")) as running:
        yield running


async def eventually(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "") -> Any:
    """Poll `condition` (plain or async) until it is true and return its value; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.01)

"""What many tests share: a real Mosquitto, a real InfluxDB, and waiting for a condition instead of sleeping in hope."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
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
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests that import onnxruntime before anything of the edge
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in `shoal edge`: threads of several workers only wait for each other
WAITING = "test_torture"
"""The longest that need no machine code: first, since begun as the last they would leave a worker alone with them."""
WHOLE = ("test_dashboards", "test_demo", "test_demo_remanufacturing")
"""Whole plants, whose processes need machine code: after the tests that compile it, or it is compiled twice at once."""
COMPILED = "test_solvers"
"""The file after which all of it is."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files by their names, but the longest waits first and whole plants later."""
    late = {name: f"{COMPILED}~{name}" for name in WHOLE}
    items.sort(key=lambda item: (item.path.stem != WAITING, late.get(item.path.stem, item.path.stem)))


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


@asynccontextmanager
async def beside(*coroutines: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """They run beside the test; what one of them raises is raised at the end of the block."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

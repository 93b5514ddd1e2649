"""The planner waits for nothing it does not need: a search that is overtaken ends, and so does one when it stops."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import eventually
from numba.core import event
from planner_rig import MINUTE, T0, Rig, one_stage_plant, rig, two_node_plant
from structlog.testing import capture_logs

from cloud import warming
from cloud.planning import alternatives, at_once
from cloud.scheduling.ready import warm_planner
from cloud.service import place_kernels
from cloud.settings import PlannerSettings
from cloud.working import in_thread
from messages.broker import Broker
from messages.contracts import OrderedJob, StateChanged
from messages.floor import Floor, problem_of

LONG_S = 600.0
"""A search that nobody interrupts would outlast every test."""
COMPILING_S = 180.0
"""Where kernels may have to be compiled first."""
JOBS = [f"{'ab'[n % 2]}-{n}" for n in range(90)]
"""So many, by three measures, that nobody proves anything of them in that time."""
FOR: dict[str, Any] = {"budget_s": LONG_S, "objectives": ("makespan", "energy", "peak")}


async def searching(it: Rig) -> asyncio.Task[None]:
    """A tick in which the planner has published its plan at once, and looks for a better one."""
    await it.order(*JOBS)
    await eventually(lambda: it.planner.jobs)
    ticking = asyncio.create_task(it.tick(T0))
    await eventually(lambda: it.plans or ticking.done(), COMPILING_S)
    await asyncio.sleep(0.3)
    assert not ticking.done()
    return ticking


async def test_a_planner_that_is_told_to_stop_ends_its_search_and_plans_again_when_it_is_back(
    broker: Broker, tmp_path: Path
) -> None:
    async with rig(broker, tmp_path, two_node_plant(), **FOR) as it:
        ticking = await searching(it)
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(LONG_S / 3):
                await ticking
        await eventually(lambda: all(one.name != "planner" for one in threading.enumerate()), COMPILING_S)
        revision = it.planner.out.revision
    async with rig(broker, tmp_path, two_node_plant()) as it:
        assert it.planner.wanted == "order o1"
        await it.tick(T0 + MINUTE)
        assert it.planner.out.revision > revision and it.planner.wanted is None


async def test_an_order_that_comes_while_it_searches_is_planned_at_once(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, two_node_plant(), **FOR) as it:
        ticking = await searching(it)
        await it.order("a-rush", name="rush")
        async with asyncio.timeout(LONG_S / 3):
            await ticking
        again = asyncio.create_task(it.tick(T0 + MINUTE))
        await eventually(lambda: any(one.job == "a-rush" for one in it.plans[-1].body.plan.assignments), COMPILING_S)
        assert it.plans[-1].body.why == "order rush" and it.plans[-1].body.moved is not None
        again.cancel()
        with suppress(asyncio.CancelledError):
            await again


async def test_a_breakdown_while_it_searches_is_answered_at_once(broker: Broker, tmp_path: Path) -> None:
    async with rig(broker, tmp_path, one_stage_plant(), accelerated=False, **FOR) as it:
        ticking = await searching(it)
        it.record(StateChanged(at=T0, machine="oven-1", state="down", repair_at=T0 + 3600 * MINUTE))
        async with asyncio.timeout(LONG_S / 3):
            await ticking
        assert it.planner.wanted == "oven-1 broke down"
        again = asyncio.create_task(it.tick(T0 + MINUTE))
        await eventually(lambda: it.plans[-1].body.why == "oven-1 broke down", COMPILING_S)
        assert it.planner.out.state.replans == 1
        again.cancel()
        with suppress(asyncio.CancelledError):
            await again


async def test_a_thread_that_hears_nothing_keeps_nobody_waiting() -> None:
    deaf, stop = threading.Event(), threading.Event()
    work = asyncio.create_task(in_thread(deaf.wait, stop))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert stop.is_set() and time.monotonic() - began < 30
    deaf.set()
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0, threading.Event())


async def test_plans_wait_for_kernels_that_another_process_compiles_and_it_dies_with_the_planner(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def children() -> list[psutil.Process]:
        return [one for one in psutil.Process().children() if warming.CHILD in one.cmdline()]

    monkeypatch.setattr(warming, "is_warm", lambda measures: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "empty"))
    async with rig(broker, tmp_path, two_node_plant(), accelerated=False) as it:
        with capture_logs() as said:
            compiling = asyncio.create_task(it.planner.get_ready())
            await eventually(children)
            await it.order("a")
            await eventually(lambda: it.planner.jobs)
            await it.tick(T0)
            assert it.plans == [] and it.planner.wanted == "order o1"
            compiling.cancel()
            with suppress(asyncio.CancelledError):
                async with asyncio.timeout(30):
                    await compiling
        assert children() == [] and said[0]["event"] == "kernels.compiling"


@pytest.mark.parametrize(
    ("child", "then"),
    [
        ("import sys, time; sys.stdin.read(); print('ready', flush=True); time.sleep(600)", "kernels.ready"),
        ("raise SystemExit('no compiler')", "kernels.not_compiled"),
    ],
)
async def test_a_first_plan_comes_when_kernels_are_ready_and_also_when_they_cannot_be_made_ready(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: str, then: str
) -> None:
    monkeypatch.setattr(warming, "is_warm", lambda measures: False)
    monkeypatch.setattr(warming, "CHILD", child)
    async with rig(broker, tmp_path, two_node_plant()) as it:
        with capture_logs() as said:
            compiling = asyncio.create_task(it.planner.get_ready())
            await it.order("a")
            await eventually(lambda: it.planner.wanted)
            await it.tick(T0)
            assert it.planner.out.revision > 0 and it.planner.wanted is None
        compiling.cancel()
        with suppress(asyncio.CancelledError):
            await compiling
    told = next(one for one in said if one["event"] == then)
    assert then == "kernels.ready" or "no compiler" in told["why"]


def test_after_getting_ready_the_planner_compiles_nothing() -> None:
    plant = two_node_plant()
    jobs = {str(n): OrderedJob(job=str(n), product="a", due_at=T0) for n in range(8)}
    problem = problem_of(plant, jobs, Floor(), t0=T0, now=T0)
    settings = PlannerSettings(budget_s=0.3, seed=1)
    assert list(warm_planner(problem, settings.objectives)) == ["ready"]
    with event.install_recorder("numba:compile") as compiling:
        first = at_once(problem, None)
        found = alternatives(problem, first, first, settings, threading.Event())
    assert found and not compiling.buffer


def test_machine_code_has_a_place_also_where_nothing_but_the_data_may_be_written(tmp_path: Path) -> None:
    for source, given, place in (
        (tmp_path, {}, None),
        (tmp_path / "not there", {}, str(tmp_path / "data" / "kernels")),
        (tmp_path / "not there", {"NUMBA_CACHE_DIR": "/else"}, "/else"),
    ):
        environ: dict[str, str] = dict(given)
        place_kernels(source, tmp_path / "data", environ)
        assert environ.get("NUMBA_CACHE_DIR") == place

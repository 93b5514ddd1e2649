"""Where a run ends: it waits for what has a reason to wait, and ends by itself whatever goes astray."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import eventually
from typer.testing import CliRunner

from messages.broker import Broker
from messages.clock import SECOND
from messages.contracts import OrderedJob
from messages.dispatch.judge import ByRule
from messages.plant import Plant
from shoal.__main__ import app
from shoal.processes import ProcessFailed
from shoal.swarm.disturb import Happening, Scenario
from shoal.swarm.kills import calm
from shoal.swarm.limit import OWN, PATIENCE, Limit
from shoal.swarm.outcome import T0, Look, Swarm
from shoal.swarm.over_bus import run
from shoal.swarm.sim import simulate

LAG = str(Path(__file__).parent.parent / "examples" / "workshop_lag.json")


def plant(*, rest_s: float = 0.0) -> Plant:
    """One machine, two steps of a minute, perhaps with a rest between."""
    step = {"time_h": {"m": 1 / 60}}
    steps = [{"name": "first", **step}, {"name": "second", "wait_s": rest_s, **step}]
    machine = {"id": "m", "work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [1 / 60]}
    workshop = {"name": "w", "node": "w", "machines": [machine]}
    return Plant.model_validate({"site": "s", "products": ["p"], "workshops": [workshop], "routes": {"p": steps}})


def swarm(*, rest_s: float = 0.0, release_s: float = 0.0) -> Swarm:
    jobs = (
        OrderedJob(job="now", product="p"),
        OrderedJob(job="then", product="p", release_at=T0 + round(release_s * SECOND)),
    )
    return Swarm(plant(rest_s=rest_s), jobs, ByRule(kind="fifo"))


@pytest.mark.parametrize("far", [{"release_s": 86_400.0}, {"rest_s": 86_400.0}])
def test_nobody_gives_up_on_an_order_that_may_not_begin_yet_or_on_a_part_that_rests(far: dict[str, float]) -> None:
    found = simulate(swarm(**far))
    assert found.holds, found.faults
    assert found.figures.makespan_s > 86_400


def test_a_storm_without_end_is_stopped_and_it_is_said_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.swarm.limit.EVENTS_PER_TASK", 50)
    ended = CliRunner().invoke(app, ["swarm", LAG, "--judge", "fifo", "--disturb", "lose:0.4,delay:20", "--json"])
    assert ended.exit_code == 1
    [said] = [line for line in ended.output.splitlines() if line.startswith("shoal: broken: stopped after")]
    assert "the limit is 1,450 events of the simulation" in said and "Left: T1 op " in said


def test_plant_time_ends_a_simulation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expect = Limit.expect

    def soon(limit: Limit, jobs: Any) -> None:
        expect(limit, jobs)
        limit.latest = T0 + 100 * SECOND

    monkeypatch.setattr(Limit, "expect", soon)
    found = simulate(swarm())
    assert not found.holds and found.ended_at < T0 + 600 * SECOND
    assert found.faults[0].startswith("stopped after") and "the limit is 100 s of plant time" in found.faults[0]
    assert "Left: now op " in found.faults[0] and found.faults[0].endswith("; then op 0, 1")


def test_a_disturbance_that_is_too_far_away_is_not_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoal.swarm.limit.EVENTS_PER_TASK", 500)
    far = Scenario(happenings=(Happening(kind="breakdown", at_s=1e9, machine="m"),))
    found = simulate(replace(swarm(), scenario=far))
    assert found.holds, found.faults
    assert [one.answer for one in found.troubles] == ["not reached: the run ended before"]


def test_every_task_may_take_its_time_and_so_may_what_the_plant_begins_itself_to_a_bound() -> None:
    limit = Limit(plant(), Scenario(happenings=(Happening(kind="rush", at_s=100.0, lasts_s=1e6, job="p"),)), T0)
    limit.expect([OrderedJob(job="a", product="p", release_at=T0 + 500 * SECOND)])
    assert limit.latest == T0 + 500 * SECOND + 120 * SECOND + 3 * PATIENCE * limit.lease_us
    before = limit.latest
    limit.expect([OrderedJob(job=f"p~{n}", product="p") for n in range(1, OWN + 1)])
    bound = limit.latest
    limit.expect([OrderedJob(job=f"p~{n}", product="p") for n in range(1, 2 * OWN)])
    assert before < bound == limit.latest


class Brokers(Broker):
    """Knows those that were started."""

    started: list[Broker]

    def start(self) -> Brokers:
        self.started.append(self)
        super().start()
        return self


@pytest.mark.parametrize(("which", "whose"), [(0, "the cloud's"), (1, "the site's")])
async def test_a_broker_that_dies_by_itself_ends_the_run_and_its_log_is_named(
    which: int, whose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brokers, "started", [], raising=False)
    monkeypatch.setattr("shoal.swarm.over_bus.Broker", Brokers)
    monkeypatch.setattr("shoal.stage.Broker", Brokers)
    seen: list[Look] = []

    class Killer:
        def wants(self, now: int) -> bool:
            return not seen

        def look(self, look: Look) -> None:
            seen.append(look)
            pid = Brokers.started[which].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    one = calm(1).swarm
    async with asyncio.timeout(60):
        with pytest.raises(ProcessFailed, match=rf"{whose} broker ended by itself; its log: .*mosquitto\.log"):
            await run(replace(one, jobs=one.jobs[:2]), tmp_path / "run", watch=Killer())
    assert len(seen) == 1


def test_a_run_over_a_broker_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shoal", "swarm", LAG, "--judge", "fifo", "--over", "bus", "--quiet"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as running:
        asyncio.run(eventually(lambda: list(tmp_path.glob("shoal-swarm-*/cloud.log"))))
        running.terminate()
        _, said = running.communicate(timeout=30)
    assert (running.returncode, said.strip()) == (130, "shoal: interrupted")
    assert list(tmp_path.iterdir()) == []

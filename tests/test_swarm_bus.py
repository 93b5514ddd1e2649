"""A swarm as processes over real brokers: nodes and the judge are killed, and every task is done once all the same."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import eventually

from messages.contracts import Burst, MachineEvent, OrderedJob
from messages.dispatch.judge import ByRule
from messages.errors import UsageError
from messages.negotiation import Offer, Step, Workpiece
from messages.observe import Seen
from messages.plant import Plant
from messages.routes import OFFER, WORKPIECE
from shoal.swarm.bus_cast import step_us
from shoal.swarm.chronicle import Chronicle
from shoal.swarm.disturb import Happening, Scenario
from shoal.swarm.follow import Follower
from shoal.swarm.incidents import Kill
from shoal.swarm.kills import calm, drawn, verdict_of
from shoal.swarm.outcome import Figures, Look, Outcome, Run, Swarm
from shoal.swarm.over_bus import over_bus, run, tidied
from shoal.swarm.report import compared, rows, said_s
from shoal.swarm.sim import simulate
from shoal.swarm.truth import Tail

MINUTE = 60 * 1_000_000


class Picture:
    """Sees everything."""

    def __init__(self) -> None:
        self.looks: list[Look] = []

    def wants(self, now: int) -> bool:
        return True

    def look(self, look: Look) -> None:
        self.looks.append(look)


def test_a_node_and_the_judge_are_killed_and_every_task_is_done_once_with_whole_histories(tmp_path: Path) -> None:
    swarm = calm(4).swarm
    swarm = replace(swarm, jobs=swarm.jobs[:4])
    kills = (Kill(25 * 60.0, "cut", 15 * 60.0), Kill(50 * 60.0, "judge", 10 * 60.0))
    picture = Picture()
    outcome = over_bus(swarm, tmp_path / "run", kills=kills, watch=picture)
    verdict = verdict_of(outcome)
    assert outcome.holds, outcome.faults
    assert (verdict.done, verdict.lost, verdict.twice) == (12, 0, 0)
    assert [trouble.kind for trouble in outcome.troubles] == ["node", "judge"]
    assert outcome.messages["judge"] >= 2, "the judge that came back said who judges"
    assert picture.looks[-1].runs == outcome.runs
    assert all(before.now <= after.now for before, after in zip(picture.looks, picture.looks[1:], strict=False))


def test_a_verdict_counts_what_machines_did_and_not_what_agents_say() -> None:
    swarm = calm(1).swarm
    first, second = swarm.jobs[:2]
    run = Run("cut-1", first.job, 0, 0, 1)
    outcome = Outcome(
        swarm=swarm,
        over="bus",
        ended_at=1,
        figures=Figures(0, 0, 0, 0, None),
        runs=(run, run, replace(run, op=1, interrupted=True)),
        carries=(),
        downs=(),
        troubles=(),
        messages={},
        excused={
            (second.job, 0): "cancelled",
            (second.job, 1): "unknown: its node is away",
            (first.job, 0): "cancelled",
        },
        faults=("something",),
    )
    found = verdict_of(outcome)
    assert (found.tasks, found.done, found.twice, found.interrupted) == (3 * len(swarm.jobs), 1, 1, 1)
    assert (found.cancelled, found.unknown, found.lost) == (1, 1, 3 * len(swarm.jobs) - 3)
    assert (found + found).lost == 2 * found.lost


@pytest.mark.parametrize(
    "scenario", [Scenario(lose=0.1), Scenario(reorder=0.1), Scenario(happenings=(Happening(kind="rival", at_s=1.0),))]
)
def test_what_only_happens_in_simulation_is_refused_before_anything_starts(scenario: Scenario, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--over sim"):
        over_bus(replace(calm(1).swarm, scenario=scenario), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_same_seed_draws_the_same_trial() -> None:
    one, other = drawn(7), drawn(7)
    assert (one.swarm, one.kills) == (other.swarm, other.kills)
    assert one.kills != drawn(8).kills
    assert {kill.who for kill in one.kills} & {"broker", "uplink"} and "judge" in {kill.who for kill in one.kills}


@pytest.mark.parametrize(
    ("tick_s", "minutes", "expected_s"), [(60, 20, 60), (60, 60, 180), (0.1, 0.1, 0.3), (60, 0, 60)]
)
def test_a_step_is_a_twentieth_of_the_shortest_work_and_no_less_than_a_tick(
    tick_s: float, minutes: float, expected_s: float
) -> None:
    machine = {"id": "m", "work_kw": 1, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0, "time_h": [minutes / 60]}
    workshop = {"name": "w", "node": "w", "machines": [machine]}
    plant = Plant.model_validate({"site": "s", "tick_s": tick_s, "products": ["p"], "workshops": [workshop]})
    assert step_us(plant) == round(expected_s * 1_000_000)


def test_the_truth_is_read_while_it_is_written_and_never_twice(tmp_path: Path) -> None:
    plant = calm(1).swarm.plant
    chronicle = Chronicle(plant, [OrderedJob(job="b01", product=plant.products[0])])
    path = tmp_path / "truth.jsonl"
    tail = Tail(path, chronicle)
    assert not tail.read(), "there is no file yet"

    def line(seq: int, *events: MachineEvent) -> bytes:
        burst = Burst(
            boot="00000000", seq=seq, floor=0, first=0, t0=0, at=[], columns={}, units={}, events=list(events)
        )
        return b'{"device":"cut-1","sent":' + burst.encode() + b"}\n"

    started = line(0, MachineEvent(at=5, kind="started", job="b01", op=0))
    finished = line(1, MachineEvent(at=9, kind="finished", job="b01", op=0))
    with path.open("ab") as file:
        file.write(started + finished[:20])
        file.flush()
        assert tail.read() and tail.events == 1
        assert [run.running for run in chronicle.all_runs()] == [True]
        file.write(finished[20:])
    assert tail.read() and not tail.read()
    [run] = chronicle.all_runs()
    assert (run.start, run.end, run.running, tail.last_at) == (5, 9, False, 9)


def test_a_follower_keeps_the_newest_baton_and_counts_rounds_of_each_judge() -> None:
    follower = Follower("s")

    def hear(route: object, message: Workpiece | Offer, **ids: str) -> None:
        topic = route.topic(site="s", **ids)  # type: ignore[attr-defined]
        follower.hear(Seen(topic, message.encode()))

    steps = [Step(op=0, machine="m", start_at=0, end_at=1)]
    done = Workpiece(job="b01", product="p", revision=2, at=2, state="done", steps=steps)
    hear(WORKPIECE, done, workpiece="b01")
    hear(WORKPIECE, Workpiece(job="b01", product="p", revision=1, at=1, state="waiting"), workpiece="b01")
    assert follower.batons["b01"].state == "done", "an older word that comes late changes nothing"
    for term, round_ in ((1, 1), (1, 1), (1, 2), (2, 1)):
        offer = Offer(term=term, session="00000000", job="b01", op=0, round=round_, deadline=1, seconds={"m": 1.0})
        hear(OFFER, offer, node="n", task="b01-0")
    assert (follower.counts["offer"], follower.retendered) == (4, 2)
    follower.hear(Seen("shoal/v1/s/n/raw/m", b"{}"))
    assert sum(follower.counts.values()) == 6, "what machines measure is nobody's negotiation"
    follower.hear(Seen(WORKPIECE.topic(site="s", workpiece="b01"), b"{}"))
    assert follower.bad == 1, "what breaks its contract is counted, and the rest is heard"


CIRCULAR = {
    "stock": {"core": 2},
    "sources": {"rotor": "strip"},
    "recovers": {"strip": {"rotor": 1.0}},
    "needs": {"strip": {"core": 1}, "motor": {"rotor": 1}},
}


def circular(jobs: int) -> Swarm:
    """One cell takes apart and builds: of a motor nothing is in stock, so the plant strips a core for it first."""
    products = ["motor", "strip"]
    machine = {"id": "cell-1", "work_kw": 5, "idle_kw": 1, "preheat_kw": 0, "preheat_h": 0, "time_h": [0.5, 0.5]}
    shops = [{"name": "cell", "node": "cell", "machines": [machine]}]
    plant = Plant.model_validate({"site": "c", "products": products, "workshops": shops, "circular": CIRCULAR})
    orders = tuple(OrderedJob(job=f"motor-{n}", product="motor") for n in range(1, jobs + 1))
    return Swarm(plant, orders, ByRule(kind="fifo"))


def test_what_a_plant_begins_itself_over_a_broker_is_part_of_the_account(tmp_path: Path) -> None:
    outcome = over_bus(circular(1), tmp_path / "run")
    assert outcome.holds, outcome.faults
    assert [(run.job, run.op) for run in outcome.runs] == [("strip~1", 0), ("motor-1", 0)]
    assert outcome.decisions is None and not dict(rows(outcome)).get("decisions"), "nobody counted them"


def found(where: Path, pattern: str) -> list[Path]:
    return [*where.glob(pattern)]


async def test_a_run_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running = asyncio.ensure_future(run(circular(1)))
    await eventually(lambda: found(tmp_path, "shoal-swarm-*/sim.log"), what="processes are started")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not found(tmp_path, "shoal-swarm-*")


def test_of_a_run_that_does_not_hold_the_files_are_kept_and_it_is_said_where(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    good = simulate(circular(1))
    assert tidied(good, tmp_path / "good").kept is None
    assert tidied(replace(good, faults=("something",)), tmp_path / "bad").kept == tmp_path / "bad"
    assert [one.name for one in tmp_path.iterdir()] == ["bad"]


def test_a_comparison_of_a_run_over_a_broker_says_which_rows_are_simulated() -> None:
    other = simulate(circular(1))
    outcome = replace(other, over="bus", figures=replace(other.figures, makespan_s=1.0))
    lines = compared({"fifo": other.figures}, outcome)
    assert [line[:2] for line in lines[1:]] == [
        ["fifo", "1.0 s"],
        ["fifo, simulated", said_s(other.figures.makespan_s)],
    ]
    assert [line[0] for line in compared({"sjf": other.figures}, other)[1:]] == ["fifo", "sjf"]

"""Work waits for a cleaner hour where that is worth more than its time, never for nothing, and never for good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import pi, sin
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cloud.dispatch
import cloud.dispatch.cleaner
import messages.dispatch.judge
from messages.clock import SECOND
from messages.contracts import OrderedJob, Signal
from messages.curve import Curve
from messages.dispatch import cleaner
from messages.dispatch.agent import Dispatcher
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.judge import Judge
from messages.dispatch.shop import Shop, Station, Step, Work
from messages.dispatch.simulate import Course, simulate
from messages.dispatch.state import Bid, State, begin
from messages.dispatch.tenders import Tenders
from messages.instances import load_problem
from messages.negotiation import Agenda, Authority, MachineBid, Offer
from messages.negotiation import Bid as MachineBids
from messages.pace import pace_of
from messages.plant import Plant
from messages.workshop import plant_of
from shoal.swarm.outcome import Swarm
from shoal.swarm.setting import judge_of, swarm_of
from shoal.swarm.sim import simulate as agents
from tests.dispatching import shop_like, some_sequence, some_state

SEEDS = st.integers(0, 10**9)
JUDGES: list[Judge] = [messages.dispatch.judge.Mcts(iterations=30), cloud.dispatch.Mcts(iterations=200)]
HOUR = 60
NOON = 9 * HOUR
"""When the grid of these tests gets clean, for six hours."""
GRID = Curve(step=HOUR, values=(*[0.5] * 9, *[0.1] * 6, *[0.5] * 9), periodic=True)
GREEN = Weights(carbon=1_000.0)


def shop(jobs: int = 1, grid: Curve = GRID, **more: Any) -> Shop:
    """A machine, and jobs of an hour at 10 kW."""
    work = Work((Step({"m": HOUR}, {"m": 10.0}),), **more)
    names = [f"j{n}" for n in range(jobs)]
    return Shop({"m": Station()}, dict.fromkeys(names, work), hour_ticks=HOUR, carbon={"electricity": grid})


@pytest.mark.parametrize("judge", JUDGES)
def test_what_gains_by_waiting_is_not_awarded_before_its_hour(judge: Judge) -> None:
    decision = judge.decide(begin(shop()), GREEN)
    assert decision.awards == () and decision.again_at == NOON
    assert decision.schedule.bids[0].start == NOON, "what is foreseen says so"
    later = judge.decide(replace(begin(shop()), now=NOON), GREEN, memory=decision.memory)
    assert [bid.start for bid in later.awards] == [NOON]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(
    ("weights", "grid"),
    [
        (Weights(), GRID),
        (Weights(energy=1_000.0), GRID),
        (Weights(carbon=100.0), GRID),  # 4 kg less are worth 400 ticks here, and would take 540
        (Weights(makespan=0.0, waiting=2.0, carbon=250.0), GRID),
        (Weights(makespan=0.0, tardiness=2.0, carbon=250.0), GRID),
        (GREEN, Curve(step=HOUR, values=(0.5,))),
        (GREEN, Curve(step=HOUR, values=(0.1, 0.5))),
    ],
)
def test_nothing_waits_where_that_gains_nothing(judge: Judge, weights: Weights, grid: Curve) -> None:
    decision = judge.decide(begin(shop(grid=grid, due=HOUR)), weights)
    assert [bid.start for bid in decision.awards] == [0]


@pytest.mark.parametrize("judge", JUDGES)
def test_jobs_wait_together_though_none_gains_alone(judge: Judge) -> None:
    weights = Weights(carbon=200.0)  # one alone: 800 for 540 ticks of makespan and what others behind it wait
    decision = judge.decide(begin(shop(jobs=5)), weights)
    assert decision.awards == () and decision.again_at == NOON
    assert [bid.start for bid in decision.schedule.bids] == [NOON + n * HOUR for n in range(5)]


@pytest.mark.parametrize("judge", JUDGES)
def test_a_part_that_is_carried_is_called_so_that_work_begins_with_the_hour(judge: Judge) -> None:
    far = replace(shop(at="raw"), ticks={"raw": {"m": 7}})
    decision = judge.decide(begin(far), GREEN)
    assert decision.awards == () and decision.again_at == NOON - 7
    assert decision.schedule.bids[0].start == NOON


@pytest.mark.parametrize("judge", JUDGES)
def test_whoever_only_waits_for_cleaner_hours_is_done_all_the_same(judge: Judge) -> None:
    weights = Weights(makespan=0.0, carbon=1.0)
    found = simulate(Course(shop(jobs=8), shop(jobs=8)), judge, weights, seed=1)
    assert found.measures.makespan <= 24 * HOUR + NOON + 2 * HOUR, "six fit into one day, two into the next"
    assert found.measures.carbon_kg == pytest.approx(8.0)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_machine_code_says_of_waits_what_plain_python_says(seed: int) -> None:
    state = some_state(shop_like(seed, jobs=5), seed)
    weights = Weights(waiting=0.5, tardiness=0.2, energy=0.3, carbon=2.0)
    ours, other = cleaner.worth_of(state, weights), cloud.dispatch.cleaner.worth_of(state, weights)
    for n in range(3):
        sequence = some_sequence(state, seed + n)
        floors = {job: state.now + 7 * k * n for k, job in enumerate(state.open())}
        assert other(floors, sequence) == pytest.approx(ours(floors, sequence), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_what_is_foreseen_is_never_worse_than_without_waiting(seed: int) -> None:
    waves = Curve(step=5, values=tuple(0.3 + 0.2 * sin(pi * n / 4) for n in range(8)), periodic=True)
    state = some_state(replace(shop_like(seed, jobs=5), carbon={"electricity": waves}), seed)
    weights = Weights(waiting=0.5, tardiness=0.2, carbon=50.0)
    judge = cloud.dispatch.Mcts(iterations=50)
    with_waits, without = judge.decide(state, weights, seed=1), AtOnce(iterations=50).decide(state, weights, seed=1)
    assert with_waits.value <= without.value * (1 + 1e-9)
    assert len(with_waits.stuck) <= len(without.stuck)


class AtOnce(cloud.dispatch.Mcts):
    """Nothing waits."""

    def later(self, state: State, weights: Weights, sequence: Sequence[Choice], awards: Sequence[Bid]) -> None:
        """Nothing."""


def test_a_decision_is_in_time_though_much_could_wait() -> None:
    """Bounded: by the clock, where one is given, and by how much is tried."""
    wide = shop(jobs=200)
    tried = []
    worth = cleaner.worth_of(begin(wide), GREEN)

    def counted(floors: Any, sequence: Any) -> float:
        tried.append(1)
        return worth(floors, sequence)

    bids = [begin(wide).bid(f"j{n}", "m") for n in range(200)]
    sequence = [(bid.job, "m") for bid in bids]
    assert cleaner.cleaner(begin(wide), sequence, bids, counted, until=0.0) is None and len(tried) == 1
    found = cleaner.cleaner(begin(wide), sequence, bids[:4], counted)
    assert found is not None
    bound = 1 + 2 * (2 * cleaner.HOURS + cleaner.JOBS * (cleaner.HOURS + 1))
    tried.clear()
    cleaner.cleaner(begin(wide), sequence, bids, counted)
    assert len(tried) <= bound


# --- agents ---------------------------------------------------------------------------------------


def swarm(weights: Weights, folder: Path) -> Swarm:
    """Three parts of two hours each in a plant."""
    operations = [{"op": op, "alternatives": {f"m{op}": 60}, "work_kw": {f"m{op}": 10}} for op in range(2)]
    jobs_ = [{"id": f"j{n}", "operations": operations} for n in range(3)]
    file = folder / "problem.json"
    file.write_text(json.dumps({"tick_s": 60, "machines": [{"id": "m0"}, {"id": "m1"}], "jobs": jobs_}))
    plant, jobs = plant_of(load_problem(file), t0=Swarm.start)
    signal = Signal(
        name="carbon", revision=1, unit="kg/kWh", start=Swarm.start, step_s=3600, values=[*GRID.values, *GRID.values]
    )
    judge = judge_of("mcts", iterations=200)
    return Swarm(plant, tuple(jobs), judge, weights, signals={"carbon": signal})


def test_agents_wait_for_the_hour_and_keep_every_promise(tmp_path: Path) -> None:
    hasty, green = (agents(swarm(weights, tmp_path)) for weights in (Weights(), GREEN))
    assert hasty.holds and green.holds, (hasty.faults, green.faults)
    assert hasty.figures.carbon_kg == pytest.approx(30.0) and hasty.figures.makespan_s < 5 * 3600
    assert green.figures.carbon_kg == pytest.approx(6.0, rel=0.05)
    assert 12 * 3600 < green.figures.makespan_s < 16 * 3600


def test_a_new_forecast_is_thought_over_at_once() -> None:
    me = Authority(1, "0000000a")
    machine = {"id": "m", "work_kw": 10, "idle_kw": 0, "preheat_kw": 0, "preheat_h": 0}
    plant = Plant.model_validate(
        {
            "site": "s",
            "tick_s": 60.0,
            "products": ["p"],
            "routes": {"p": [{"time_h": {"m": 1}}]},
            "workshops": [{"name": "w", "node": "n", "machines": [machine]}],
        }
    )
    book = Tenders(me, site="s", judge="cloud", machines={"m": "n"}, pace=pace_of(plant))
    agent = Dispatcher(plant, book, messages.dispatch.judge.Mcts(iterations=20), t0=0, weights=GREEN)

    def awarded(now: int) -> list[str]:
        found = []
        for send in (one for _ in range(3) for one in agent.on_tick(now)):
            if isinstance(send.message, Offer):
                own = [MachineBid(machine="m", start_at=now, end_at=now + 3600 * SECOND, energy_kwh=10)]
                told = {"job": send.message.job, "op": send.message.op, "round": send.message.round, "bids": own}
                until = now + 600 * SECOND
                book.on_bid(send.node, MachineBids(term=1, session=me.session, at=now, valid_until=until, **told))
            elif send.what == "award":
                found.append(send.message.body.job)  # type: ignore[attr-defined]
        return found

    def forecast(revision: int, first: float, then: float) -> Signal:
        values = [first] * 9 + [then] * 15
        return Signal(name="carbon", revision=revision, unit="kg/kWh", start=0, step_s=3600, values=values)

    agent.on_signal(forecast(1, 0.5, 0.1))
    agent.add([OrderedJob(job="j", product="p")])
    book.on_presence("n", True)
    book.on_agenda("n", Agenda(term=1, session=me.session, revision=1, at=0))
    assert awarded(0) == [] and awarded(1 * SECOND) == []
    agent.on_signal(forecast(2, 0.1, 0.5))
    assert agent.next_due(2 * SECOND) == 2 * SECOND
    assert awarded(2 * SECOND) == ["j"]


def test_a_plant_on_the_command_line_may_be_judged_by_carbon() -> None:
    plant = Path(__file__).parent.parent / "firmware_sim" / "plants" / "ceramic.toml"
    found, _ = swarm_of(plant, judge_of("mcts", iterations=1), Weights(carbon=1.0))
    assert found.signals["carbon"].step_s * SECOND > 0

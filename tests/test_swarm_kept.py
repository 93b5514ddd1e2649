"""What the judge foresees is what happens: undisturbed, its agents carry out the plan it keeps, to the tick."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from cloud.dispatch import Mcts
from messages.dispatch.decode import measures
from messages.dispatch.judge import Decision
from messages.dispatch.rules import RULES
from messages.dispatch.shop import shop_from
from messages.dispatch.simulate import Course
from messages.dispatch.simulate import simulate as foreseen
from messages.instances import load_problem
from messages.workshop import plant_of
from shoal.swarm.outcome import Swarm
from shoal.swarm.setting import judge_of
from shoal.swarm.sim import simulate

EXAMPLES = Path(__file__).parent.parent / "examples"
OPTIMA_S = {"occupying": 288.4, "vehicles": 462.9, "lag": 283.5}


class Noting(Mcts):
    """It remembers what it foresaw, in ticks."""

    _foreseen: list[int] = PrivateAttr(default_factory=list)

    @property
    def makespans(self) -> list[int]:
        """Of every decision, in order."""
        return self._foreseen

    def decide(self, *args: Any, **more: Any) -> Decision:
        """As ever."""
        decision = super().decide(*args, **more)
        self._foreseen.append(measures(decision.schedule).makespan)
        return decision


CASES = [(reading, 100, seed) for reading in OPTIMA_S for seed in (1, 2)]


@pytest.mark.parametrize(("reading", "iterations", "seed"), [*CASES, ("vehicles", 300, 1), ("vehicles", 3_000, 1)])
def test_undisturbed_no_decision_foresees_a_later_end_than_the_one_before_and_the_last_is_right(
    reading: str, iterations: int, seed: int
) -> None:
    problem = load_problem(EXAMPLES / f"workshop_{reading}.json")
    plant, jobs = plant_of(problem, t0=Swarm.start)
    judge = Noting(iterations=iterations)
    outcome = simulate(Swarm(plant, tuple(jobs), judge, seed=seed))
    assert outcome.faults == ()
    later = [(before, after) for before, after in pairwise(judge.makespans) if after > before]
    assert later == []
    assert outcome.figures.makespan_s == pytest.approx(judge.makespans[-1] * problem.tick_s)
    shop = shop_from(problem)
    best = min(foreseen(Course(shop, shop), judge_of(rule)).measures.makespan for rule in RULES)
    assert outcome.figures.makespan_s <= best * problem.tick_s + 1e-6, "it is never worse than the best rule"
    assert outcome.figures.makespan_s == pytest.approx(OPTIMA_S[reading])

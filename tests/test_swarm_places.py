"""Few places before and behind machines: agents never leave parts that block each other, whatever the judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from messages.dispatch.judge import ByRule, Judge, Mcts
from messages.instances import load_problem
from messages.problem import Buffer
from messages.workshop import plant_of
from shoal.swarm.outcome import Swarm
from shoal.swarm.sim import simulate

EXAMPLE = Path(__file__).parent.parent / "examples" / "workshop_vehicles.json"
JUDGES: dict[str, Judge] = {
    **{kind: ByRule.model_validate({"kind": kind}) for kind in ("fifo", "sjf", "ljf", "eq11", "greedy")},
    "mcts": Mcts(iterations=3),
}


@pytest.mark.parametrize("places", [(1, 0), (1, 1), (2, 0), (None, 0)])
@pytest.mark.parametrize("kind", list(JUDGES))
def test_with_few_places_all_is_made(kind: str, places: tuple[int | None, int]) -> None:
    problem = load_problem(EXAMPLE)
    few = Buffer.model_validate({"in": places[0], "out": places[1]})
    machines = tuple(one.model_copy(update={"buffer": few}) for one in problem.machines)
    plant, jobs = plant_of(problem.model_copy(update={"machines": machines}), t0=Swarm.start)
    outcome = simulate(Swarm(plant, tuple(jobs), JUDGES[kind]))
    assert outcome.faults == ()
    assert outcome.holds

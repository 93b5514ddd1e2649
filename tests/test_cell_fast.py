"""The cell in machine code is the cell, to the bit; and who knows its odds decides by them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from _cell_fast import EMPTY, by_rule, constants, drawn, some, step
from _cell_odds import by_plan, planned
from _cell_rules import LEAST, MOST, Rule, played, vector

from firmware_sim.cell import DAY, Cell, CellSpec, cell_of


@pytest.mark.parametrize("number", range(6))
def test_whatever_is_done_at_whatever_cell_both_say_the_same(number: int) -> None:
    spec = cell_of(number, 0.0 if number == 0 else 1.5)
    if number > 3:  # busy, worn, and often under repair
        spec = replace(spec, wear_a=0.09, wear_b=0.07, arrive_a=3.0, arrive_b=3.0, repair_steps=3, pieces=3.6)
    days, cell = drawn(spec, [(number, 5)], 4), Cell(spec, np.random.default_rng((number, 5)), days=4)
    p, state = constants(spec), EMPTY
    actions = np.random.default_rng(number).choice(5, size=4 * DAY, p=[0.4, 0.35, 0.04, 0.2, 0.01])
    repaired = 0
    for t, action in enumerate(actions.tolist()):
        state, money, kg = step(p, state, action, days, 0, t)
        assert (money, kg) == cell.step(action)
        assert tuple(state) == (cell.a, cell.b, cell.components, cell.materials, cell.repair, cell.wear)
        repaired += cell.repair > 0
    assert repaired or number <= 3, "failures were seen"


def test_a_rule_does_the_same_in_machine_code_and_in_the_cell() -> None:
    rng, spec = np.random.default_rng(3), cell_of(2, 1.0)
    seeds = [(8, k) for k in range(3)]
    days = drawn(spec, seeds)
    for _ in range(4):
        rule = Rule(*rng.uniform(vector(LEAST), vector(MOST)).tolist())
        money, kg = by_rule(spec, vector(rule), days)
        found = played(spec, rule, seeds)
        assert (money == found.money).all() and (kg == found.kg).all()
    one, _ = by_rule(spec, vector(rule), some(days, [2, 2]))
    assert (one == money[[2, 2]]).all(), "episodes owe each other nothing"


def test_who_knows_the_odds_earns_more_a_kg_than_a_usual_rule() -> None:
    spec, seeds = CellSpec(), [(9, k) for k in range(20)]
    money, kg = by_plan(spec, planned(spec, 7.0, rounds=1), drawn(spec, seeds))
    usual = played(spec, Rule(full=25.0, dear_a=0.22, dear_b=0.22), seeds)
    more = (money.mean() - 7.0 * kg.mean()) - (usual.money.mean() - 7.0 * usual.kg.mean())
    assert more > 150, "with carbon at the price it was told"
    with pytest.raises(ValueError, match="whole numbers"):
        planned(replace(spec, pieces=1.5), 7.0)

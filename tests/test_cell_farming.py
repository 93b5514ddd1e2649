"""Farming does not pay: nothing that is done earns carbon back, and nothing is recovered, sold or paid for twice.

An account that gives credit can be farmed: buy and sell back, strip and restore, idle for allowances. So carbon is a
constraint here, and this is what an adversary would have to break: the account only grows, saved allowance ends with
the day, and all money comes from products that came, each once.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.cell import DAY, REROUTE, SERVICE, WAIT, A, B, Cell, CellSpec, cell_of
from firmware_sim.robot import Robot
from messages.cells import ACTIONS, METRICS
from messages.clock import SECOND
from messages.contracts import Action

ACTIONS_OF_A_DAY = st.lists(st.integers(0, 4), min_size=1, max_size=DAY)
CELLS = st.builds(cell_of, st.integers(0, 50), st.sampled_from([0.0, 0.3, 1.0, 1.5]))


def cell(spec: CellSpec, seed: int = 3) -> Cell:
    return Cell(spec, np.random.default_rng(seed))


def most_money(spec: CellSpec, came_a: int, came_b: int) -> float:
    """If every product that came were worked well and sold at its best price, and nothing cost anything."""
    return came_a * max(spec.price_a, spec.price_kg) + came_b * max(spec.kg_b, 1.0) * spec.price_kg


@given(CELLS, ACTIONS_OF_A_DAY)
def test_no_sequence_of_actions_lowers_what_was_emitted_by_a_gram(spec: CellSpec, actions: list[int]) -> None:
    it = cell(spec)
    for action in actions:
        before, grid = it.emitted, it.chance.carbon[it.at]
        _, carbon_kg = it.step(action)
        assert carbon_kg >= spec.idle_kwh * grid > 0, "whatever it does, it draws as much as at rest"
        assert it.at % DAY == 0 or it.emitted == before + carbon_kg


@given(CELLS, ACTIONS_OF_A_DAY)
def test_every_product_is_worked_once_and_what_it_gave_is_sold_or_paid_for_once(
    spec: CellSpec, actions: list[int]
) -> None:
    it = cell(spec)
    came_a = came_b = worked_a = worked_b = 0
    earned = 0.0
    for action in actions:
        a, b, worked, chance, at = it.a, it.b, it.worked, it.chance, it.at
        money, _ = it.step(action)
        earned += money
        came_a, came_b = came_a + chance.arrive_a[at], came_b + chance.arrive_b[at]
        if action == A:
            worked_a += it.worked - worked
            assert it.worked - worked <= a
        elif action == B:
            worked_b += it.worked - worked
            assert it.worked - worked <= b
        else:
            assert it.worked == worked, "only taking apart takes apart"
        assert it.a + worked_a <= came_a and it.b + worked_b <= came_b
        assert it.sold + it.components <= worked_a, "a component for an A at most, in stock or sold"
        assert it.materials <= worked_a + worked_b * max(spec.kg_b, 1.0) + 1e-9
        assert earned <= most_money(spec, worked_a, worked_b) + 1e-9


@given(CELLS, st.lists(st.sampled_from([REROUTE, WAIT, SERVICE]), min_size=1, max_size=2 * DAY))
def test_loops_that_take_nothing_apart_earn_nothing_and_cost_carbon(spec: CellSpec, actions: list[int]) -> None:
    it = cell(spec)
    for action in actions:
        money, carbon_kg = it.step(action)
        assert money <= 0 < carbon_kg
        if action == REROUTE:
            assert money <= -spec.transport_cost, "carting nothing away is only paid for"
        elif action == SERVICE:
            assert money <= -spec.service_cost


@given(CELLS, st.lists(st.integers(0, 4), max_size=40), st.integers(1, 8))
def test_going_back_and_forth_pays_worse_than_going_once(spec: CellSpec, before: list[int], times: int) -> None:
    once = cell(spec)
    for action in before:
        once.step(action)
    while once.repair:
        once.step(WAIT)
    often = copied(once)
    least = [once.step(action) for action in [REROUTE] + [WAIT] * (2 * times - 1)]
    most = [often.step(action) for action in [REROUTE, SERVICE] * times]
    more_loads = times - 1
    lost = spec.service_cost * times + spec.transport_cost * more_loads
    assert sum(money for money, _ in most) == pytest.approx(sum(money for money, _ in least) - lost)
    assert sum(kg for _, kg in most) == pytest.approx(sum(kg for _, kg in least) + spec.transport_kg * more_loads)


def copied(it: Cell) -> Cell:
    """To try something on it. What nobody decides is the same; only beyond the chance that is drawn it is its own."""
    trial = copy.copy(it)
    trial.rng = np.random.default_rng(0)
    return trial


def greediest(it: Cell) -> int:
    """The action that leaves the most allowance after it; of those the one that earns most."""

    def after(action: int) -> tuple[float, float]:
        trial = copied(it)
        money, carbon_kg = trial.step(action)
        return -carbon_kg, money

    return max(range(len(ACTIONS)), key=after)


def diligent(it: Cell) -> int:
    if it.wear > 0.5:
        return SERVICE
    if it.materials > 45:
        return REROUTE
    return A if it.a and it.components < 18 else B if it.b else WAIT


@pytest.mark.parametrize("number", [0, 4, 9])
def test_an_adversary_that_hoards_allowance_has_nothing_of_it(number: int) -> None:
    """It never owns more than the limit, what it saved is gone at midnight, and it is poorer at any price of carbon."""
    spec = cell_of(number, 0.6)
    hoarder, worker = cell(spec), cell(spec)
    money = {"hoarder": 0.0, "worker": 0.0}
    carbon = dict(money)
    for day in range(3):
        left = spec.limit_kg
        for _ in range(DAY):
            earned, carbon_kg = hoarder.step(greediest(hoarder))
            money["hoarder"], carbon["hoarder"] = money["hoarder"] + earned, carbon["hoarder"] + carbon_kg
            left -= carbon_kg
            if hoarder.at % DAY:
                assert spec.limit_kg - hoarder.emitted == pytest.approx(left) and left < spec.limit_kg
            earned, carbon_kg = worker.step(diligent(worker))
            money["worker"], carbon["worker"] = money["worker"] + earned, carbon["worker"] + carbon_kg
        assert hoarder.emitted == worker.emitted == 0.0, f"day {day + 1}: both begin the next with the same allowance"
    assert carbon["hoarder"] > 0 and money["hoarder"] < 0 < money["worker"]
    for multiplier in (0.0, 0.5, 1.0, 2.0):
        returns = {name: money[name] - multiplier * carbon[name] for name in money}
        assert returns["hoarder"] < min(0.0, returns["worker"]), f"hoarding is no business at {multiplier} a kg"


def test_what_a_device_says_it_emitted_only_grows_whatever_it_is_told_and_through_midnight() -> None:
    rng = np.random.default_rng(8)
    robot = Robot(cell(cell_of(3, 1.0)), step_us=SECOND, start=0)
    last, sold = -1.0, -math.inf
    for k in range(3 * DAY):
        for n in range(int(rng.integers(0, 3))):
            kind = str(rng.choice([*ACTIONS, "sell_back", "start"]))
            robot.act(Action(id=f"{k}-{n}", kind=kind, valid_until=(k + int(rng.integers(0, 3))) * SECOND), k * SECOND)
        robot.advance((k + 1) * SECOND)
        columns = robot.sample(np.array([(k + 1) * SECOND], np.int64))
        emitted, used = float(columns["emitted_kg"][0]), float(columns[METRICS[10]][0])
        assert emitted > last or k == 0
        assert 0 <= used <= 2
        last, sold = emitted, max(sold, float(columns["earned"][0]))
    assert robot.refused > 0 and sold < most_money(robot.cell.spec, 3 * DAY * 5, 3 * DAY * 5)


def test_what_is_thrown_away_is_paid_for_and_not_kept() -> None:
    """A full store takes nothing: what the adversary stacks up beyond it is lost, and turned away products cost."""
    it = cell(CellSpec(arrive_a=5.0, arrive_b=5.0))
    money = sum(it.step(WAIT)[0] for _ in range(DAY))
    assert (it.a, it.b) == (24, 24) and money < -100 * it.spec.turned_away_cost
    assert all(it.step(B)[0] <= 0 for _ in range(20)) and it.materials == 60.0

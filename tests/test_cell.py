"""The cell to learn on: chance is the same whatever is decided, nothing comes from nowhere, carbon is no income."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.cell import DAY, REROUTE, SERVICE, WAIT, A, B, Cell, CellSpec, Chance, cell_of
from messages.cells import ACTIONS, HIGH, METRICS

Rule = Callable[[Cell], int]


def cell(seed: int = 0, spec: CellSpec | None = None) -> Cell:
    return Cell(spec or CellSpec(), np.random.default_rng(seed))


def run(rule: Rule, days: int = 20, spec: CellSpec | None = None) -> tuple[float, float]:
    """Money and carbon per day."""
    it, money, carbon = cell(0, spec), 0.0, 0.0
    for _ in range(days * DAY):
        earned, emitted = it.step(rule(it))
        money, carbon = money + earned, carbon + emitted
    return money / days, carbon / days


def diligent(it: Cell) -> int:
    if it.wear > 0.5:
        return SERVICE
    if it.materials > 45:
        return REROUTE
    return A if it.a and it.components < 18 else B if it.b else WAIT


@given(st.integers(0, 50), st.sampled_from([0.0, 0.3, 1.5]), st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_whatever_is_decided_the_state_stays_in_its_ranges_and_nothing_is_emitted_back(
    number: int, heterogeneity: float, actions: list[int]
) -> None:
    it = cell(number, cell_of(number, heterogeneity))
    for action in actions:
        emitted = it.emitted
        money, carbon = it.step(action)
        assert carbon > 0, "nothing lowers the account"
        assert it.emitted > emitted or it.at % DAY == 0
        assert np.isfinite(money)
        state = it.state
        assert state.shape == (len(METRICS),) == (len(HIGH),) and state.dtype == np.float32
        assert (state >= 0).all() and (state <= np.array(HIGH, np.float32) + 1e-6).all()


def test_chance_is_the_same_whatever_is_decided_and_by_its_seed() -> None:
    one, two = cell(5), cell(5)
    for _ in range(DAY // 2):
        one.step(WAIT)
        two.step(diligent(two))
    assert one.chance == two.chance == Chance.drawn(CellSpec(), DAY, np.random.default_rng(5))
    assert one.values()[6:10] == two.values()[6:10], "humidity and grid do not mind"


def test_pieces_come_from_products_and_are_sold_once() -> None:
    it = cell(1)
    came = it.chance.arrive_a[:50]
    before_sold = 0
    for n in range(50):
        products, stock = it.a, it.components
        it.step(A)
        taken = products + came[n] - it.a
        made = it.components + it.sold - before_sold - stock
        assert 0 <= made <= max(taken, 0) or it.a == HIGH[0]
        before_sold = it.sold


def test_working_pays_and_working_in_clean_hours_emits_less_for_the_same_money() -> None:
    lazy, busy = run(lambda it: WAIT), run(diligent)
    assert busy[0] > 1_000 > 0 > lazy[0], "what is turned away costs"
    clean = run(lambda it: WAIT if it.values()[7] > it.values()[9] and max(it.a, it.b) < 20 else diligent(it))
    assert clean[1] / clean[0] < busy[1] / busy[0]


def test_farming_does_not_pay() -> None:
    """Moving material about, waiting or serving for its own sake earns neither money nor carbon."""
    honest = run(diligent)
    for pointless in (REROUTE, SERVICE):
        every_other = run(lambda it, action=pointless: action if it.at % 2 else diligent(it))  # type: ignore[misc]
        assert every_other[0] < honest[0]
        assert run(lambda it, action=pointless: action)[0] < 0  # type: ignore[misc]
    still = run(lambda it: WAIT)
    assert run(lambda it: REROUTE)[1] > still[1], "a load that is driven about is carbon, whatever is in it"


def test_cells_are_alike_without_heterogeneity_and_differ_with_it() -> None:
    assert replace(cell_of(3, 0.0), number=0) == replace(cell_of(7, 0.0), number=0) == CellSpec()
    assert cell_of(3, 1.0) == cell_of(3, 1.0) != cell_of(4, 1.0)
    spread = [np.std([np.log(cell_of(n, h).price_a) for n in range(200)]) for h in (0.3, 1.0)]
    assert spread[1] == pytest.approx(spread[0] / 0.3, rel=1e-6)


def test_a_worn_robot_fails_more_often_and_a_failed_one_does_nothing() -> None:
    it = cell(2)
    it.repair, before = 3, (it.a, it.b)
    it.step(A)
    assert it.repair == 2 and it.a >= before[0] and it.b >= before[1]
    fails = []
    for wear in (0.0, 1.0):
        count = 0
        for seed in range(60):
            other = cell(seed)
            for _ in range(20):
                other.wear, other.repair, other.b = wear, 0, 10
                other.step(B)
                count += other.repair > 0
        fails.append(count)
    assert fails[1] > 5 * max(1, fails[0])


def test_actions_and_metrics_are_named() -> None:
    assert len(ACTIONS) == 5 and len(set(METRICS)) == 12

"""Two versions take turns on one node: fair coins, whole blocks, and figures that can be put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arms import Arms, CanarySettings, Turn
from edge.files import Files
from tests.releasing import NOW, Released, node, wanting

CANARY = CanarySettings(block=5, washout=2)
STATE = np.float32([0.2, 0.4, 0.6])


def test_a_canary_takes_turns_with_the_version_before_and_reports_both(tmp_path: Path) -> None:
    models = node(Files(tmp_path), canary=CANARY, seed=3)
    Released(4, wanting(0), counter=1).to(models)
    Released(5, wanting(1), counter=2, stage="canary").to(models)
    order = []
    for k in range(5 * 2 * 200):
        turn = models.turn("cell")
        assert turn is not None
        order.append(turn.policy.version)
        assert turn.policy.decide(STATE) == turn.policy.version - 4
        assert models.decided(turn, NOW, trip=False) == []
        washed = k % 5 < 2
        models.outcome(turn, 1e9 if washed else float(turn.policy.version), 0.5)
    blocks = [order[k : k + 5] for k in range(0, len(order), 5)]
    assert all(len(set(block)) == 1 for block in blocks)
    pairs = [(blocks[k][0], blocks[k + 1][0]) for k in range(0, len(blocks), 2)]
    assert {frozenset(pair) for pair in pairs} == {frozenset({4, 5})}
    assert 70 < pairs.count((4, 5)) < 130
    arms = {arm.version: arm for arm in models.report("cell", NOW).arms}
    assert {version: (arm.decisions, arm.blocks, arm.mean, arm.m2, arm.cost) for version, arm in arms.items()} == {
        4: (1000, 200, 4.0, 0.0, 0.5),
        5: (1000, 200, 5.0, 0.0, 0.5),
    }
    (pair,) = models.report("cell", NOW).pairs
    assert (pair.version, pair.against, pair.pairs, pair.mean, pair.m2) == (5, 4, 200, 1.0, 0.0)
    Released(5, wanting(1), counter=3, stage="canary").to(models)
    models.turn("cell")
    assert models.report("cell", NOW).pairs == [pair], "a renewed release goes on where it was"


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_figures_are_those_of_the_whole_blocks_whatever_order_outcomes_come_in(seed: int, blocks: int) -> None:
    rng = np.random.default_rng(seed)
    arms = Arms(CANARY, seed=seed)
    arms.enter([4, 5])
    means: list[tuple[int, float | None]] = []
    late: list[tuple[Turn, float]] = []
    for _ in range(blocks):
        turns = [turn for _ in range(5) if (turn := arms.turn()) is not None]
        outcomes = [(turn, float(rng.normal())) for turn in turns]
        lost = rng.random() < 0.1
        if lost:
            k = int(rng.integers(2, 5))
            outcomes[k] = turns[k], float("nan")
        means.append((turns[0].version, None if lost else float(np.mean([one for _, one in outcomes[2:]]))))
        late += outcomes
        if rng.random() < 0.5 or len(late) > 10:
            for k in rng.permutation(len(late)):
                arms.outcome(*late[k], 1.0)
            late = []
    for turn, reward in late:
        arms.outcome(turn, reward, 1.0)
    for arm in arms.report():
        known = [one for version, one in means if version == arm.version and one is not None]
        assert arm.blocks == len(known)
        if known:
            assert arm.mean == pytest.approx(np.mean(known))
            assert arm.m2 == pytest.approx(np.var(known) * len(known), abs=1e-9)
    both = [dict(means[k : k + 2]) for k in range(0, len(means) - 1, 2)]
    differences = [pair[5] - pair[4] for pair in both if pair[4] is not None and pair[5] is not None]
    (paired,) = arms.paired()
    assert paired.pairs == len(differences)
    if differences:
        assert paired.mean == pytest.approx(np.mean(differences))
        assert paired.m2 == pytest.approx(np.var(differences) * len(differences), abs=1e-9)


def test_outcomes_that_never_come_cost_no_memory_and_count_nothing() -> None:
    arms = Arms(CANARY, seed=1)
    arms.enter([4, 5])
    turns = [arms.turn() for _ in range(5 * 1000)]
    assert len(arms._open) <= 4
    for turn in turns[:-20]:
        assert turn is not None
        arms.outcome(turn, 1.0, 1.0)
    assert [arm.blocks for arm in arms.report()] == [0, 0]


def test_a_version_that_comes_again_begins_anew() -> None:
    arms = Arms(CANARY, seed=1)
    arms.enter([4, 5])
    for _ in range(10):
        turn = arms.turn()
        assert turn is not None
        arms.went_wrong(turn, trip=True, non_finite=False)
    arms.enter([4])
    assert [(arm.version, arm.trips) for arm in arms.report()] == [(5, 5), (4, 5)]
    arms.enter([4, 5])
    assert [(arm.version, arm.trips) for arm in arms.report()] == [(4, 5), (5, 0)]

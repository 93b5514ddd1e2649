"""The canary test: looked at after every report, it is still right; and what is worse is found soon."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloud.canary import FIRST, PRIOR, CanaryTest, Tally, _least, decide, judge, log_evidence, tally_of
from messages.learning import Paired

F64 = NDArray[np.float64]
TEST = CanaryTest()
STRICT = CanaryTest(margin=1e-9, beta=1e-12)
"""Nothing is ever as good: every look of a whole life counts."""
LOOK = 8
"""Pairs of a node between two reports."""


def differences(rng: np.random.Generator, pairs: int, *, worse: float = 0.0, block: int = 16) -> F64:
    """Of block means of a stream that forgets slowly, with tails of a t distribution of 3 degrees; its mean is 1."""
    steps = 2 * pairs * block
    slow = np.empty(steps)
    value, keep = 0.0, 0.98
    for step, push in enumerate((rng.standard_normal(steps) * math.sqrt(1 - keep**2)).tolist()):
        value = keep * value + push
        slow[step] = value
    reward = 1 + 0.5 * slow + 0.85 * rng.standard_t(3, steps) / math.sqrt(3)
    halves = reward.reshape(pairs, 2, block).mean(axis=2)
    coin = rng.random(pairs) < 0.5
    return np.where(coin, halves[:, 1] - halves[:, 0], halves[:, 0] - halves[:, 1]) - worse


def paired(values: F64) -> Paired:
    mean = float(values.mean())
    return Paired(version=2, against=1, pairs=len(values), mean=mean, m2=float(((values - mean) ** 2).sum()))


def told(values: list[F64], level: float = 1.0) -> dict[str, Tally]:
    """Tallies of nodes that reported every `LOOK` pairs."""
    found: dict[str, Tally] = {}
    for node, of in enumerate(values):
        tally: Tally | None = None
        for end in range(LOOK, len(of) + 1, LOOK):
            tally = tally_of(tally, paired(of[:end]), level=level, session="a")
        found[str(node)] = tally or Tally()
    return found


def lives(seed: int, lives: int, pairs: int, *, worse: float = 0.0, nodes: int = 2) -> list[list[F64]]:
    rng = np.random.default_rng(seed)
    return [[differences(rng, pairs, worse=worse) for _ in range(nodes)] for _ in range(lives)]


def ends(life: list[F64], test: CanaryTest = TEST) -> tuple[str, int]:
    """The first decision, and after how many pairs of all nodes."""
    tallies = {str(node): Tally() for node in range(len(life))}
    for end in range(LOOK, len(life[0]) + 1, LOOK):
        for node, values in enumerate(life):
            tallies[str(node)] = tally_of(tallies[str(node)], paired(values[:end]), level=1.0, session="a")
        found = decide(tallies, test)
        if found != "go_on":
            return found, end * len(life)
    return "go_on", len(life[0]) * len(life)


def peeked(life: list[F64]) -> bool:
    """What many do: a t-test at the 1 % level, looked at after every report."""
    for end in range(LOOK, len(life[0]) + 1, LOOK):
        values = np.concatenate([one[:end] for one in life])
        if values.mean() / (values.std(ddof=1) / math.sqrt(len(values))) < -2.33:
            return True
    return False


def test_equal_versions_are_not_called_worse_where_a_test_looked_at_again_and_again_would() -> None:
    equal = lives(1, 300, 160)
    false = sum(ends(life, STRICT)[0] == "worse" for life in equal)
    peeking = sum(peeked(life) for life in equal)
    assert false <= 0.01 * len(equal)
    assert peeking > 0.03 * len(equal), "the planted fault must be seen"


def test_a_release_that_is_a_fifth_worse_is_found_soon_and_one_as_good_is_let_through() -> None:
    found = [ends(life) for life in lives(2, 60, 160, worse=0.2)]
    assert {decision for decision, _ in found} == {"worse"}
    assert max(pairs for _, pairs in found) <= 240
    fine = [ends(life, CanaryTest(margin=0.2)) for life in lives(3, 40, 320)]
    assert {decision for decision, _ in fine} == {"as_good"}


def test_one_worse_by_the_margin_is_seldom_let_through() -> None:
    test = CanaryTest(margin=0.1, alpha=1e-9)
    through = [ends(life, test)[0] == "as_good" for life in lives(4, 60, 160, worse=0.1)]
    assert sum(through) <= 0.1 * len(through)


def test_a_release_that_harms_one_cell_alone_is_found_though_the_others_gain() -> None:
    rng = np.random.default_rng(5)
    life = [differences(rng, 240, worse=worse) for worse in (0.5, -0.3, -0.3)]
    assert ends(life, STRICT)[0] == "worse"


def test_what_one_monstrous_reward_does_is_nothing() -> None:
    life = lives(6, 1, 160, nodes=1)[0]
    for size in (-1e3, -1e9):
        life[0][40] = size
        assert ends(life, STRICT)[0] == "go_on"


def test_without_the_coin_a_drift_would_be_taken_for_a_worse_candidate() -> None:
    drift = np.linspace(1, 0, 640)
    halves = drift.reshape(160, 2, 2).mean(axis=2)
    rng = np.random.default_rng(7)
    coin = np.where(rng.random(160) < 0.5, 1, -1)
    difference = halves[:, 1] - halves[:, 0]
    assert ends([difference], STRICT)[0] == "worse", "the planted fault: the candidate always comes second"
    assert ends([coin * difference], STRICT)[0] == "go_on"


def test_the_evidence_is_a_fair_bet_at_every_number_of_pairs() -> None:
    """E M = at most 1 for signs thrown by a fair coin, whatever the sizes: summed over all outcomes of 12 pairs."""
    mild = np.array([0.3, 0.5, 0.1, 0.2, 1, 0.1, 0.4, 0.3, 0.5, 0.7, 0.1, 0.1])
    for sizes, least in ((mild, 0.8), (np.array([1, 5, 0.1, 2, 100, 1, 1, 3, 0.5, 7, 1, 1]), 0.0)):
        for pairs in range(1, 13):
            signs = np.array(np.meshgrid(*[[-1, 1]] * pairs)).reshape(pairs, -1).T
            squares = float((sizes[:pairs] ** 2).sum())
            worth = [math.exp(log_evidence(float(total), squares)) for total in signs @ sizes[:pairs]]
            assert least < np.mean(worth) <= 1 + 1e-12


@given(st.floats(-1e4, 1e4), st.floats(0, 1e6))
def test_evidence_is_finite_and_grows_with_the_sum(total: float, squares: float) -> None:
    assert math.isfinite(log_evidence(total, squares))
    assert log_evidence(total + 1, squares) > log_evidence(total, squares)


def test_evidence_equals_the_integral_over_half_normal_bets() -> None:
    total, squares = 7.3, 21.0
    bets = np.linspace(0, 20, 200_001)
    density = 2 * math.sqrt(PRIOR / (2 * math.pi)) * np.exp(-PRIOR * bets**2 / 2)
    worth = float((density * np.exp(bets * total - bets**2 * squares / 2)).sum() * (bets[1] - bets[0]))
    assert log_evidence(total, squares) == pytest.approx(math.log(worth), abs=1e-3)


def test_a_node_is_judged_by_the_very_sums_of_its_pairs() -> None:
    for pairs in range(FIRST, 40):
        one = {"a": tally_of(None, paired(np.full(pairs, -7.0)), level=1, session="a")}
        assert (decide(one, STRICT) == "worse") == (log_evidence(pairs, pairs) >= -math.log(STRICT.alpha))
    assert log_evidence(FIRST, FIRST) < -math.log(STRICT.alpha) < log_evidence(40, 40)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40), st.data())
def test_sessions_of_a_node_add_up(values: list[float], data: st.DataObject) -> None:
    array = np.array(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(values) - 1), max_size=3)))
    tally = None
    for session, (low, high) in enumerate(pairwise([0, *cuts, len(values)])):
        for end in range(low + 1, high + 1):
            tally = tally_of(tally, paired(array[low:end]), level=1, session=str(session))
    assert tally is not None and tally.pairs == len(values)
    assert tally.mean == pytest.approx(array.mean(), abs=1e-9)
    assert tally.m2 == pytest.approx(((array - array.mean()) ** 2).sum(), rel=1e-6, abs=1e-6)


def test_a_count_that_begins_anew_in_a_session_adds_to_what_was_counted() -> None:
    array = np.arange(30.0)
    tally = tally_of(None, paired(array[:20]), level=1, session="a")
    tally = tally_of(tally, paired(array[20:25]), level=1, session="a")
    tally = tally_of(tally, paired(array[20:]), level=1, session="a")
    assert (tally.pairs, tally.mean) == (30, pytest.approx(14.5))


def test_the_figures_enclose_the_true_difference_and_the_bound_is_what_decides() -> None:
    inside = 0
    for life in lives(8, 40, 160, worse=0.1):
        seen = judge(told(life), TEST)
        assert seen.difference is not None and seen.low is not None and seen.high is not None
        inside += seen.low < -0.1 < seen.high
        assert (seen.high < 0) == (seen.decision == "worse")
    assert inside >= 36


def test_a_canary_that_said_too_little_lets_nothing_through_and_too_many_pairs_are_inconclusive() -> None:
    life = lives(9, 1, 320, worse=-0.5, nodes=2)[0]
    tallies = told(life)
    assert decide(tallies, TEST) == "as_good"
    silent = {**tallies, "gone": tally_of(None, paired(life[0][: FIRST - 1]), level=1, session="a")}
    assert decide(silent, TEST) == "go_on"
    assert decide(silent, CanaryTest(most_pairs=600)) == "inconclusive"


def test_versions_that_do_the_same_give_no_evidence() -> None:
    same = {"a": tally_of(None, Paired(version=2, against=1, pairs=100, mean=0.0, m2=0.0), level=0.0, session="a")}
    assert decide(same, TEST) == "go_on"
    assert judge(same, TEST) == ("go_on", 100, None, None, None)


def test_bounds_of_a_difference_that_is_absurd_are_found_in_the_end() -> None:
    """Where neighbouring numbers are further apart than the bounds are exact."""
    assert _least(lambda x: x > 1e12, 1e12) == 1e12 + 2**-13

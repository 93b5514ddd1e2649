"""Carbon is a constraint of a release: who emits much more, beyond the limit, does not reach the fleet by earning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_canary import LOOK, differences
from test_releases import NODES, Plant, tried

from cloud.canary import CanaryTest, Carbon, Tally, decide, tally_of
from cloud.trials import ReleaseSettings
from cloud.validation import Outcome, ValidationSettings, objection
from edge.arms import Arms, CanarySettings
from messages.learning import Arm, Paired

F64 = NDArray[np.float64]
STRICT = CanaryTest(margin=1e-9, beta=1e-12)
"""Nothing is ever as good: every look of a whole life counts."""


def paired(money: F64, carbon: F64) -> Paired:
    return Paired(
        version=2, against=1, pairs=len(money), mean=float(money.mean()), m2=float(money.var() * len(money)),
        cost=float(carbon.mean()), cost_m2=float(carbon.var() * len(carbon)),
    )  # fmt: skip


def ends(seed: int, *, more: float, gain: float, limit: float, test: CanaryTest, pairs: int = 160) -> str:
    """The first decision on two canaries; the incumbent earns and emits about 1 per decision, what it emits swings
    as what it earns does."""
    rng = np.random.default_rng(seed)
    money = [differences(rng, pairs, worse=-gain) for _ in range(2)]
    carbon = [differences(rng, pairs, worse=-more) for _ in range(2)]
    tallies = {"0": Tally(), "1": Tally()}
    for end in range(LOOK, pairs + 1, LOOK):
        for node in range(2):
            said = paired(money[node][:end], carbon[node][:end])
            emits = Carbon(limit, 1.0, 1.0 + said.cost)
            tallies[str(node)] = tally_of(tallies[str(node)], said, level=1.0, session="a", carbon=emits)
        found = decide(tallies, test)
        if found != "go_on":
            return found
    return "go_on"


def test_one_that_earns_more_and_emits_a_fifth_more_than_is_allowed_is_taken_back() -> None:
    found = [ends(seed, more=0.2, gain=0.1, limit=0.9, test=CanaryTest(), pairs=640) for seed in range(20)]
    assert set(found) == {"emits_more"}


def test_where_the_limit_is_kept_it_may_emit_more() -> None:
    found = [ends(seed, more=0.2, gain=0.3, limit=2.0, test=CanaryTest(margin=0.2), pairs=320) for seed in range(10)]
    assert set(found) == {"as_good"}


def test_equal_versions_beyond_the_limit_are_seldom_called_either() -> None:
    found = [ends(seed, more=0.0, gain=0.0, limit=0.1, test=STRICT) for seed in range(200)]
    assert sum(one in ("worse", "emits_more") for one in found) <= 0.01 * len(found)
    loose = CanaryTest(margin=1e-9, beta=1e-12, alpha=0.4, more=1e-9)
    loosely = [ends(seed, more=0.0, gain=0.0, limit=0.1, test=loose) for seed in range(60)]
    assert "emits_more" in loosely, "the planted fault: a test that asks for little"


def test_equal_versions_that_emit_more_than_allowed_are_let_through_in_the_end() -> None:
    test = CanaryTest(margin=0.2, more=0.2)
    assert {ends(seed, more=0.0, gain=0.0, limit=0.1, test=test, pairs=640) for seed in range(10)} == {"as_good"}


def test_where_the_incumbent_emits_next_to_nothing_more_is_a_share_of_the_limit() -> None:
    """One that only waits must not keep everything out that works."""
    rng = np.random.default_rng(1)
    money, carbon = differences(rng, 320, worse=-0.5), differences(rng, 320, worse=-1.0)
    said = paired(money, carbon)
    for more, wanted in ((0.1, "emits_more"), (2.0, "as_good")):
        tally = tally_of(None, said, level=1.0, session="a", carbon=Carbon(0.7, 0.01, 0.01 + said.cost))
        assert decide({"a": tally}, CanaryTest(margin=0.2, more=more)) == wanted


def test_one_that_emits_exactly_what_the_incumbent_does_is_not_held_back_by_it() -> None:
    money = np.tile([0.1, -0.1], 200)
    tally = tally_of(None, paired(money, 0 * money), level=1.0, session="a", carbon=Carbon(0.1, 1.0, 1.0))
    assert decide({"a": tally}, CanaryTest()) == "as_good"


def test_a_node_counts_what_a_candidate_emits_in_the_same_pairs_as_what_it_earns() -> None:
    arms = Arms(CanarySettings(block=2, washout=0), seed=3)
    arms.enter([4, 5])
    for _ in range(40):
        turn = arms.turn()
        assert turn is not None
        arms.outcome(turn, 10.0, 3.0 if turn.version == 5 else 2.5)
    (found,) = arms.paired()
    assert (found.pairs, found.mean, found.cost, found.cost_m2) == (10, 0.0, 0.5, 0.0)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "models.db", ReleaseSettings(test=CanaryTest(margin=0.1)))
    yield made
    made.registry.close()


def emit(plant: Plant, node: str, more: float, *, limit: float | None) -> None:
    """Ten further pairs that earn a little more, and emit so much more than 2 kg."""
    plant.pairs[node] += 10
    count = plant.pairs[node]
    plant.report(
        node,
        arms=[Arm(version=1, blocks=count, mean=10.0, cost=2.0), Arm(version=2, blocks=count, cost=2.0 + more)],
        pairs=[
            Paired(version=2, against=1, pairs=count, mean=0.5, m2=count * 1.0, cost=more, cost_m2=count * 0.01)
        ],
        cost_limit=limit,
    )  # fmt: skip


def test_the_fleet_never_has_a_version_that_its_canaries_found_to_emit_too_much(plant: Plant) -> None:
    canaries = tried(plant)
    for _ in range(100):
        for node in plant.canaries():
            emit(plant, node, 0.5, limit=2.4)
    assert plant.running() == dict.fromkeys(NODES, (1, "fleet"))
    what, _, why = plant.last(2)
    assert (
        what == "rolled_back" and f"{canaries[0]} 2.5 kg per decision, 0.5 more than the incumbent, allowed 2.4" in why
    )


@pytest.mark.parametrize("limit", [2.6, None])
def test_it_has_it_where_the_limit_is_kept_or_there_is_none(plant: Plant, limit: float | None) -> None:
    tried(plant)
    for _ in range(100):
        for node in plant.canaries():
            emit(plant, node, 0.5, limit=limit)
    assert plant.running() == dict.fromkeys(NODES, (2, "fleet"))


def test_simulation_refuses_what_emits_far_more_than_allowed_unless_the_incumbent_does() -> None:
    def said(over: float, before: float) -> str | None:
        metrics, incumbent = {"mean_return": 11.0, "over_limit": over}, {"mean_return": 10.0, "over_limit": before}
        return objection(Outcome(metrics, incumbent), ValidationSettings())

    assert said(1.1, 0.2) == "over_limit 1.1, the incumbent has 0.2; at most 1 is allowed"
    assert said(0.9, 0.0) is None and said(1.1, 1.2) is None
    assert objection(Outcome({"mean_return": 11.0}, {"mean_return": 10.0}), ValidationSettings()) is None

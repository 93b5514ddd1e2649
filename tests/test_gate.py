"""The gate: what is broken, forged, replayed, too heavy or turned round is named, and honest unlike nodes are not."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.gate import NORMS, Gate, GateSettings, Taken
from cloud.outliers import agreement, evidence, turned_first
from cloud.probe import LEAST_DIMENSIONS, Probe
from cloud.quarantine import EVIDENCE, GateState, Refused
from messages.cells import NETWORK
from messages.initial import initial
from messages.learning import Artefact, Feature, Interface, Round, Training, Update, UpdateHead
from messages.network import Network
from messages.signing import SigningKey, public_key
from messages.updates import pack, signed

NET = Network(inputs=3, hidden=(8,), outputs=2)
NODES = [f"node-{k}" for k in range(20)]
SECRET = {node: SigningKey.from_seed(bytes([k]) * 32) for k, node in enumerate(NODES)}
KEYS = {node: public_key(key.public) for node, key in SECRET.items()}
SECOND = 1_000_000
ASKED = Round(
    model="cell",
    round=7,
    base_version=3,
    base=Artefact.of(b"base"),
    network=NET,
    interface=Interface(features=[Feature(metric="wear", low=0, high=1)], actions=["wait", "work"]),
    shared=NET.shared,
    training=Training(steps=50),
    codec="float32",
    opened_at=1_000 * SECOND,
    deadline=1_300 * SECOND,
)
NOW = 1_100 * SECOND
DELTA = np.linspace(-1, 1, NET.shared, dtype=np.float32)


def update(
    delta: np.ndarray = DELTA, *, by: str = NODES[0], codec: str = "float32", samples: int = 100, **head: object
) -> Update:
    facts = {"model": "cell", "round": 7, "base": ASKED.base.sha256, "at": NOW, **head}
    return signed(UpdateHead(codec=codec, samples=samples, **facts), delta, SECRET[by], name=by)  # type: ignore[arg-type]


def judged(
    one: Update, *, node: str = NODES[0], now: int = NOW, late: bool = False, asked: Round = ASKED
) -> Taken | Refused:
    return Gate(GateSettings(), KEYS).judge(node, one, asked, now=now, late=late)


def spoilt(value: float) -> np.ndarray:
    delta = DELTA.copy()
    delta[5] = value
    return delta


def test_a_good_update_is_taken_as_it_was_sent() -> None:
    verdict = judged(update())
    assert isinstance(verdict, Taken)
    assert (verdict.delta == DELTA).all() and verdict.weight == 100


def test_claimed_samples_weigh_no_more_than_the_cap() -> None:
    verdict = judged(update(samples=900_000))
    assert isinstance(verdict, Taken) and verdict.weight == GateSettings().samples_cap


@pytest.mark.parametrize(
    ("made", "reason", "strike"),
    [
        (lambda: update(spoilt(np.nan)), "not_finite", True),
        (lambda: update(spoilt(-np.inf)), "not_finite", True),
        (lambda: update(spoilt(3e38)), "not_finite", True),
        (lambda: update(DELTA[:-1]), "shape", True),
        (lambda: update(np.append(DELTA, 0).astype(np.float32)), "shape", True),
        (lambda: update(samples=10**12), "samples", True),
        (lambda: update(samples=-30), "samples", True),
        (lambda: update(samples=0), "samples", True),
        (lambda: update(round=6), "replay", False),
        (lambda: update(model="other"), "model", False),
        (lambda: update(base="0" * 64), "base", True),
        (lambda: update(codec="int8"), "codec", True),
        (lambda: update(at=1), "time", False),
        (lambda: update(at=NOW + 100 * SECOND), "time", False),
        (lambda: update(by=NODES[1]), "signer", False),
    ],
)
def test_what_is_wrong_with_an_update_is_named(made: Callable[[], Update], reason: str, strike: bool) -> None:
    verdict = judged(made())
    assert isinstance(verdict, Refused)
    assert (verdict.reason, verdict.strike) == (reason, strike)
    assert verdict.evidence


def test_who_signed_for_nobody_is_refused_and_it_is_no_strike_as_anybody_could_have_sent_it() -> None:
    good = update()
    forged = Update(head=good.head, data=good.data[:-1] + bytes([good.data[-1] ^ 1]))
    verdict = judged(forged)
    assert isinstance(verdict, Refused) and verdict.reason == "signature" and not verdict.strike


def test_who_has_less_experience_than_the_round_asks_for_is_told_so_and_not_blamed() -> None:
    asked = ASKED.model_copy(update={"experience": 101})
    verdict = judged(update(samples=100), asked=asked)
    assert isinstance(verdict, Refused) and verdict.reason == "experience" and not verdict.strike
    assert "101 are asked for" in verdict.evidence
    assert isinstance(judged(update(samples=101), asked=asked), Taken)


def test_after_the_deadline_an_update_is_late_unless_late_ones_are_wanted() -> None:
    verdict = judged(update(), now=ASKED.deadline + 1)
    assert isinstance(verdict, Refused) and verdict.reason == "late" and not verdict.strike
    assert isinstance(judged(update(), now=ASKED.deadline + 1, late=True), Taken)


def test_numbers_that_overflow_the_wire_format_are_no_numbers() -> None:
    tensors = pack(spoilt(np.nan), "float16")
    assert np.isnan(tensors["delta"].astype(float)).any()  # a codec hides nothing from the gate


# --- beside the others ------------------------------------------------------------------------------


class Season:
    """Rounds of a fleet, whose deltas somebody makes."""

    def __init__(self, **settings: object) -> None:
        self.gate = Gate(GateSettings(**settings), KEYS)  # type: ignore[arg-type]
        self.state = GateState()
        self.named: dict[str, set[str]] = {}
        """node → reasons"""
        self.left_out: list[set[str]] = []

    def round(
        self,
        updates: np.ndarray,
        *,
        refused: dict[str, Refused] | None = None,
        behaviour: np.ndarray | None = None,
        along: np.ndarray | None = None,
        names: Sequence[str] = (),
    ) -> None:
        names = names or NODES[: len(updates)]
        sifted, self.state = self.gate.sift(
            self.state,
            round=len(self.left_out) + 1,
            steps=50,
            names=names,
            updates=updates.astype(np.float32),
            behaviour=behaviour,
            along=None if along is None else along.tolist(),
            refused=refused,
        )
        self.left_out.append({name for name, kept in zip(names, sifted.kept, strict=True) if not kept})
        for name, why in sifted.refused.items():
            self.named.setdefault(name, set()).add(why.reason)
        for name in sifted.accused:
            self.named.setdefault(name, set()).add("accused")


def alike(rng: np.random.Generator, nodes: int, *, share: float = 0.3, parameters: int = 400) -> np.ndarray:
    """Deltas with a common direction: `share` of each one's square; lengths 1 to 1.5."""
    common = rng.standard_normal(parameters)
    own = rng.standard_normal((nodes, parameters))
    delta = np.sqrt(share) * common + np.sqrt(1 - share) * own
    return delta / np.linalg.norm(delta, axis=1, keepdims=True) * rng.uniform(1, 1.5, (nodes, 1))


def test_a_delta_of_a_hundred_times_the_others_length_is_left_out_and_named() -> None:
    season = Season()
    updates = alike(np.random.default_rng(1), 20)
    updates[3] *= 100
    season.round(updates)
    assert season.left_out == [{NODES[3]}] and season.named == {NODES[3]: {"norm"}}
    assert "times the median" in season.state.nodes[NODES[3]].evidence[0].text


def test_the_first_round_of_two_nodes_has_no_measure_of_length_and_later_ones_do() -> None:
    season = Season()
    pair = alike(np.random.default_rng(1), 2)
    season.round(pair * [[1], [100]])
    assert season.left_out == [set()]
    season = Season()
    for seed in range(3):
        season.round(alike(np.random.default_rng(seed), 2))
    season.round(pair * [[1], [100]])
    assert season.left_out[-1] == {NODES[1]}


def test_lengths_of_rounds_with_other_training_measure_nothing() -> None:
    season = Season()
    for seed in range(3):
        season.round(alike(np.random.default_rng(seed), 2) * 0.01)
    sifted, after = season.gate.sift(
        season.state, round=9, steps=5_000, names=NODES[:2], updates=alike(np.random.default_rng(9), 2).astype("f4")
    )
    assert sifted.kept.all() and len(after.norms) == 2


@pytest.mark.parametrize("seed", range(5))
def test_turned_deltas_are_left_out_at_once_and_their_nodes_quarantined_in_the_second_round(seed: int) -> None:
    season, rng = Season(), np.random.default_rng(seed)
    liars = set(NODES[:6])
    for _ in range(2):
        updates = alike(rng, 20)
        updates[:6] *= -1
        season.round(updates)
    assert season.left_out == [liars, liars]
    assert set(season.state.quarantined) == liars == set(season.named)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_honest_nodes_however_unlike_are_not_accused_in_a_hundred_rounds(share: float) -> None:
    season, rng = Season(), np.random.default_rng(3)
    for _ in range(100):
        season.round(alike(rng, 20, share=share, parameters=200))
    accusations = sum(len(one) for one in season.left_out)
    assert accusations <= 1 and not season.state.quarantined


@pytest.mark.parametrize("groups", [2, 4])
def test_nodes_of_different_kinds_that_learn_different_things_are_not_accused(groups: int) -> None:
    season, rng = Season(), np.random.default_rng(4)
    kinds = rng.standard_normal((groups, 200))
    kinds[1] = -kinds[0]  # what is good in one kind of cell is bad in another one
    for _ in range(100):
        own = rng.standard_normal((20, 200))
        season.round(own + kinds[np.arange(20) % groups])
    assert sum(len(one) for one in season.left_out) <= 1 and not season.state.quarantined


def test_a_node_that_learns_something_of_its_own_is_not_accused_beside_nodes_that_are_alike() -> None:
    season, rng = Season(), np.random.default_rng(5)
    for _ in range(100):
        updates = alike(rng, 20, share=0.5)
        updates[0] = alike(rng, 1)[0]  # at right angles to them
        season.round(updates)
    assert season.left_out == [set()] * 100


def test_first_updates_that_turn_decisions_against_all_other_first_ones_are_quarantined_until_they_were_clean() -> None:
    season, rng = Season(), np.random.default_rng(6)
    behaviour = alike(rng, 20, share=0.5, parameters=60).astype(np.float32)
    behaviour[:6] *= -1
    for _ in range(3):  # later a node's head is its own, and what the probe says of it means nothing
        season.round(alike(rng, 20), behaviour=behaviour)
    assert season.left_out == [set(NODES[:6])] * 3
    assert season.named == {node: {"decisions", "accused"} for node in NODES[:6]}
    for _ in range(GateSettings().lifted_after):
        season.round(alike(rng, 20), behaviour=behaviour)
    assert not season.state.quarantined
    assert "turns decisions" in season.state.nodes[NODES[0]].evidence[0].text


@pytest.mark.parametrize("seed", range(5))
def test_six_of_twenty_first_updates_that_turn_decisions_are_all_named_though_they_bend_the_sum_of_all(
    seed: int,
) -> None:
    season, rng = Season(), np.random.default_rng(seed)
    along = np.where(np.arange(20) < 6, -0.6, 1.0)[:, None]  # rewards turned round teach no mirror image
    sure = rng.uniform(0.2, 1.5, (20, 1))  # who saw little learned little of what is common
    behaviour = along * rng.standard_normal(100) + sure * rng.standard_normal((20, 100))
    season.round(alike(rng, 20), behaviour=behaviour.astype(np.float32))
    assert season.left_out == [set(NODES[:6])]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9])
def test_honest_first_updates_are_not_accused_of_turning_decisions(share: float) -> None:
    rng = np.random.default_rng(9)
    for _ in range(100):
        season = Season()
        season.round(alike(rng, 20), behaviour=alike(rng, 20, share=share, parameters=60).astype(np.float32))
        assert season.left_out == [set()]


def test_a_first_update_that_does_something_of_its_own_to_decisions_is_not_accused() -> None:
    rng = np.random.default_rng(10)
    for _ in range(50):
        season = Season()
        behaviour = alike(rng, 20, share=0.8, parameters=300)
        behaviour[0] = alike(rng, 1, parameters=300)[0]  # at right angles to the others
        season.round(alike(rng, 20), behaviour=behaviour.astype(np.float32))
        assert season.left_out == [set()]


def test_first_updates_of_few_new_nodes_are_not_compared_with_those_of_old_ones() -> None:
    season, rng = Season(), np.random.default_rng(6)
    season.round(alike(rng, 16))
    behaviour = alike(rng, 20, share=0.5, parameters=60).astype(np.float32)
    behaviour[16:] *= -1
    season.round(alike(rng, 20), behaviour=behaviour)
    assert season.left_out == [set(), set()]


@pytest.mark.parametrize("seed", range(5))
def test_updates_that_begin_to_take_back_what_was_learned_are_told_after_some_rounds_and_no_honest_one_is(
    seed: int,
) -> None:
    season, rng = Season(), np.random.default_rng(seed)
    for number in range(24):
        along = rng.normal(0.3, 0.15, 20)
        along[:6] -= 1.0 if number >= 12 else 0.0
        season.round(alike(rng, 20), along=along, behaviour=alike(rng, 20).astype(np.float32))
        assert number >= 15 or not season.named, "three rounds are no proof"
    assert set(season.state.quarantined) == set(NODES[:6]) == set(season.named)
    assert "take back what all have learned" in season.state.nodes[NODES[0]].evidence[0].text


@pytest.mark.parametrize("spread", [0.02, 0.15, 0.6])
def test_honest_updates_that_go_along_more_or_less_are_not_accused_of_taking_back(spread: float) -> None:
    season, rng = Season(), np.random.default_rng(3)
    own = rng.normal(0, spread / 2, 20)  # what a cell of its own kind always does
    for _ in range(100):
        season.round(alike(rng, 20), along=0.1 + own + rng.normal(0, spread, 20))
    assert sum(len(one) for one in season.left_out) <= 1 and not season.state.quarantined


def test_a_fleet_that_takes_back_what_it_learned_accuses_nobody_nor_do_few_nodes() -> None:
    season, rng = Season(), np.random.default_rng(4)
    for _ in range(20):
        season.round(alike(rng, 20), along=rng.normal(-0.9, 0.1, 20))
        season.round(alike(rng, 4), along=np.array([0.3, 0.3, 0.3, -1.0]))
    assert not season.named


def test_strikes_quarantine_a_clean_round_takes_one_off_and_clean_rounds_end_it() -> None:
    season, rng = Season(strikes=2, lifted_after=3), np.random.default_rng(7)
    bad = {NODES[19]: Refused("not_finite", "3 of 40 numbers are none")}
    season.round(alike(rng, 19), refused=bad)
    season.round(alike(rng, 20))
    season.round(alike(rng, 19), refused=bad)
    assert not season.state.quarantined
    season.round(alike(rng, 19), refused=bad)
    assert season.state.quarantined == [NODES[19]]
    for _ in range(3):
        assert season.state.quarantined
        season.round(alike(rng, 20))
        assert season.left_out[-1] == {NODES[19]}
    assert not season.state.quarantined
    season.round(alike(rng, 20))
    assert not season.left_out[-1]


def test_silence_takes_no_strike_off_and_ends_no_quarantine() -> None:
    season, rng = Season(strikes=2, lifted_after=2), np.random.default_rng(7)
    bad = {NODES[19]: Refused("shape", "3 numbers")}
    for refused in (bad, None, None, bad, None, None, None):
        season.round(alike(rng, 19), refused=refused)
    assert season.state.quarantined == [NODES[19]]


def test_many_strikes_do_not_make_a_quarantine_longer_than_is_said() -> None:
    season, rng = Season(strikes=2, lifted_after=3), np.random.default_rng(7)
    for _ in range(50):
        season.round(alike(rng, 19), refused={NODES[19]: Refused("shape", "3 numbers")})
    for _ in range(2 + 3):
        season.round(alike(rng, 20))
    assert not season.state.quarantined


def test_what_is_no_strike_never_quarantines() -> None:
    season = Season(strikes=1)
    for reason in ("signature", "signer", "stale", "late", "time", "undecodable"):
        season.round(alike(np.random.default_rng(1), 19), refused={NODES[19]: Refused(reason, "…")})
    assert not season.state.nodes


def test_a_quarantine_can_be_made_and_lifted_by_hand() -> None:
    state = GateState().put_away("node-1", round=3, why="its robot is being rebuilt")
    assert state.quarantined == ["node-1"] and state.nodes["node-1"].evidence[0].reason == "by_hand"
    assert not state.lifted("node-1").nodes


def test_what_is_remembered_is_bounded_and_survives_being_written() -> None:
    season, rng = Season(lifted_after=1_000), np.random.default_rng(8)
    for _ in range(30):
        updates = alike(rng, 20)
        updates[0] *= -1
        season.round(updates)
    assert len(season.state.norms) == NORMS
    assert len(season.state.nodes[NODES[0]].evidence) == EVIDENCE
    assert GateState.model_validate_json(season.state.model_dump_json()) == season.state


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 8), st.integers(0, 2**31))
def test_agreement_is_the_cosine_with_the_directions_of_the_others(nodes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (nodes, 7)).astype(np.float32)
    rows[rng.random(nodes) < 0.2] = 0
    among = rng.random(nodes) < 0.8
    lengths = np.linalg.norm(rows, axis=1)
    found = agreement(rows, lengths.astype(np.float32), among)
    for k in range(nodes):
        others = [j for j in range(nodes) if j != k and among[j] and lengths[j] > 0]
        total = sum((rows[j] / lengths[j] for j in others), np.zeros(7))
        size = float(np.linalg.norm(total)) * float(lengths[k])
        wanted = float(rows[k] @ total) / size if size > 1e-6 else 0.0
        assert abs(found[k] - wanted) < 1e-3


@pytest.mark.parametrize(
    ("network", "asked"),
    [
        (Network(inputs=2, hidden=(4,), outputs=2), False),
        (Network(inputs=3, hidden=(8,), outputs=2), False),
        (Network(inputs=6, hidden=(16,), outputs=2), False),
        (NETWORK, True),
    ],
)
def test_unrelated_updates_turn_no_decisions_and_where_a_network_is_too_small_to_tell_nobody_asks(
    network: Network, asked: bool
) -> None:
    fleets, accused = 20, 0
    for seed in range(fleets):
        rng = np.random.default_rng(seed)
        base = initial(network, rng)
        probe = Probe.of(network, base, network.size)
        assert (probe.dimensions >= LEAST_DIMENSIONS) is asked
        rows = rng.normal(0, 0.01, (20, network.size)).astype(np.float32)
        doings = np.array([probe(row) for row in rows])
        accused += bool(turned_first(doings, np.linalg.norm(doings, axis=1), np.ones(20, bool))[1].any())
    assert accused == 0 if asked else accused > fleets / 10, "that is why nobody asks"


def test_the_error_bound_of_the_probe_holds_for_unrelated_changes_of_as_many_dimensions_as_it_asks_for() -> None:
    rounds, accused = 1_000, 0
    for nodes in (5, 8, 20):
        for seed in range(rounds):
            rows = np.random.default_rng((nodes, seed)).standard_normal((nodes, int(LEAST_DIMENSIONS)), np.float32)
            accused += bool(turned_first(rows, np.linalg.norm(rows, axis=1), np.ones(nodes, bool))[1].any())
    assert accused <= 0.02 * 3 * rounds


def test_a_base_that_is_no_number_or_nothing_but_zeros_can_change_in_no_way() -> None:
    for value in (np.nan, 0.0):
        assert Probe.of(NET, np.full(NET.size, value, np.float32), NET.size).dimensions == 0


@pytest.mark.parametrize("module", ["cloud.outliers"])
def test_the_examples_in_the_docstrings_are_true(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module))
    assert outcome.attempted and not outcome.failed


def test_few_nodes_and_nodes_that_do_not_agree_give_no_evidence() -> None:
    assert not evidence(np.array([0.9, 0.9, 0.9, -0.9]), np.ones(4, bool)).any()
    assert not evidence(np.array([0.04, 0.04, 0.04, 0.04, -0.9]), np.ones(5, bool)).any()
    assert evidence(np.array([0.5, 0.5, 0.5, 0.5, -0.5]), np.ones(5, bool)).tolist() == [-3, -3, -3, -3, 3]


@pytest.mark.parametrize("dueling", [False, True])
def test_a_probe_says_nothing_of_no_change_and_the_opposite_of_a_turned_head(dueling: bool) -> None:
    network = Network(inputs=3, hidden=(8,), outputs=4, dueling=dueling)
    base = np.random.default_rng(1).normal(0, 1, network.size).astype(np.float32)
    probe = Probe.of(network, base, network.size)
    assert not probe(np.zeros(network.shared, np.float32)).any()
    change = np.zeros(network.size, np.float32)
    change[network.shared :] = base[network.shared :]
    assert np.allclose(probe(change), -probe(-change), atol=1e-5) and np.abs(probe(change)).max() > 0.1


@pytest.mark.parametrize("dueling", [False, True])
def test_a_probe_says_how_far_an_update_goes_along_with_what_is_decided(dueling: bool) -> None:
    network = Network(inputs=3, hidden=(8,), outputs=4, dueling=dueling)
    base = np.random.default_rng(1).normal(0, 1, network.size).astype(np.float32)
    probe = Probe.of(network, base, network.size)
    for share in (-2.0, -1.0, 0.0, 1.0):
        change = np.zeros(network.size, np.float32)
        change[network.shared :] = share * base[network.shared :]
        assert abs(probe.along(change) - share) < 1e-4
    assert Probe.of(network, np.zeros(network.size, np.float32), network.size).along(change) == 0


def test_a_probe_says_nothing_of_an_action_that_becomes_better_in_all_states_alike() -> None:
    network = Network(inputs=3, hidden=(8,), outputs=4)
    base = np.random.default_rng(1).normal(0, 1, network.size).astype(np.float32)
    change = np.zeros(network.size, np.float32)
    change[-4:] = [5, 0, 0, 0]  # the bias of one action: which one a node happened to try first
    assert np.abs(Probe.of(network, base, network.size)(change)).max() < 1e-5

"""Compiled decoding and rules say what the plain ones say, to the tick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.dispatch import award
from cloud.dispatch.floor import (
    CHOSEN,
    SEEN,
    board_of,
    copied,
    draft_of,
    floor_of,
    packed_board,
    packed_floor,
    sequence_of,
)
from cloud.dispatch.floor import weights_of as arrays
from cloud.dispatch.kernel import SEQUENCE, advance, worth
from messages.dispatch import commit
from messages.dispatch.decode import Choice, Schedule, Weights, decode, measures
from messages.dispatch.rules import RULES, run
from messages.dispatch.state import State
from tests.dispatching import shop_like, some_sequence, some_state

SEEDS = st.integers(0, 10**9)
QUICK = settings(max_examples=250, deadline=None)
WEIGHTS = Weights(makespan=1.0, waiting=0.7, tardiness=0.3, energy=0.2, carbon=0.4)


def compiled(state: State, sequence: list[Choice], rule: int = SEQUENCE) -> tuple[list[Choice], Schedule, float]:
    """The sequence as taken, what it says of times (checked here), and its worth."""
    floor, names = floor_of(state.shop)
    first, board = board_of(floor, names, state), board_of(floor, names, state)
    order, alt = draft_of(floor, names, state, sequence)
    made = np.zeros((len(floor.lag), 5), np.int64)
    packed, after, weights = packed_floor(floor), packed_board(board), arrays(WEIGHTS)
    advance(packed, after, order, alt, made, rule, weights)
    taken = sequence_of(floor, names, state, order, made[:, CHOSEN])
    schedule = decode(state, taken)
    for bid in schedule.bids:
        at = floor.step_first[names.job[bid.job]] + bid.op
        assert made[at, :CHOSEN].tolist() == [bid.start, bid.end, bid.loads, bid.arrives]
    assert board.part[:, :SEEN].tolist() == board_of(floor, names, schedule.end).part[:, :SEEN].tolist()
    assert board.vehicle.tolist() == board_of(floor, names, schedule.end).vehicle.tolist()
    assert board.clock.tolist() == [state.now, schedule.end.last, schedule.end.faults]
    return taken, schedule, worth(packed, packed_board(first), after, order, made, weights)


@QUICK
@given(seed=SEEDS)
def test_a_sequence_decodes_to_the_same_compiled(seed: int) -> None:
    state = some_state(shop_like(seed), seed)
    sequence = some_sequence(state, seed + 1)
    taken, schedule, value = compiled(state, sequence)
    assert decode(state, sequence) == schedule
    assert taken == list(schedule.sequence)
    assert value == pytest.approx(measures(schedule).value(WEIGHTS), rel=1e-12)


@QUICK
@given(seed=SEEDS, ahead=st.integers(0, 60))
def test_what_is_awarded_of_a_sequence_is_the_same_compiled(seed: int, ahead: int) -> None:
    state = some_state(shop_like(seed), seed)
    schedule = decode(state, some_sequence(state, seed + 1))
    floor, names = floor_of(state.shop)
    first = board_of(floor, names, state)
    board = copied(first)
    order, alt = draft_of(floor, names, state, schedule.sequence)
    made = np.zeros((len(floor.lag), 5), np.int64)
    advance(packed_floor(floor), packed_board(board), order, alt, made, SEQUENCE, arrays(WEIGHTS))
    until = state.now + ahead
    assert award.committed(floor, names, first, order, made, until) == commit.committed(schedule, until)


@QUICK
@given(seed=SEEDS, rule=st.sampled_from(list(RULES)))
def test_a_rule_decides_the_same_compiled(seed: int, rule: str) -> None:
    shop = shop_like(seed)
    if rule == "greedy":  # plain and compiled integrals of carbon differ in the last digit, which decides ties
        shop = replace(shop, carbon={})
    state = some_state(shop, seed)
    taken, _, value = compiled(state, some_sequence(state, seed + 1), list(RULES).index(rule))
    expected = run(state, RULES[rule], WEIGHTS)
    assert taken == list(expected.sequence)
    assert value == pytest.approx(measures(expected).value(WEIGHTS), rel=1e-12)

"""Aggregators: one suite for all of them, each beside a slow and obvious reference."""

from __future__ import annotations

import doctest
import importlib
import itertools
import statistics
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cloud.aggregation import Aggregator, ClippedMean, Krum, Mean, Median, Stack, Strategy, TrimmedMean, Weights, norms
from messages.errors import BrokenInvariant

KINDS = get_args(get_args(Aggregator)[0])
ALL: list[Strategy] = [
    *(kind() for kind in KINDS),
    ClippedMean(bound=0.5),
    TrimmedMean(trim=0.0),
    TrimmedMean(trim=0.4),
    Krum(chosen=1),
    Krum(hostile=0.0),
]
every = pytest.mark.parametrize("aggregate", ALL, ids=str)


@st.composite
def stacks(draw: st.DrawFn, least: int = 1) -> tuple[Stack, Weights]:
    nodes, parameters = draw(st.integers(least, 12)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    updates = rng.normal(0, draw(st.sampled_from([1e-3, 1.0, 100.0])), (nodes, parameters)).astype(np.float32)
    return updates, rng.uniform(0.5, 50, nodes).astype(np.float32)


def column_by_column(work: Callable[[list[float]], float], updates: Stack) -> list[float]:
    return [work([float(row[p]) for row in updates]) for p in range(updates.shape[1])]


def slowly(aggregate: Strategy, updates: Stack, weights: Weights) -> list[float]:
    """What each should come to, in Python's own numbers."""
    rows = [[float(x) for x in row] for row in updates]
    w = [float(x) for x in weights]

    def weighted(rows: list[list[float]]) -> list[float]:
        return [sum(a * row[p] for a, row in zip(w, rows, strict=True)) / sum(w) for p in range(updates.shape[1])]

    length = [sum(x * x for x in row) ** 0.5 for row in rows]
    if isinstance(aggregate, Mean):
        return weighted(rows)
    if isinstance(aggregate, ClippedMean):
        most = aggregate.bound or statistics.median(length)
        return weighted([[x * min(1, most / long) for x in row] for row, long in zip(rows, length, strict=True)])
    if isinstance(aggregate, Median):
        return column_by_column(statistics.median, updates)
    if isinstance(aggregate, TrimmedMean):
        cut = int(aggregate.trim * len(rows))
        return column_by_column(lambda one: statistics.fmean(sorted(one)[cut : len(one) - cut]), updates)
    assert isinstance(aggregate, Krum)
    nodes = len(rows)
    hostile = max(0, min(-int(-(aggregate.hostile * nodes) // 1), (nodes - 3) // 2))
    near = max(1, nodes - hostile - 2)
    score = [
        sum(sorted(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for j, b in enumerate(rows) if j != i)[:near])
        for i, a in enumerate(rows)
    ]
    best = sorted(range(nodes), key=lambda i: (score[i], length[i]))[: min(nodes, aggregate.chosen or nodes - hostile)]
    return column_by_column(statistics.fmean, updates[best])


@every
@settings(max_examples=60, deadline=None)
@given(stacks())
def test_an_aggregate_is_what_the_slow_reference_makes_of_it(aggregate: Strategy, given: tuple[Stack, Weights]) -> None:
    updates, weights = given
    found = aggregate(updates, weights)
    assert found.dtype == np.float32 and found.shape == (updates.shape[1],)
    scale = float(np.abs(updates).max())
    if not isinstance(aggregate, Krum):
        assert np.allclose(found, slowly(aggregate, updates, weights), rtol=1e-4, atol=1e-5 * scale)
        return
    # of two nodes each is as near to the other: rounding may choose either, so the chosen ones' mean is looked for
    wanted = slowly(aggregate, updates, weights)
    chosen = min(len(updates), aggregate.chosen or len(updates))
    means = [updates[list(rows)].mean(axis=0) for rows in itertools.combinations(range(len(updates)), chosen)]
    near = np.allclose(found, wanted, rtol=1e-3, atol=1e-4 * scale)
    assert near or (len(updates) <= 3 and any(np.allclose(found, one, rtol=1e-3, atol=1e-4 * scale) for one in means))


@every
@settings(max_examples=40, deadline=None)
@given(stacks(), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_decides_nothing(
    aggregate: Strategy, given: tuple[Stack, Weights], random: object
) -> None:
    updates, weights = given
    order = np.array(random.sample(range(len(updates)), len(updates)))  # type: ignore[attr-defined]
    found, again = aggregate(updates, weights), aggregate(updates[order], weights[order])
    assert np.allclose(found, again, rtol=1e-4, atol=1e-5 * float(np.abs(updates).max()))


@every
@settings(max_examples=20, deadline=None)
@given(stacks())
def test_nothing_that_was_handed_in_is_changed(aggregate: Strategy, given: tuple[Stack, Weights]) -> None:
    updates, weights = given
    before = updates.copy(), weights.copy()
    updates.setflags(write=False)
    weights.setflags(write=False)
    aggregate(updates, weights)
    assert (updates == before[0]).all() and (weights == before[1]).all()


@every
@settings(max_examples=30, deadline=None)
@given(stacks(), st.integers(0, 2**31))
def test_the_aggregate_of_equal_updates_is_that_update(
    aggregate: Strategy, given: tuple[Stack, Weights], seed: int
) -> None:
    updates, weights = given
    same = np.repeat(updates[:1], len(updates), axis=0)
    if isinstance(aggregate, ClippedMean) and aggregate.bound:
        same *= np.float32(aggregate.bound) / max(np.float32(aggregate.bound), norms(same).max())
    assert np.allclose(aggregate(same, weights), same[0], rtol=1e-4, atol=1e-7)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_a_number_that_is_none_never_comes_into_an_average(aggregate: Strategy, bad: float) -> None:
    updates = np.ones((7, 4), np.float32)
    updates[3, 2] = bad
    with pytest.raises(BrokenInvariant, match="numbers that are none"):
        aggregate(updates, np.ones(7, np.float32))


@every
@pytest.mark.parametrize("bad", [0.0, -30.0, np.nan, np.inf])
def test_a_weight_that_is_not_above_zero_is_no_weight(aggregate: Strategy, bad: float) -> None:
    weights = np.ones(5, np.float32)
    weights[1] = bad
    with pytest.raises(BrokenInvariant, match="weight"):
        aggregate(np.ones((5, 3), np.float32), weights)


@every
def test_nobody_and_odd_shapes_are_said_to_be_so(aggregate: Strategy) -> None:
    for updates, weights in ((np.ones((0, 3)), np.ones(0)), (np.ones((2, 3)), np.ones(3)), (np.ones(3), np.ones(3))):
        with pytest.raises(BrokenInvariant, match=r"\(K, P\)"):
            aggregate(updates.astype(np.float32), weights.astype(np.float32))


@pytest.mark.parametrize("aggregate", [Median(), TrimmedMean(trim=0.4), Krum(hostile=0.4)], ids=str)
@settings(max_examples=60, deadline=None)
@given(st.integers(5, 15), st.integers(0, 2**31), st.sampled_from([1e2, -1e2, 1e8]))
def test_what_a_hostile_minority_sends_stays_among_what_honest_nodes_sent(
    aggregate: Strategy, nodes: int, seed: int, far: float
) -> None:
    rng = np.random.default_rng(seed)
    hostile = max(0, min(int(0.4 * nodes), (nodes - 3) // 2))
    updates = rng.normal(0, 1, (nodes, 6)).astype(np.float32)
    liars = rng.choice(nodes, hostile, replace=False)
    updates[liars] = (far * (1 + rng.random((hostile, 6)))).astype(np.float32)
    honest = np.delete(updates, liars, axis=0)
    found = aggregate(updates, np.ones(nodes, np.float32))
    assert (found >= honest.min(axis=0) - 1e-4).all() and (found <= honest.max(axis=0) + 1e-4).all()


@given(stacks(least=2), st.floats(1.0, 1e6))
def test_a_clipped_mean_is_never_longer_than_its_bound(given: tuple[Stack, Weights], factor: float) -> None:
    updates, weights = given
    updates = updates.copy()
    updates[0] *= np.float32(factor)
    assert norms(ClippedMean(bound=0.5)(updates, weights)[None])[0] <= 0.5 * 1.0001
    assert norms(ClippedMean()(updates, weights)[None])[0] <= np.median(norms(updates)) * 1.0001


def test_a_node_that_sends_more_weighs_more_only_where_weights_count() -> None:
    updates = np.float32([[0], [0.5], [1]])
    heavy = np.float32([1, 1, 100])
    assert Mean()(updates, heavy)[0] > 0.9
    for aggregate in (Median(), TrimmedMean(), Krum()):
        assert (aggregate(updates, heavy) == aggregate(updates, np.ones(3, np.float32))).all()


def test_many_columns_are_worked_on_in_blocks_and_none_is_left_out() -> None:
    updates = np.random.default_rng(1).normal(size=(300, 5_001)).astype(np.float32)
    weights = np.ones(300, np.float32)
    assert np.allclose(Median()(updates, weights), np.median(updates, axis=0), atol=1e-6)
    ordered = np.sort(updates, axis=0)[60:240]
    assert np.allclose(TrimmedMean(trim=0.2)(updates, weights), ordered.mean(axis=0), atol=1e-5)


def test_settings_choose_an_aggregator_and_a_word_too_much_is_an_error() -> None:
    adapter: TypeAdapter[Strategy] = TypeAdapter(Aggregator)
    assert adapter.validate_python({"kind": "trimmed_mean", "trim": 0.3}) == TrimmedMean(trim=0.3)
    for kind in KINDS:
        assert isinstance(adapter.validate_python({"kind": kind().kind}), kind)
    with pytest.raises(ValidationError, match="best_mean"):
        adapter.validate_python({"kind": "best_mean"})
    with pytest.raises(ValidationError, match="trim"):
        adapter.validate_python({"kind": "mean", "trim": 0.3})


@pytest.mark.parametrize("name", ["seam", "mean", "clipped_mean", "median", "trimmed_mean", "krum"])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"cloud.aggregation.{name}"))
    assert outcome.attempted and not outcome.failed

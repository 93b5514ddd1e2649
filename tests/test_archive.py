"""The bounded archive: only plans that no other beats, the ends always, never more than there is room for."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.scheduling.archive import Archive, archive_of, archived
from cloud.scheduling.shop import shop_of
from messages.problem import Job, Machine, Operation, Problem

ONE = Problem(jobs=(Job(id="a", operations=(Operation(op=0, alternatives={"m": 1}),)),), machines=(Machine(id="m"),))
SHOP = shop_of(ONE)[0]


def put(archive: Archive, *points: tuple[float, float]) -> None:
    for number, (x, y) in enumerate(points):
        values = np.zeros(7)
        values[0], values[2] = x, y
        archived(archive, values, np.zeros(1, np.int32), np.array([number]), np.zeros(1, np.bool_))


def points(archive: Archive) -> list[tuple[float, float]]:
    return sorted((float(row[0]), float(row[2])) for row in archive.values[: archive.taken[0]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_what_is_kept_is_what_no_other_beats(given_points: list[tuple[int, int]]) -> None:
    archive = archive_of(SHOP, (0, 2), 64)
    put(archive, *given_points)
    front = {p for p in given_points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in given_points)}
    assert points(archive) == sorted((float(x), float(y)) for x, y in front)


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_full_archive_stays_within_its_room_and_keeps_both_ends(dice) -> None:  # type: ignore[no-untyped-def]
    archive = archive_of(SHOP, (0, 2), 16)
    line = [(float(i), 500.0 - i) for i in range(500)]
    dice.shuffle(line)
    put(archive, *line)
    kept = points(archive)
    assert 2 <= len(kept) <= 16
    assert kept[0] == (0.0, 500.0)
    assert kept[-1] == (499.0, 1.0)


def test_a_plan_is_kept_as_it_came() -> None:
    archive = archive_of(SHOP, (0, 2), 8)
    put(archive, (3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (1.0, 1.0))
    assert points(archive) == [(1.0, 1.0)]
    assert archive.start[0, 0] == 3
    assert archive.born[0] == archive.taken[1] == 4

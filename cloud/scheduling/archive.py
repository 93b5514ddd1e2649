"""The plans that no other beats, bounded, for compiled searches: what a walk passes by is kept or refused in place.

    archive = archive_of(shop, places=(0, 2), room=1000)       # by makespan and energy, as in `seam.MEASURES`
    entry = archived(archive, values, machine, start, off)     # its place, -1: another is as good
    for entry in range(int(archive.taken[0])): ...

When it is full it becomes coarser: a share `grain` of each measure's range, 1/4096 at first and then doubling, counts
as no difference, until a quarter is free. The best plan of each measure is always kept. Asking costs about a
microsecond per 1,000 plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cloud.scheduling.compiled import compiled
from cloud.scheduling.seam import MEASURES
from cloud.scheduling.shop import Bools, Floats, Indices, Ints, Shop

GRAIN = 1 / 4096
"""First share of a measure's range that counts as no difference, once the archive was full."""
SAME = 1e-9
"""Relative difference of two values that counts as none."""


class Archive(NamedTuple):
    """N places for plans of O operations; the first `count` are taken. Written to."""

    places: Indices  # (k,) which of the measures are compared
    values: Floats  # (N, 7) as in `seam.MEASURES`
    machine: Indices  # (N, O)
    start: Ints  # (N, O)
    off: Bools  # (N, O)
    born: Ints  # (N,) number of the arrival, from 1 on, so that new ones can be told
    taken: Ints  # (2,) plans kept, arrivals so far
    grain: Floats  # (1,) share of a range that counts as no difference


def archive_of(shop: Shop, places: Sequence[int], room: int) -> Archive:
    """An empty archive. `room` is at least 8, so that the best of each measure find a place."""
    if room < 8:
        raise ValueError("archive_of: room for at least 8 plans")
    operations = len(shop.op_job)
    return Archive(
        np.array(places, np.int32),
        np.zeros((room, len(MEASURES))),
        np.zeros((room, operations), np.int32),
        np.zeros((room, operations), np.int64),
        np.zeros((room, operations), np.bool_),
        np.zeros(room, np.int64),
        np.zeros(2, np.int64),
        np.zeros(1),
    )


@compiled
def archived(archive: Archive, values: Floats, machine: Indices, start: Ints, off: Bools) -> int:
    """Keep a plan unless another is as good in every measure; those it beats go. Its place, -1: refused."""
    count = archive.taken[0]
    low, width = _range(archive, count)
    for i in range(count):
        if _beats(archive, archive.values[i], values, width) and not _first_in_one(archive, values, low):
            return -1
    i = 0
    while i < count:
        if _beats(archive, values, archive.values[i], np.zeros(len(width))):
            count -= 1
            _copy(archive, count, i)
        else:
            i += 1
    archive.taken[0] = count
    if count == len(archive.values):
        _coarser(archive)
        count = archive.taken[0]
    archive.values[count] = values
    archive.machine[count] = machine
    archive.start[count] = start
    archive.off[count] = off
    archive.taken[0] = count + 1
    archive.taken[1] += 1
    archive.born[count] = archive.taken[1]
    return int(count)


@compiled
def _beats(archive: Archive, one: Floats, other: Floats, slack: Floats) -> bool:
    """Whether `one` is as good as `other` in every measure, `slack` being no difference."""
    for k in range(len(archive.places)):
        p = archive.places[k]
        if one[p] > other[p] + slack[k] * archive.grain[0] + SAME * max(1.0, abs(other[p])):
            return False
    return True


@compiled
def _first_in_one(archive: Archive, values: Floats, low: Floats) -> bool:
    """Whether it is better in some measure than all that are kept."""
    for k in range(len(archive.places)):
        value = values[archive.places[k]]
        if value < low[k] - SAME * max(1.0, abs(low[k])):
            return True
    return False


@compiled
def _range(archive: Archive, count: int) -> tuple[Floats, Floats]:
    """(ideal, nadir - ideal) of what is kept."""
    measures = len(archive.places)
    low, width = np.zeros(measures), np.zeros(measures)
    if archive.grain[0] == 0.0 and count == 0:
        return low, width
    for k in range(measures):
        p = archive.places[k]
        least = most = archive.values[0, p] if count else 0.0
        for i in range(1, count):
            least, most = min(least, archive.values[i, p]), max(most, archive.values[i, p])
        low[k], width[k] = least, most - least
    return low, width


@compiled
def _coarser(archive: Archive) -> None:
    """Drop plans near others until a quarter of the places is free."""
    room = len(archive.values)
    low, width = _range(archive, room)
    while archive.taken[0] > room - room // 4:
        archive.grain[0] = max(GRAIN, 2 * archive.grain[0])
        i = 0
        while i < archive.taken[0]:
            near = False
            for j in range(archive.taken[0]):
                if j != i and _beats(archive, archive.values[j], archive.values[i], width):
                    near = True
                    break
            if near and not _best_in_one(archive, i, low):
                archive.taken[0] -= 1
                _copy(archive, archive.taken[0], i)
            else:
                i += 1
        if archive.grain[0] > 1.0:  # all are best in something: places are too few for that, the last go
            archive.taken[0] = room - room // 4


@compiled
def _best_in_one(archive: Archive, i: int, low: Floats) -> bool:
    first = False
    for k in range(len(archive.places)):
        first |= bool(archive.values[i, archive.places[k]] <= low[k])
    return first


@compiled
def _copy(archive: Archive, source: int, target: int) -> None:
    if source != target:
        archive.values[target] = archive.values[source]
        archive.machine[target] = archive.machine[source]
        archive.start[target] = archive.start[source]
        archive.off[target] = archive.off[source]
        archive.born[target] = archive.born[source]

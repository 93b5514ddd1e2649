"""The cells of many series, one series behind the other in flat arrays: what every stage of cleaning works on.

Dimensions: G groups (see `edge.arrangement`), S *segments* (a series in this block; each series at most once), N cells
in all, T samples of all groups. `bounds` (S + 1,) part the cells into segments (*ragged*). A block of 16 384 cells
stays in the cache and costs some 200 numpy calls however many series are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from edge.arrangement import Group
from messages.quality import BAD, GOOD, GRADE_MASK, UNCERTAIN, Why

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.int32]

NO_CELLS: Ints = np.empty(0, np.int64)

# Plain integers: arithmetic with IntFlag members costs a microsecond each.
MISSING, RANGE, SPIKE, RATE = int(Why.MISSING), int(Why.RANGE), int(Why.SPIKE), int(Why.RATE)
STUCK, INCONSISTENT, UNIT, TIME = int(Why.STUCK), int(Why.INCONSISTENT), int(Why.UNIT), int(Why.TIME)
LATE = int(Why.LATE)
_DOUBT = MISSING | SPIKE | RATE | STUCK | INCONSISTENT | TIME


@dataclass
class Block:
    """Cells under judgement. Stages flag them in `quality`, and replace `value` and `time` where a rule says so."""

    groups: list[Group]
    group_first: Ints  # (G,) first segment of a group
    sampled: Ints  # (T,) times as the devices stated them, µs
    group_bounds: Ints  # (G + 1,) in `sampled`
    rough: Bools  # (G,) times had to be looked at closely

    group: Ints  # (S,) the group of a segment
    series: Ints  # (S,) its number in catalogue and memory
    bounds: Ints  # (S + 1,) in the cells

    segment: Ints  # (N,)
    time: Ints  # (N,) µs
    value: Floats  # (N,) NaN: missing
    quality: Flags  # (N,) reasons on top of GOOD, until `grade`

    replaced: Ints  # (R,) cells whose value is an estimate
    raw: Floats  # (R,) what the sensor said there, NaN: nothing

    @property
    def lengths(self) -> Ints:
        """(S,) cells of each segment."""
        return self.bounds[1:] - self.bounds[:-1]

    def flag(self, cells: Ints, why: int) -> None:
        """Note a reason for each of `cells`."""
        if len(cells):
            self.quality[cells] |= why

    def keep(self, alive: Bools) -> None:
        """Drop all other cells."""
        number = alive.cumsum() - 1
        self.replaced = number[self.replaced]
        self.value, self.time = self.value[alive], self.time[alive]
        self.quality, self.segment = self.quality[alive], self.segment[alive]
        self.bounds = bounds_of(np.bincount(self.segment, minlength=len(self.series)))

    def grade(self) -> None:
        """Turn the reasons noted so far into grades: bad, uncertain, or still good."""
        flagged = (self.quality != GOOD).nonzero()[0]
        why = self.quality[flagged] & ~GRADE_MASK
        graded = np.where(why & RANGE, BAD, np.where(why & _DOUBT, UNCERTAIN, GOOD))
        self.quality[flagged] = why | graded


@dataclass(frozen=True)
class Trace:
    """Those cells of a block that may be relied on so far, close together; V of them, ascending."""

    cell: Ints  # (V,) place in the block
    value: Floats  # (V,)
    segment: Ints  # (V,)
    bounds: Ints  # (S + 1,) in these cells

    @classmethod
    def of(cls, block: Block, trusted: Bools) -> Trace:
        """The cells that are `trusted` (N,)."""
        cell = trusted.nonzero()[0]
        if len(cell) == len(trusted):
            return cls(cell, block.value, block.segment, block.bounds)
        return cls(cell, block.value[cell], block.segment[cell], cell.searchsorted(block.bounds))

    @cached_property
    def full(self) -> Ints:
        """The segments that have cells here."""
        return (self.bounds[1:] > self.bounds[:-1]).nonzero()[0]


def gather(groups: list[Group]) -> Block:
    """The cells of `groups` as they were sent."""
    offsets, values = list[int](), list[float | None]()
    for group in groups:
        for burst in group.bursts:
            offsets.extend(burst.at)
        for metric in group.layout.metrics:
            for burst in group.bursts:
                values.extend(burst.columns[metric])
    starts = [burst.t0 for group in groups for burst in group.bursts]
    samples = [len(burst.at) for group in groups for burst in group.bursts]
    sampled = np.fromiter(offsets, np.int64, len(offsets)) + np.array(starts, np.int64).repeat(samples)
    value = np.array(values, np.float64)
    counts, widths = tuple(group.count for group in groups), tuple(len(group.layout.metrics) for group in groups)
    shape = (_kept_shape if len(value) <= KEPT_CELLS else _shape)(counts, widths)
    return Block(
        groups=groups,
        group_first=shape.group_first,
        sampled=sampled,
        group_bounds=shape.group_bounds,
        rough=np.zeros(len(groups), np.bool_),
        group=shape.group,
        series=np.concatenate([group.layout.series for group in groups]),
        bounds=shape.bounds,
        segment=shape.segment,
        time=sampled[shape.sample],
        value=value,
        quality=np.full(len(value), GOOD, np.int32),
        replaced=NO_CELLS,
        raw=np.empty(0),
    )


@dataclass(frozen=True)
class _Shape:
    """What follows from the sizes of the groups alone; shared between blocks, so never written to."""

    group_first: Ints
    group_bounds: Ints
    group: Ints
    bounds: Ints
    segment: Ints
    sample: Ints  # (N,) place in `sampled`


KEPT_SHAPES, KEPT_CELLS = 16, 32_768
"""Devices repeat themselves: so many shapes of blocks are kept, of so many cells at most (8 MB in all)."""


def _shape(counts: tuple[int, ...], widths: tuple[int, ...]) -> _Shape:
    """The shape of groups of `counts` samples and `widths` columns."""
    group_bounds = bounds_of(np.array(counts, np.int64))
    group_first = bounds_of(np.array(widths, np.int64))
    group = np.arange(len(counts)).repeat(widths)
    lengths = np.array(counts, np.int64)[group]
    bounds = bounds_of(lengths)
    segment = np.arange(len(group)).repeat(lengths)
    sample = np.arange(len(segment)) + (group_bounds[group] - bounds[:-1]).repeat(lengths)
    return _Shape(group_first[:-1], group_bounds, group, bounds, segment, sample)


_kept_shape = lru_cache(maxsize=KEPT_SHAPES)(_shape)


def convert_units(block: Block) -> None:
    """Bring columns that were sent in another unit to the plant file's."""
    for g, group in enumerate(block.groups):
        for column, factor, offset in group.layout.converted:
            segment = int(block.group_first[g]) + column
            cells = slice(int(block.bounds[segment]), int(block.bounds[segment + 1]))
            block.value[cells] = block.value[cells] * factor + offset
            block.quality[cells] |= UNIT


def bounds_of(lengths: Ints) -> Ints:
    """Where ragged parts of these lengths begin and end: (S + 1,)."""
    bounds = np.zeros(len(lengths) + 1, np.int64)
    lengths.cumsum(out=bounds[1:])
    return bounds

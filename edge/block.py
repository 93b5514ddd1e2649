"""The cells of many series, one series behind the other in flat arrays: what every stage of cleaning works on.

Dimensions: G groups (see `edge.arrangement`), S *segments* (a series in this block; each series at most once), N cells
in all, T samples of all groups. `bounds` (S + 1,) part the cells into segments (*ragged*). A block of 16 384 cells
stays in the cache and costs some 200 numpy calls however many series are in it.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def gather(groups: list[Group]) -> Block:
    """The cells of `groups` as they were sent."""
    offsets, values, series = list[int](), list[float | None](), list[int]()
    for group in groups:
        series.extend(group.layout.series)
        for burst in group.bursts:
            offsets.extend(burst.at)
        for metric in group.layout.metrics:
            for burst in group.bursts:
                values.extend(burst.columns[metric])
    bursts = [burst for group in groups for burst in group.bursts]
    t0 = np.array([b.t0 for b in bursts], np.int64).repeat([len(b.at) for b in bursts])
    sampled = np.fromiter(offsets, np.int64, len(offsets)) + t0
    value = np.array(values, np.float64)
    counts = np.array([group.count for group in groups], np.int64)
    widths = np.array([len(group.layout.series) for group in groups], np.int64)
    group_bounds = bounds_of(counts)
    group_of = np.arange(len(groups)).repeat(widths)
    lengths = counts[group_of]
    bounds = bounds_of(lengths)
    return Block(
        groups=groups,
        group_first=bounds_of(widths)[:-1],
        sampled=sampled,
        group_bounds=group_bounds,
        rough=np.zeros(len(groups), np.bool_),
        group=group_of,
        series=np.array(series, np.int64),
        bounds=bounds,
        segment=np.arange(len(series)).repeat(lengths),
        time=sampled[np.arange(len(value)) + (group_bounds[group_of] - bounds[:-1]).repeat(lengths)],
        value=value,
        quality=np.full(len(value), GOOD, np.int32),
        replaced=NO_CELLS,
        raw=np.empty(0),
    )


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

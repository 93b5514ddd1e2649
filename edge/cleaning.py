"""Raw bursts become rows that can be trusted, or are counted with the reason why not.

    cleaner = Cleaner(plant.devices("firing"), state)            # state: an earlier snapshot, or None
    cleaned = cleaner.clean([("kiln-1", burst), …], now)         # now: arrival, µs
    cleaned.tables, cleaned.rejected, cleaner.snapshot()         # cleaned.series: the same rows as messages

Promise: every reading (cell) comes out exactly once, as a row or counted in a Rejected. Values are finite; the times of
a series ascend and are unique, also against everything written before. Nothing is held back: a call judges with what
it has and with what it remembers. From the same state, the same bursts give the same rows. The rules are in the guide
`docs/guides/cleaning.md`; this is their order, with the files of each:

    arrange      arrangement, block     many bursts, flat arrays, all series at once
    units        units, block           to the plant file's
    times        times, ordering        unique and ascending, or refused
    range        rules                  what a sensor can measure
    outliers     outliers, hampel, spread    lone values, counters' glitches (rules)
    stuck, rate  rules                  no movement; more than the process can
    estimate     estimates              what stands in for the missing and the wrong, or is refused
    consistency  consistency            main meters against their parts
    tables       table                  rows in columns, or as messages

Beside them: `catalogue` (limits from the plant file), `memory` (what outlives a call), `refusals` (what is refused).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge.arrangement import Arrangement, Group
from edge.block import INCONSISTENT, RATE, SPIKE, STUCK, Block, Trace, convert_units, gather
from edge.catalogue import Catalogue
from edge.consistency import MainMeters
from edge.estimates import fill
from edge.memory import Memory
from edge.outliers import outliers
from edge.refusals import Refusals
from edge.rules import decreases, possible, too_fast, unmoved
from edge.table import Table, table_of
from edge.times import flag_clocks_behind, follow_sequence, settle_times
from messages.contracts import Burst, Rejected, Series
from messages.plant import Device


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What became of a call's readings."""

    tables: list[Table]
    rejected: list[Rejected]

    @property
    def rows(self) -> int:
        """Readings that became rows."""
        return sum(len(table.time) for table in self.tables)

    @cached_property
    def series(self) -> list[Series]:
        """The rows as messages, made when first asked for."""
        return [one for table in self.tables for one in table.messages()]


class Cleaner:
    """Cleans the bursts of one node's devices; `state` is an earlier `snapshot`, of this or of another plant file."""

    def __init__(self, devices: Sequence[Device], state: bytes | None = None) -> None:
        devices = tuple(devices)
        self._catalogue = Catalogue(devices)
        self._arrangement = Arrangement(self._catalogue)
        self._main_meters = MainMeters(devices, self._catalogue)
        self._memory = Memory(devices)
        if state is not None:
            self._memory.restore(state)

    def clean(self, bursts: Sequence[tuple[str, Burst]], now: int) -> Cleaned:
        """Rows and refusals of `bursts`, in their order of arrival; `now` is when they arrived, µs."""
        refusals = Refusals(self._catalogue.names)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            arranged = self._arrangement.blocks(bursts, refusals)
            blocks = [self._clean_block(groups, now, refusals) for groups in arranged]
            self._main_meters.check(blocks)
        tables = [table_of(block, self._catalogue) for block in blocks if len(block.time)]
        return Cleaned(tables, refusals.records(now))

    def snapshot(self) -> bytes:
        """All that is remembered: 360 bytes per series, about 60 per device, and their names."""
        return self._memory.snapshot()

    def _clean_block(self, groups: list[Group], now: int, refusals: Refusals) -> Block:
        """The rows of `groups`, flagged and graded; what cannot become a row is refused."""
        memory, catalogue = self._memory, self._catalogue
        block = gather(groups)
        convert_units(block)

        follow_sequence(groups, memory, catalogue)
        flag_clocks_behind(block, memory, now)
        settle_times(block, memory, now, refusals)
        prior = memory.last_good(block.series)

        source = possible(block, catalogue)  # values that estimates may be drawn from

        trace = Trace.of(block, source)
        wrong, suspects = outliers(block, trace, catalogue, memory)
        glitches, drops = decreases(block, trace, catalogue, prior)
        block.flag(drops, INCONSISTENT)
        lone = np.concatenate((wrong, suspects, glitches))
        if len(lone):
            block.flag(lone, SPIKE)
            source[lone] = False
            trace = Trace.of(block, source)

        # A stuck value stays in its row, but the value it comes back to is not measured against it.
        stuck = unmoved(block, trace, catalogue, memory)
        block.flag(stuck, STUCK)
        # A suspect may be the beginning of a step, and keeps its value, unless its process has a rate and cannot step.
        tried = suspects[catalogue.limited[block.series[block.segment[suspects]]]]
        trusted = source
        if len(stuck) or len(tried):
            trusted = source.copy()
            trusted[stuck], trusted[tried] = False, True
            trace = Trace.of(block, trusted)

        fast = too_fast(block, trace, catalogue, prior, memory)
        block.flag(fast, RATE)
        source[fast] = trusted[fast] = trusted[tried] = False

        # Before estimates are filled in: the memory keeps what sensors said, also where it does not become a row.
        memory.remember_rows(block)
        memory.remember_good(block, trusted.nonzero()[0])

        holes = ~source
        holes[suspects[block.quality[suspects] & RATE == 0]] = False
        fill(block, holes.nonzero()[0], source.nonzero()[0], catalogue, prior, refusals)
        block.grade()
        return block

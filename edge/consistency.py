"""Sub-meters against the main meter: a main meter shows the sum of its parts and a rest within known bounds.

Judged on rows of equal times, where the main meter and every part have a row in this call that counts as good; a row
that lies outside by more than the noise explains makes the main meter's row uncertain. Which of the meters is wrong
cannot be told from one sum, so none is corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.block import Block
from edge.catalogue import Catalogue
from messages.plant import Device, MetricSpec
from messages.quality import GOOD, GRADE_MASK, UNCERTAIN, Why

SIGMAS = 5.0
"""A sum may be off by this many standard deviations of its noise."""


@dataclass(frozen=True)
class Rows:
    """Cleaned rows of one series; `quality` is a view that flags are written into."""

    time: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    quality: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Balance:
    """One main meter: its series, those of its parts, and the bounds of the rest."""

    main: int
    parts: tuple[int, ...]
    rest_low: float
    rest_high: float
    slack: float


class MainMeters:
    """The main meters among `devices` all of whose parts are there too; a part elsewhere cannot be checked here."""

    def __init__(self, devices: Sequence[Device], catalogue: Catalogue) -> None:
        self._balances = _balances(devices, catalogue)
        self._balanced = {series for one in self._balances for series in (one.main, *one.parts)}

    def check(self, blocks: Sequence[Block]) -> None:
        """Flag the rows of main meters that disagree with their parts, over all blocks of a call."""
        if not self._balances:
            return
        found: dict[int, list[Rows]] = {}
        for block in blocks:
            for i, series in enumerate(block.series.tolist()):
                low, high = int(block.bounds[i]), int(block.bounds[i + 1])
                if series in self._balanced and high > low:
                    rows = Rows(block.time[low:high], block.value[low:high], block.quality[low:high])
                    found.setdefault(series, []).append(rows)
        whole = {series: rows[0] if len(rows) == 1 else _joined(rows) for series, rows in found.items()}
        for balance in self._balances:
            # Joined rows are copies: flags go into the main meter's own rows, block by block.
            for rows in found.get(balance.main, ()):
                flag_imbalance(balance, {**whole, balance.main: rows})


def flag_imbalance(balance: Balance, rows: dict[int, Rows]) -> int:
    """Flag the main meter's rows that disagree with its parts; how many were judged."""
    if any(series not in rows for series in (balance.main, *balance.parts)):
        return 0
    main = rows[balance.main]
    at = np.flatnonzero(main.quality & GRADE_MASK == GOOD)
    total = np.zeros(len(at))
    for series in balance.parts:
        part = rows[series]
        if not len(at):
            return 0
        place = np.minimum(np.searchsorted(part.time, main.time[at]), len(part.time) - 1)
        usable = (part.time[place] == main.time[at]) & (part.quality[place] & GRADE_MASK == GOOD)
        at, total = at[usable], total[usable] + part.value[place[usable]]
    rest = main.value[at] - total
    off = at[(rest < balance.rest_low - balance.slack) | (rest > balance.rest_high + balance.slack)]
    main.quality[off] = (main.quality[off] & ~GRADE_MASK) | UNCERTAIN | Why.INCONSISTENT
    return len(at)


def _balances(devices: Sequence[Device], catalogue: Catalogue) -> list[Balance]:
    found = []
    specs = {(device.device, metric): spec for device in devices for metric, spec in device.metrics.items()}
    for (device, metric), spec in specs.items():
        parts = [catalogue.number(*part) for part in spec.sum_of]
        main = catalogue.number(device, metric)
        if not parts or main is None or any(part is None for part in parts):
            continue
        slack = SIGMAS * _noise([spec, *(specs[part] for part in spec.sum_of)])
        found.append(Balance(main, tuple(p for p in parts if p is not None), spec.rest_low, spec.rest_high, slack))
    return found


def _noise(specs: list[MetricSpec]) -> float:
    return float(np.sqrt(sum(spec.noise**2 for spec in specs)))


def _joined(rows: list[Rows]) -> Rows:
    time = np.concatenate([one.time for one in rows])
    order = np.argsort(time, kind="stable")
    value = np.concatenate([one.value for one in rows])[order]
    return Rows(time[order], value, np.concatenate([one.quality for one in rows])[order])

"""Bursts as they come, arranged so that many can be cleaned at once.

    for groups in Arrangement(catalogue).blocks(bursts, refusals): …

A *group* is bursts in a row of one device with the same boot, columns and units. A *block* is groups of about `BLOCK`
cells in all, with each device at most once, so that every series is in it once. What the plant file does not know, or
states in a unit that cannot be converted, is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.catalogue import Catalogue
from edge.refusals import Refusals
from edge.units import conversion
from messages.contracts import MAX_SAMPLES, Burst

BLOCK = 16_384
"""Cells worked on at once; one larger burst is a block of its own."""
MAX_LAYOUTS = 4_096
"""Layouts kept; devices send few, so beyond that all are forgotten and made again."""


@dataclass(frozen=True)
class Layout:
    """What a device's columns mean."""

    series: npt.NDArray[np.int64]
    """numbers of the columns that are known"""
    metrics: list[str]
    """their names in the burst"""
    converted: list[tuple[int, float, float]]
    """(place in `series`, factor, offset) of those in another unit than the plant file's"""
    refused: list[tuple[str, str, str | None]]
    """(metric, reason, sample) of the other columns"""
    units: dict[str, str]


@dataclass
class Group:
    """Bursts in a row of one device and boot, with the same columns and units; `count` samples in all."""

    device: int
    boot: str
    layout: Layout
    bursts: list[Burst]
    count: int


class Arrangement:
    """Arranges the bursts of the devices in `catalogue`."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self._latest: dict[int, tuple[list[str], Layout]] = {}

    def blocks(self, bursts: Sequence[tuple[str, Burst]], refusals: Refusals) -> Iterator[list[Group]]:
        """`bursts` of devices by name, in their order; each device's bursts stay in theirs."""
        block: dict[int, Group] = {}
        cells = 0
        for name, burst in bursts:
            device = self._catalogue.device.get(name)
            if device is None:
                refusals.add(name, None, "unknown_device", burst.readings)
                continue
            count = len(burst.at)
            layout = self._layout(device, burst)
            for metric, reason, sample in layout.refused:
                refusals.add(name, metric, reason, count, sample)
            if not count or not layout.metrics:
                continue
            group = block.get(device)
            alike = group is not None and group.layout is layout and group.boot == burst.boot
            if group is not None and alike and cells < BLOCK and group.count + count <= MAX_SAMPLES:
                group.bursts.append(burst)
                group.count += count
            else:
                if block and (group is not None or cells >= BLOCK):
                    yield list(block.values())
                    block, cells = {}, 0
                block[device] = Group(device, burst.boot, layout, [burst], count)
            cells += count * len(layout.metrics)
        if block:
            yield list(block.values())

    def _layout(self, device: int, burst: Burst) -> Layout:
        columns, latest = list(burst.columns), self._latest.get(device)
        if latest is not None and latest[0] == columns and latest[1].units == burst.units:
            return latest[1]
        key = (device, *columns, *burst.units.items())
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = _layout(self._catalogue, device, burst)
        self._latest[device] = columns, layout
        return layout


def _layout(catalogue: Catalogue, device: int, burst: Burst) -> Layout:
    known = list[int]()
    metrics, converted, refused = list[str](), list[tuple[int, float, float]](), list[tuple[str, str, str | None]]()
    for metric in burst.columns:
        series, unit = catalogue.series_of[device].get(metric), burst.units[metric]
        if series is None:
            refused.append((metric, "unknown_metric", None))
            continue
        wanted = catalogue.unit[series]
        change = conversion(unit, wanted)
        if change is None:
            refused.append((metric, "unit", f"{unit} instead of {wanted}"))
            continue
        if unit != wanted:
            converted.append((len(known), *change))
        known.append(series)
        metrics.append(metric)
    return Layout(np.array(known, np.int64), metrics, converted, refused, dict(burst.units))

"""Cleaned rows in columns: many series, one behind the other, as arrays; as messages only for who asks for them.

    for i in range(table.count):
        device, metric, unit = table.names[i]
        rows = slice(table.bounds[i], table.bounds[i + 1])
        table.time[rows], table.value[rows], table.quality[rows]        # µs, the plant file's unit, messages.quality

Making messages costs more than cleaning does: a hundred Python floats, a dict and what the garbage collector makes of
them. Who needs few columns, or writes bytes, takes the arrays. They are not validated again, as they hold by
construction, and not to be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge.block import Block, Flags, Floats, Ints
from edge.catalogue import Catalogue
from messages.contracts import Series

Raws = dict[int, float | None]


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of `count` series (each at most once, each with rows); N rows, R of them replaced."""

    names: list[tuple[str, str, str]]
    """device, metric and unit of each series"""
    alike: list[bool]
    """whether the times of a series are those of the one before it"""
    bounds: list[int]
    """(count + 1,) where the rows of each series begin"""
    time: Ints
    """(N,) µs since 1970 UTC, ascending and unique in a series"""
    value: Floats
    """(N,) finite"""
    quality: Flags
    """(N,) see messages.quality"""
    replaced: Ints
    """(R,) ascending: rows whose value is an estimate"""
    raw: Floats
    """(R,) what the sensor said there, in the plant file's unit; NaN: nothing"""

    @property
    def count(self) -> int:
        """Series in the table."""
        return len(self.names)

    @cached_property
    def uniform(self) -> list[int | None]:
        """The quality all rows of a series share, None when they differ."""
        if not self.names:
            return []
        least = np.minimum.reduceat(self.quality, self.bounds[:-1]).tolist()
        most = np.maximum.reduceat(self.quality, self.bounds[:-1]).tolist()
        return [low if low == high else None for low, high in zip(least, most, strict=True)]

    @cached_property
    def raws(self) -> dict[int, Raws]:
        """Series (its place) → row in it → what the sensor said, where the value is an estimate."""
        found: dict[int, Raws] = {}
        owners = np.searchsorted(self.bounds, self.replaced, "right") - 1
        for i, row, raw in zip(owners.tolist(), self.replaced.tolist(), self.raw.tolist(), strict=True):
            found.setdefault(i, {})[row - self.bounds[i]] = None if raw != raw else raw
        return found

    def messages(self) -> Iterator[Series]:
        """One message per series."""
        uniform, raws, bounds = self.uniform, self.raws, self.bounds
        t0, at = 0, list[int]()
        for i, (device, metric, unit) in enumerate(self.names):
            rows = slice(bounds[i], bounds[i + 1])
            if not self.alike[i]:
                t0 = int(self.time[rows.start])
                at = (self.time[rows] - t0).tolist()
            quality = uniform[i]
            yield _constructed(
                {
                    "device": device,
                    "metric": metric,
                    "unit": unit,
                    "t0": t0,
                    "at": at,
                    "value": self.value[rows].tolist(),
                    "quality": self.quality[rows].tolist() if quality is None else quality,
                    "raw": raws.get(i, {}),
                }
            )


def table_of(block: Block, catalogue: Catalogue) -> Table:
    """The rows of a cleaned block. Shares its arrays."""
    lengths = block.lengths
    full = lengths.nonzero()[0]
    # Where nothing was moved or refused all metrics of a device keep the times it stated.
    group = block.group[full]
    tidy = ~block.rough[group] & (lengths[full] == (block.group_bounds[1:] - block.group_bounds[:-1])[group])
    alike = np.zeros(len(full), np.bool_)
    alike[1:] = (group[1:] == group[:-1]) & tidy[1:] & tidy[:-1]
    return Table(
        names=[catalogue.full_names[series] for series in block.series[full].tolist()],
        alike=alike.tolist(),
        bounds=[*block.bounds[full].tolist(), len(block.value)],
        time=block.time,
        value=block.value,
        quality=block.quality,
        replaced=block.replaced,
        raw=block.raw,
    )


def _constructed(fields: dict[str, object]) -> Series:
    """What `Series.model_construct(**fields)` gives, at a fifth of its time: one dict, known to be complete."""
    series = _new(Series)
    _set(series, "__dict__", fields)
    _set(series, "__pydantic_fields_set__", _FIELDS)
    _set(series, "__pydantic_extra__", None)
    _set(series, "__pydantic_private__", None)
    return series


_new, _set = object.__new__, object.__setattr__
_FIELDS = set(Series.model_fields)

"""The rows of a cleaned block as messages. They hold by construction, so they are not validated again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge.block import Block
from edge.catalogue import Catalogue
from messages.contracts import Series


def series_of(block: Block, catalogue: Catalogue) -> Iterator[Series]:
    """One message per series that has rows."""
    lengths = block.lengths
    full = lengths.nonzero()[0]
    if not len(full):
        return
    starts = block.bounds[full]
    least, most = np.minimum.reduceat(block.quality, starts), np.maximum.reduceat(block.quality, starts)
    alike, same = (least == most).tolist(), least.tolist()
    values, raws = block.value.tolist(), _raws(block)
    ends = (starts + lengths[full]).tolist()
    series, group_of, rough = block.series[full].tolist(), block.group[full].tolist(), block.rough.tolist()
    for i, (segment, low, high) in enumerate(zip(full.tolist(), starts.tolist(), ends, strict=True)):
        group = block.groups[group_of[i]]
        burst = group.bursts[0]
        if len(group.bursts) == 1 and high - low == group.count and not rough[group_of[i]]:
            t0, at = burst.t0, burst.at
        else:
            t0 = int(block.time[low])
            at = (block.time[low:high] - t0).tolist()
        device, metric = catalogue.names[series[i]]
        yield _constructed(
            {
                "device": device,
                "metric": metric,
                "unit": catalogue.unit[series[i]],
                "t0": t0,
                "at": at,
                "value": values[low:high],
                "quality": same[i] if alike[i] else block.quality[low:high].tolist(),
                "raw": raws.get(segment, {}),
            }
        )


def _raws(block: Block) -> dict[int, dict[int, float | None]]:
    """Segment → place in it → what the sensor said where the value is an estimate."""
    raws: dict[int, dict[int, float | None]] = {}
    segments = block.segment[block.replaced].tolist()
    for segment, place, raw in zip(segments, block.replaced.tolist(), block.raw.tolist(), strict=True):
        raws.setdefault(segment, {})[place - int(block.bounds[segment])] = None if raw != raw else raw
    return raws


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

"""Sorting in compiled kernels: a stable merge sort that allocates nothing, and random keys to an order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.scheduling.arrays import fill, paste_part
from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import Floats, Indices

RUN = 12
"""So many are sorted by insertion before runs are merged."""
CROWD = 24
"""Keys so crowded in one of n equal ranges are not random: they are merged, not shared out."""


@compiled
def sort_by(keys: npt.NDArray[Any], items: Indices, low: int, high: int, spare: Indices) -> None:
    """Sort `items[low:high]` by `keys[item]`; equal keys stay in order. `spare` is as long as `items`."""
    begin = low
    while begin < high:
        end = min(begin + RUN, high)
        for i in range(begin + 1, end):
            item = items[i]
            key = keys[item]
            k = i - 1
            while k >= begin and keys[items[k]] > key:
                items[k + 1] = items[k]
                k -= 1
            items[k + 1] = item
        begin = end
    width = RUN
    while width < high - low:
        begin = low
        while begin + width < high:
            middle = begin + width
            end = min(middle + width, high)
            if keys[items[middle - 1]] > keys[items[middle]]:
                paste_part(items, spare, begin, middle)
                left, right, k = begin, middle, begin
                while left < middle:
                    if right < end and keys[items[right]] < keys[spare[left]]:
                        items[k] = items[right]
                        right += 1
                    else:
                        items[k] = spare[left]
                        left += 1
                    k += 1
            begin = end
        width *= 2


@compiled
def key_order(keys: Floats, job_first: Indices, order_out: Indices) -> None:
    """Ranked order value: the operation with the least key names the first job, and so on; ties by place.

    keys  (O,)  one finite number per operation
    """
    operations = len(keys)
    places, spare = np.empty(operations, np.int32), np.empty(operations, np.int32)
    if not _share_out(keys, places, spare):
        for o in range(operations):
            places[o] = o
        sort_by(keys, places, 0, operations, spare)
    for j in range(len(job_first) - 1):
        for i in range(job_first[j], job_first[j + 1]):
            spare[i] = j
    for k in range(operations):
        order_out[k] = spare[places[k]]


@compiled
def _share_out(keys: Floats, places: Indices, spare: Indices) -> bool:
    """Sort places by key: into as many equal ranges as there are keys, then by insertion. False: too crowded."""
    operations = len(keys)
    if operations < 2:
        fill(places, 0)
        return True
    low, high = keys[0], keys[0]
    for key in keys:
        low, high = min(low, key), max(high, key)
    if not 0.0 < high - low < np.inf:
        return False
    scale = (operations - 1) / (high - low)
    until = np.zeros(operations, np.int32)
    for o in range(operations):
        spare[o] = int((keys[o] - low) * scale)
        until[spare[o]] += 1
    count = 0
    for i in range(operations):
        if until[i] > CROWD:
            return False
        count += until[i]
        until[i] = count
    for o in range(operations - 1, -1, -1):
        until[spare[o]] -= 1
        places[until[spare[o]]] = o
    for i in range(1, operations):
        o = places[i]
        key = keys[o]
        k = i - 1
        while k >= 0 and keys[places[k]] > key:
            places[k + 1] = places[k]
            k -= 1
        places[k + 1] = o
    return True

"""A stable merge sort that allocates nothing, for compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cloud.scheduling.compiled import compiled
from cloud.scheduling.shop import Indices

RUN = 12
"""So many are sorted by insertion before runs are merged."""


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
                spare[begin:middle] = items[begin:middle]
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

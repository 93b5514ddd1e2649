"""Arrays copied and filled, compiled once: Numba writes `target[:] = source` out anew wherever it stands."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cloud.scheduling.compiled import compiled


@compiled
def paste(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """`target[:] = source`, of arrays that share nothing and are equally long."""
    for i in range(len(target)):
        target[i] = source[i]


@compiled
def paste_part(source: npt.NDArray[Any], target: npt.NDArray[Any], low: int, high: int) -> None:
    """`target[low:high] = source[low:high]`, of arrays that share nothing and are no shorter than `high`."""
    for i in range(low, high):
        target[i] = source[i]


@compiled
def fill(target: npt.NDArray[Any], value: Any) -> None:
    """`target[:] = value`."""
    for i in range(len(target)):
        target[i] = value

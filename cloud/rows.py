"""Deltas as they come, each in a row of one growing block, so that a close need not gather them.

rows = Rows(parameters=18_176)
delta = rows.put("press-4", delta)        # the row, a view; what the node sent before is overwritten
rows.of(["press-4", "press-5"])           # (K, P): the block itself, where these are all, in order
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.aggregation.seam import Stack, Vector

FIRST = 16
"""Rows there is room for; then for twice as many, and so on."""


class Rows:
    """One row per node, in the order in which they first came."""

    def __init__(self, parameters: int) -> None:
        self.parameters = parameters
        self._places: dict[str, int] = {}
        self._block = np.empty((0, parameters), np.float32)

    @property
    def names(self) -> list[str]:
        """Of the rows, in order."""
        return list(self._places)

    def put(self, node: str, delta: Vector) -> Vector:
        """Its row."""
        place = self._places.setdefault(node, len(self._places))
        if place >= len(self._block):
            wider = np.empty((max(FIRST, 2 * len(self._block)), self.parameters), np.float32)
            wider[: len(self._block)] = self._block
            self._block = wider
        self._block[place] = delta
        return np.asarray(self._block[place])

    def of(self, names: Sequence[str]) -> Stack:
        """The rows of these, (K, P)."""
        places = [self._places[name] for name in names]
        if places == list(range(len(places))):
            return self._block[: len(places)]
        return self._block[places]

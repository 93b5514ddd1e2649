"""When what is due: one time per key, the one said last. Saying and asking cost O(log n), whatever n is.

    calendar.put("T1", 12); calendar.put("T1", None)      # it is not due any more
    for key in calendar.pop(now): …                       # in order of time, then of key; each is out of it

Bound: a time that was replaced stays until it would have come, or until as many such stand in it as others.
"""

from __future__ import annotations

import heapq
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)


class Calendar(Generic[K]):
    """Keys that can be compared, and when each is due."""

    def __init__(self) -> None:
        self._at: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []

    def put(self, key: K, at: int | None) -> None:
        """From now on it is due then; None: never."""
        if at is None:
            self._at.pop(key, None)
        elif self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
            if len(self._heap) > 2 * len(self._at) + 64:
                self._heap = [(at, key) for key, at in self._at.items()]
                heapq.heapify(self._heap)

    def pop(self, now: int) -> list[K]:
        """What is due by now."""
        found: list[K] = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                found.append(key)
        return found

    def next(self) -> int | None:
        """When the first is due."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

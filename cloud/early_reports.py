"""What nodes say of a model before there is a version of it, or before their key is known: kept until there is both, as
a node may say it only once. Whose word it is, is looked at then.

    early = EarlyReports()
    early.keep("press-4", report, payload, now)
    for node, came in early.take("detector", keys): …       # the newest of each node, once
    early.unknown(keys, before)                             # nodes that wait for their key

Bounds: of a node its newest report on each of `MODELS` models, then the one that came first goes; `MOST` in all, then
what else comes is not kept (such a node is known when it reports again: at a change, or when it connects). None is
longer than `MOST_BYTES`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

from messages.learning import ModelReport

MODELS = 16
"""As many as run on a node."""
MOST = 10_000
MOST_BYTES = 16 * 1024


class Came(NamedTuple):
    """A report, its very bytes, and when it came."""

    report: ModelReport
    payload: bytes
    at: int


class EarlyReports:
    """Of one site."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Came]] = {}
        """node → model → the newest"""
        self._count = 0

    def keep(self, node: str, report: ModelReport, payload: bytes, now: int) -> None:
        """A report on a model that nobody knows, or of a node that nobody does."""
        mine = self._kept.get(node, {})
        if report.model not in mine and len(mine) == MODELS:
            self.drop(node, next(iter(mine)))
        if report.model not in mine:
            if self._count == MOST:
                return
            self._count += 1
        self._kept.setdefault(node, mine)[report.model] = Came(report, payload, now)

    def take(self, model: str, keys: Container[str]) -> list[tuple[str, Came]]:
        """Of nodes in `keys`; they are not kept any longer."""
        found = [(node, mine[model]) for node, mine in self._kept.items() if model in mine and node in keys]
        for node, _ in found:
            self.drop(node, model)
        return found

    def unknown(self, keys: Container[str], before: int) -> list[str]:
        """Nodes that are not in `keys`, and of whom something has been kept since then."""
        return [
            node
            for node, mine in self._kept.items()
            if node not in keys and any(one.at < before for one in mine.values())
        ]

    def forget(self, node: str) -> None:
        """A node that is no more."""
        self._count -= len(self._kept.pop(node, {}))

    def drop(self, node: str, model: str) -> None:
        """What it said of this model is not kept any longer."""
        if self._kept.get(node, {}).pop(model, None) is None:
            return
        self._count -= 1
        if not self._kept[node]:
            del self._kept[node]

"""What nodes say of a model before there is a version of it: kept until there is one, as a node may say it only once.

    early = EarlyReports()
    early.keep("press-4", report)
    for node, report in early.take("detector"): …       # the newest of each node, once

Bounds: of a node its newest report on each of `MODELS` models, then the one that came first goes; `MOST` in all, then
what else comes is not kept (such a node is known when it reports again: at a change, or when it connects).
"""

from __future__ import annotations

from messages.learning import ModelReport

MODELS = 16
"""As many as run on a node."""
MOST = 10_000


class EarlyReports:
    """Of one site."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, ModelReport]] = {}
        """node → model → the newest"""
        self._count = 0

    def keep(self, node: str, report: ModelReport) -> None:
        """A report on a model that nobody knows."""
        mine = self._kept.get(node, {})
        if report.model not in mine and len(mine) == MODELS:
            self._drop(node, next(iter(mine)))
        if report.model not in mine:
            if self._count == MOST:
                return
            self._count += 1
        self._kept.setdefault(node, mine)[report.model] = report

    def take(self, model: str) -> list[tuple[str, ModelReport]]:
        """Node and report; they are not kept any longer."""
        found = [(node, mine[model]) for node, mine in self._kept.items() if model in mine]
        for node, _ in found:
            self._drop(node, model)
        return found

    def forget(self, node: str) -> None:
        """A node that is no more."""
        self._count -= len(self._kept.pop(node, {}))

    def _drop(self, node: str, model: str) -> None:
        del self._kept[node][model]
        self._count -= 1
        if not self._kept[node]:
            del self._kept[node]

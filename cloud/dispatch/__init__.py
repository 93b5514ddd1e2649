"""Judges with compiled search behind the seam of `messages.dispatch.judge`; the union `AnyJudge` is the registry.

Mcts(seconds=0.08).decide(state, Weights(waiting=0.5), memory=memory).awards
warm()      # ahead of the first decision: compiles, or reads from the cache
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from cloud.dispatch.cleaner import worth_of
from cloud.dispatch.outlook import Outlook
from cloud.dispatch.search import by_rule, look_ahead
from messages.dispatch.cleaner import Worth
from messages.dispatch.decode import Choice, Weights
from messages.dispatch.judge import ByRule as PlainByRule
from messages.dispatch.judge import Mcts as PlainMcts
from messages.dispatch.outlook import Tried, Wide
from messages.dispatch.shop import Shop, Station, Step, Work
from messages.dispatch.state import State, begin
from messages.dispatch.tree import Found

__all__ = ["AnyJudge", "ByRule", "Mcts", "look_ahead", "warm"]


class ByRule(PlainByRule):
    """A rule of `messages.dispatch.rules`, compiled."""

    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """The same as the plain one."""
        return by_rule(state, self.kind, weights, seeds)


class Mcts(PlainMcts):
    """Monte Carlo tree search, compiled: some hundred thousand iterations per second."""

    def searched(
        self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int, seconds: float
    ) -> Found:
        """The same as the plain one, with the same seed and iterations."""
        return look_ahead(state, weights, self.iterations, seconds, seeds=seeds, seed=seed)

    def tried(self, wide: Wide) -> Tried:
        """The same as the plain one."""
        return Outlook(wide).come_to

    def worth(self, state: State, weights: Weights) -> Worth:
        """The same as the plain one."""
        return worth_of(state, weights)


AnyJudge = Annotated[ByRule | Mcts, Field(discriminator="kind")]


def warm() -> None:
    """Everything a decision needs, on a shop of one machine."""
    work = Work((Step({"m": 1}), Step({"m": 1})))
    shop = Shop({"m": Station()}, {"1": work, "2": work}, came=tuple(replace(work, release=-n) for n in range(3)))
    Mcts(iterations=1).decide(begin(shop), memory=[("1", "m")])
    ByRule(kind="fifo").decide(begin(shop))

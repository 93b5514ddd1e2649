"""The seam of judges: who is awarded what, now. Rules and tree search in plain Python; compiled in `cloud.dispatch`.

    decision = Mcts(iterations=100).decide(state, Weights(waiting=0.5), seed=1, memory=decision.memory)
    decision.awards, decision.again_at

A judge is a frozen settings model with one method. It looks at the whole of what is open, but awards only what must be
begun now (`messages.dispatch.commit`) and does not gain by waiting (`messages.dispatch.cleaner`); the rest is in
`memory`, for the next decision to begin with. Whoever hands the
memory on is never left with parts that block each other for good: where a rule would get there, the sequence of the
memory is followed instead, and one job after the other where there is none.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from messages.dispatch.cleaner import Later, Worth, cleaner, raised, varies, worth_of
from messages.dispatch.commit import committed
from messages.dispatch.decode import Choice, Schedule, Weights, decode, measures
from messages.dispatch.outlook import Tried, Wide, come_to, settled, widened
from messages.dispatch.rules import RULES, quickest, revised, run
from messages.dispatch.state import Bid, State
from messages.dispatch.tree import Found, look_ahead

SEARCHED = 0.5
"""Share of the time that goes to the tree where futures are to be looked at."""
LATER = 0.25
"""Share of the time in which it is asked what had better wait for a cleaner hour, where carbon counts and changes."""


@dataclass(frozen=True)
class Decision:
    """Awards in the order in which they are to be made, and what the judge means to do later."""

    awards: tuple[Bid, ...]
    again_at: int | None  # when to decide again, if nothing happens before; None: nothing is left to award
    memory: tuple[Choice, ...]
    state: State
    sequence: tuple[Choice, ...]
    value: float
    iterations: int = 0
    stuck: tuple[str, ...] = ()
    """jobs that can go on in no order at all: parts block each other, somebody must clear a machine"""

    @cached_property
    def schedule(self) -> Schedule:
        """All that the judge means to do, with its times."""
        return decode(self.state, self.sequence)


class Judge(BaseModel, ABC):
    """Adding one: a class with a `kind` and `plan`, and one word in the union."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """A sequence of all that is open, and what it is worth; `seeds` are others to do no worse than."""

    def decide(
        self,
        state: State,
        weights: Weights | None = None,
        *,
        seed: int = 0,
        memory: Sequence[Choice] = (),
        plan: Sequence[Choice] = (),
        ahead: int = 0,
    ) -> Decision:
        """What to award at `state.now`. `memory` is that of the decision before; `plan` may come from somebody else;
        `ahead`: what must begin within so many ticks is awarded too, so that awards are there in time."""
        weights = weights or Weights()
        found = self.plan(state, weights, _seeds(state, memory, plan), seed)
        until = state.now + ahead
        made = found.committed(until) if found.committed else committed(decode(state, found.sequence), until)
        sequence, value = found.sequence, found.value
        if made.awards and (later := self.later(state, weights, sequence, made.awards)):
            state, sequence, value = raised(state, later.floors), later.sequence, later.value
            made = committed(decode(state, sequence), until)
        return Decision(
            awards=made.awards,
            again_at=made.again_at,
            memory=made.rest,
            state=state,
            sequence=sequence,
            value=value,
            iterations=found.iterations,
            stuck=made.stuck,
        )

    def later(self, state: State, weights: Weights, sequence: Sequence[Choice], awards: Sequence[Bid]) -> Later | None:
        """What of the awards had better wait; None: nothing, as with every judge that does not weigh."""
        return None


class ByRule(Judge):
    """A rule of `messages.dispatch.rules`."""

    kind: Literal["fifo", "sjf", "ljf", "eq11", "greedy"]

    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """What the rule does, unless parts would block each other."""
        schedule = run(state, RULES[self.kind], weights)
        if schedule.faults:
            found = (decode(state, one) for one in seeds)
            schedule = next((one for one in found if not one.faults), schedule)
        return Found(schedule.sequence, measures(schedule).value(weights), 0)


class Mcts(Judge):
    """Monte Carlo tree search in plain Python: about 1 ms per iteration with 24 jobs of 3 steps."""

    kind: Literal["mcts"] = "mcts"
    seconds: float = Field(default=0.1, gt=0, le=3600, description="time per decision")
    iterations: int | None = Field(default=None, ge=0, le=10**9, description="instead of a time; repeatable")

    def plan(self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int) -> Found:
        """The best sequence found: no worse than any rule and any seed, unless more jobs are to be reckoned with."""
        began = time.monotonic()
        wide = widened(state)
        whole = self.seconds * (1 - LATER if weights.carbon and varies(state) else 1)
        seconds = whole if wide is None else SEARCHED * whole
        found = self.searched(state, weights, seeds, seed, seconds)
        if wide is None:
            return found
        until = None if self.iterations is not None else began + whole
        sequence = settled(state, weights, found.sequence, wide, self.tried(wide), seed=seed, until=until)
        return Found(sequence, measures(decode(state, sequence)).value(weights), found.iterations)

    def searched(
        self, state: State, weights: Weights, seeds: Iterable[Sequence[Choice]], seed: int, seconds: float
    ) -> Found:
        """The tree search."""
        return look_ahead(state, weights, self.iterations, seconds, seeds=seeds, seed=seed)

    def tried(self, wide: Wide) -> Tried:
        """What sequences come to in futures."""
        return partial(come_to, wide)

    def later(self, state: State, weights: Weights, sequence: Sequence[Choice], awards: Sequence[Bid]) -> Later | None:
        """What gains by waiting for a cleaner hour."""
        if not weights.carbon or not varies(state):
            return None
        until = None if self.iterations is not None else time.monotonic() + LATER * self.seconds
        return cleaner(state, sequence, awards, self.worth(state, weights), until=until)

    def worth(self, state: State, weights: Weights) -> Worth:
        """What sequences come to where some jobs wait."""
        return worth_of(state, weights)


PlainJudge = Annotated[ByRule | Mcts, Field(discriminator="kind")]


def _seeds(state: State, memory: Sequence[Choice], plan: Sequence[Choice]) -> Iterator[Sequence[Choice]]:
    """Made when they are asked for: a rule needs none as long as no parts would block each other."""
    for one in (memory, plan):
        if one:
            yield revised(state, one)
    if any(station.limit is not None for station in state.shop.machines.values()):
        yield _one_by_one(state)


def _one_by_one(state: State) -> list[Choice]:
    """Job after job, parts that lie in a machine's way first, each step where it is done quickest."""
    first = sorted(state.open(), key=lambda job: not state.jobs[job].holds)
    routes = ((job, state.shop.route[job][state.jobs[job].next :]) for job in first)
    return [(job, quickest(step)) for job, route in routes for step in route]

"""Ways to learn, side by side on the same cells, chance and beginnings: one seed, one heterogeneity.

    course = Arena(Case(seed=1_000, heterogeneity=0.3), Pace()).local()    # what every cell earns, and its way there

local     every cell for itself
fedavg    one policy for all: everything is averaged, weighted by samples (McMahan et al., 2017)
tuned     the policy of `fedavg`, then some steps by every cell alone,
longer    and the same with as many steps as the product takes to adapt a version
own       everything is averaged as in `fedavg`; every cell decides by its own copy, as its steps of the round left it
body      the body alone is shared, by clipped mean; every cell has a head of its own, and adapts both at take-up
adapted   the product's default: everything is shared, by clipped mean; every cell decides part of the way from it to
          what some steps on its own make of it (`edge.adaptation`)
pooled    one learner that sees what all cells did: not possible where data stay on the floor; reported only

Every arm takes the same optimiser steps a round and cell; those of `tuned`, `longer`, `body` and `adapted` at take-up
are made on a copy, and come on top. Cells decide by what they learned last, one random decision in ten, and learn at
the end of every day. Judged greedily on days nobody learns from: *objective* = money - price · kg of carbon, a day.
The price is the same for all, and fixed: it is what a multiplier comes to, held still so that no arm gains by keeping
another limit than the next. What was learned alone is judged by its running mean (the target network), as what was
adapted is by a mean of its own: no arm is judged by its last batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from cloud.aggregation import Mean
from cloud.learning_settings import RoundSettings
from edge.learner import Learner, learn, pull
from edge.learning import LearnerSettings
from firmware_sim.cell import DAY, cell_of
from messages.cells import NETWORK
from messages.errors import BrokenInvariant
from messages.initial import initial
from messages.learning import Round, Training, Update
from shoal.experiments.fleet import ADAPT_HALF, ADAPT_STEPS, F32, Federation, Member, settled

ARMS = ("local", "fedavg", "tuned", "longer", "own", "body", "adapted", "pooled")
DEFAULT = "adapted"
RIVALS = ("local", "fedavg", "tuned", "longer", "own", "body")
"""What the default must not be inferior to."""


@dataclass(frozen=True)
class Pace:
    """How long, how often. The same for every arm."""

    cells: int = 4
    rounds: int = 5
    days: int = 5
    """of a round"""
    steps: int = 400
    """optimiser steps of a round and cell"""
    tuned_steps: int = 100
    """that `tuned` learns alone"""
    adapt_steps: int = ADAPT_STEPS
    """that `longer`, `body` and `adapted` do"""
    adapt_half: int = ADAPT_HALF
    """transitions at which half of the way is gone"""
    explore: float = 0.1
    price: float = 1.0
    """money per kg"""
    judged_days: int = 40
    """at the end, a quarter of them before: of 10, most that differs in the worst cell would be chance of these days"""
    looks: int = 2
    """times that arms are judged, evenly over the rounds"""
    new_days: int = 4
    """first days of a new cell"""
    learner: LearnerSettings = field(default_factory=lambda: LearnerSettings(scale=20.0, tau=0.02, gamma=0.97))

    def looked_at(self, number: int) -> bool:
        """Are the arms judged after this round?"""
        return number * self.looks // self.rounds > (number - 1) * self.looks // self.rounds


@dataclass(frozen=True)
class Case:
    """One pair of everything: what is common to all arms."""

    seed: int
    heterogeneity: float


@dataclass
class Course:
    """What came of an arm."""

    rounds: list[int] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)
    """mean objective after these rounds"""
    cells: list[float] = field(default_factory=list)
    """objective of every cell at the end"""
    money: list[float] = field(default_factory=list)
    kg: list[float] = field(default_factory=list)


class Arena:
    """One case: makes the members of an arm, and judges them."""

    def __init__(self, case: Case, pace: Pace) -> None:
        self.case = case
        self.pace = pace
        self.start = initial(NETWORK, np.random.default_rng((case.seed, 4)))

    def members(self) -> list[Member]:
        """The cells, as they are before anything was learned."""
        return [self.member(k) for k in range(self.pace.cells)]

    def member(self, number: int) -> Member:
        """One of them; from `cells` on: a new one."""
        return Member.of(
            f"cell-{number}",
            cell_of(self.case.seed * 100 + number, self.case.heterogeneity),
            seed=self.case.seed,
            number=number,
            settings=self.pace.learner,
            start=self.start,
            price=self.pace.price,
        )

    def look(
        self, course: Course, number: int, members: Sequence[Member], learner: Callable[[Member], Learner]
    ) -> None:
        """Judge them by these learners, if it is time."""
        if not self.pace.looked_at(number):
            return
        days = self.pace.judged_days if number == self.pace.rounds else max(1, self.pace.judged_days // 4)
        found = [one.judged(learner(one), days) for one in members]
        course.cells = [money - self.pace.price * kg for money, kg in found]
        course.money, course.kg = [money for money, _ in found], [kg for _, kg in found]
        course.rounds.append(number)
        course.curve.append(float(np.mean(course.cells)))

    def day(self, member: Member) -> None:
        """One day of work."""
        member.live(DAY, explore=self.pace.explore)

    def portion(self, day: int, steps: int) -> int:
        """Steps that are due at the end of this day of a round, so that all are done at the end of the last."""
        return steps * (day + 1) // self.pace.days - steps * day // self.pace.days

    # --- the arms ---

    def local(self) -> Course:
        """Every cell for itself."""
        course, members = Course(), self.members()
        for number in range(1, self.pace.rounds + 1):
            for one in members:
                for day in range(self.pace.days):
                    self.day(one)
                    for _ in range(self.portion(day, self.pace.steps)):
                        learn(one.learner, one.learns)
            self.look(course, number, members, lambda one: settled(one.copy()))
        return course

    def fedavg(self) -> dict[str, Course]:
        """One policy for all; the same, tuned by every cell, twice; and own copies."""
        course, tuned, longer, own, members = Course(), Course(), Course(), Course(), self.members()
        settings = RoundSettings(training=Training(steps=self.pace.steps), experience=0, aggregate=Mean())
        with Federation.of(settings, members, start=self.start) as federation:
            for number in range(1, self.pace.rounds + 1):
                federation.round(self._learns, members)
                base = federation.base
                self.look(course, number, members, partial(Member.tuned, base=base, steps=0))
                self.look(tuned, number, members, partial(Member.tuned, base=base, steps=self.pace.tuned_steps))
                self.look(longer, number, members, partial(Member.tuned, base=base, steps=self.pace.adapt_steps))
                self.look(own, number, members, lambda one: settled(one.copy()))
        return {"fedavg": course, "tuned": tuned, "longer": longer, "own": own}

    def shared(self, *, whole: bool) -> tuple[Course, F32]:
        """What the product does, with everything shared or the body alone; and what was learned together, (P,)."""
        course, members, pace = Course(), self.members(), self.pace
        settings = RoundSettings(training=Training(steps=pace.steps), experience=0, whole=whole)
        with Federation.of(settings, members, start=self.start) as federation:
            for number in range(1, pace.rounds + 1):
                federation.round(self._learns, members)
                base = federation.base if whole else federation.base[: NETWORK.shared]
                take_up = partial(Member.adapted, base=base, steps=pace.adapt_steps, half=pace.adapt_half)
                self.look(course, number, members, take_up)
            return course, federation.base

    def pooled(self) -> Course:
        """One learner for all cells, from what all of them did."""
        course, members, pace = Course(), self.members(), self.pace
        first = members[0]
        settings = pace.learner.model_copy(update={"remembered": pace.learner.remembered * pace.cells})
        one_learner = Learner.fresh(NETWORK, settings, first.learns)
        pull(one_learner, self.start)
        one_learner.multiplier = pace.price
        for one in members:
            one.learner = one_learner
        for number in range(1, pace.rounds + 1):
            for day in range(pace.days):
                for one in members:
                    self.day(one)
                for _ in range(pace.cells * self.portion(day, pace.steps)):
                    learn(one_learner, first.learns)
            self.look(course, number, members, lambda one: settled(one.copy()))
        return course

    def new_cell(self, base: F32 | None) -> list[float]:
        """Objective of the first days of a new cell, as lived; from scratch, or with what was learned together, (P,).

        With a base it decides by it, and adapts it anew at the end of every day, as the product does. From scratch it
        learns as many steps as a round has, and decides by what settled.
        """
        one, pace = self.member(50), self.pace
        decides = settled(one.copy())
        if base is not None:
            decides.theta[:] = base
        found = []
        for _ in range(pace.new_days):
            money, kg = one.live(DAY, explore=pace.explore, by=decides)
            found.append(money - pace.price * kg)
            if base is not None:
                decides = one.adapted(base, steps=pace.adapt_steps, half=pace.adapt_half)
                continue
            for _ in range(pace.steps):
                learn(one.learner, one.learns)
            decides = settled(one.copy())
        return found

    # --- inside ---

    def _learns(self, one: Member, asked: Round) -> Update:
        """A round of one cell: every day it works, and then learns its portion."""
        update, steps = None, one.trainer.left
        for day in range(self.pace.days):
            self.day(one)
            update = one.trainer.work(self.portion(day, steps), asked.opened_at) or update
        if update is None:
            raise BrokenInvariant(f"{one.name}: round {asked.round} ended without an update")
        return update

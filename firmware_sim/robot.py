"""A simulated cell as a device: told by actions, on its grid of steps, as `messages.cells` says.

    robot = Robot(Cell(spec, rng), step_us=60 * SECOND, start=t0)
    robot.act(action, at=now)            # events: only a refusal has one
    robot.advance(now)                   # every step until now
    robot.sample(at)                     # what it was like at points of the grid

Pure and deterministic: time is an argument, chance comes with the cell. It remembers what it has not sent, at most KEPT
samples; what is older has no value any more.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.cell import Cell
from firmware_sim.signals import Floats, Ints
from messages.cells import ACTIONS, DID, EARNED, EMITTED, METRICS, SAFE
from messages.contracts import Action, MachineEvent

KEPT = 10_000
KNOWN = 256
"""Ids of actions remembered, the last ones: a repeated action is not done again."""
COLUMNS = (*METRICS, EARNED, EMITTED, DID)


@dataclass
class Robot:
    """One cell since its boot at plant time `start`."""

    cell: Cell
    step_us: int
    start: int
    skew_us: int = 0
    """what its clock is ahead: by that clock it judges whether an action is still valid"""
    earned: float = 0.0
    emitted_kg: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    """action → steps it was taken up for; a robot under repair takes it up to no effect"""
    missed: int = 0
    """steps for which nobody had said anything that was valid: it waited"""
    late: int = 0
    """actions that came when their time was over"""
    refused: int = 0
    at: int = field(init=False)
    """the last point of the grid that is past"""
    _begun: bool = field(default=False, init=False)
    _asked: Action | None = field(default=None, init=False)
    _known: OrderedDict[str, None] = field(default_factory=OrderedDict, init=False)
    _kept: deque[tuple[int, tuple[float, ...]]] = field(default_factory=lambda: deque(maxlen=KEPT), init=False)

    def __post_init__(self) -> None:
        self.at = self.start // self.step_us * self.step_us

    def act(self, action: Action, at: int) -> list[MachineEvent]:
        """Take it in at plant time `at`; the newest counts. The event of a refusal, or nothing."""
        self.advance(at - 1)  # one that comes at the very point of a step is in time for it
        if action.id in self._known:
            return []
        self._known[action.id] = None
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        if action.kind not in ACTIONS:
            self.refused += 1
            detail = f"{action.kind}: a cell knows {', '.join(ACTIONS)}"
            return [MachineEvent(at=at, kind="refused", action=action.id, detail=detail)]
        if action.valid_until < at + self.skew_us:
            self.late += 1
        else:
            self._asked = action
        return []

    def advance(self, now: int) -> None:
        """Do every step until `now`, now included."""
        while self.at + self.step_us <= now:
            self.at += self.step_us
            did = SAFE
            if self._begun:
                did = self._step()
            self._begun = True
            self._kept.append((self.at, (*self.cell.values(), self.earned, self.emitted_kg, ACTIONS.index(did))))

    def sample(self, at: Ints) -> dict[str, Floats]:
        """True values at points of the grid that are past; what is no longer remembered is NaN."""
        known = dict(self._kept)
        nothing = (math.nan,) * len(COLUMNS)
        rows = np.array([known.get(moment, nothing) for moment in at.tolist()], np.float64).reshape(-1, len(COLUMNS))
        return {name: rows[:, place].copy() for place, name in enumerate(COLUMNS)}

    def forget(self, before: int) -> None:
        """Drop samples until `before`: nobody asks for them again."""
        while self._kept and self._kept[0][0] <= before:
            self._kept.popleft()

    def summary(self) -> dict[str, object]:
        """Counters, for a report."""
        return {
            "steps": sum(self.done.values()),
            "done": dict(self.done),
            "missed": self.missed,
            "late": self.late,
            "refused": self.refused,
            "earned": round(self.earned, 2),
            "emitted_kg": round(self.emitted_kg, 3),
        }

    def _step(self) -> str:
        asked, self._asked = self._asked, None
        valid = asked is not None and asked.valid_until >= self.at + self.skew_us
        did = asked.kind if asked is not None and valid else SAFE
        self.missed += not valid
        money, carbon_kg = self.cell.step(ACTIONS.index(did))
        self.earned += money
        self.emitted_kg += carbon_kg
        self.done[did] += 1
        return did

"""The simulated cell as a Gymnasium environment, for anyone's agent.

    env = CellEnv(cell_of(3, heterogeneity=0.6), days=5, seed=1)
    state, info = env.reset()
    state, money, over, cut_off, info = env.step(env.action_space.sample())
    info["cost"], info["limit_kg"]             # kg of this step; kg allowed a day

Observations are `messages.cells.METRICS` scaled to 0…1 and actions are numbers of `messages.cells.ACTIONS`, as on the
bus: what is learned here decides there. Carbon is a cost beside the reward, in `info`, as constrained agents expect it;
an agent that knows only rewards sets `multiplier`, and gets `money - multiplier * cost`. Episodes are cut off after
`days`; a day is 96 steps. The same seed and actions give the same episode, and chance is the same whatever is decided.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from firmware_sim.cell import DAY, Cell, CellSpec
from messages.cells import ACTIONS, HIGH, METRICS

State = NDArray[np.float32]


class CellEnv(gymnasium.Env[State, np.int64]):
    """One cell. `seed` is of the first episode; later ones go on from it unless `reset` is given another."""

    metadata = {"render_modes": []}  # noqa: RUF012 - as the base class has it

    def __init__(self, spec: CellSpec | None = None, days: int = 1, seed: int = 0, multiplier: float = 0.0) -> None:
        if days < 1:
            raise ValueError(f"days={days}: an episode has one day at least")
        if not 0 <= multiplier < float("inf"):
            raise ValueError(f"multiplier={multiplier}: carbon is a cost, give 0 or more")
        self.spec_of_cell, self.days, self.multiplier = spec or CellSpec(), days, multiplier
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (len(METRICS),), np.float32)
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._first_seed: int | None = seed
        self._cell: Cell | None = None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        """A new cell on the first step of a day, with nothing in stock."""
        super().reset(seed=self._first_seed if seed is None else seed)
        self._first_seed = None
        self._cell, self._steps = Cell(self.spec_of_cell, self.np_random, days=self.days), 0
        return self._state(self._cell), self._info(self._cell, 0.0)

    def step(self, action: np.int64 | int) -> tuple[State, float, bool, bool, dict[str, Any]]:
        """Decide for 15 min: state, reward, never over, cut off after `days`, info with the cost."""
        if self._cell is None or self._steps >= self.days * DAY:
            raise gymnasium.error.ResetNeeded("the episode is over, or has not begun: call reset()")
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"action {action!r}: there are 0 to {len(ACTIONS) - 1}, see messages.cells.ACTIONS")
        before = self._cell.emitted
        money, carbon_kg = self._cell.step(int(action))
        self._steps += 1
        info = self._info(self._cell, carbon_kg)
        info["emitted_kg"] = before + carbon_kg  # of the day this step belongs to, its last one too
        reward = money - self.multiplier * carbon_kg
        return self._state(self._cell), reward, False, self._steps >= self.days * DAY, info

    @staticmethod
    def _state(cell: Cell) -> State:
        return np.clip(cell.state / np.array(HIGH, np.float32), 0.0, 1.0)

    @staticmethod
    def _info(cell: Cell, cost_kg: float) -> dict[str, Any]:
        return {"cost": cost_kg, "limit_kg": cell.spec.limit_kg, "emitted_kg": cell.emitted}

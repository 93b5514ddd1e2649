"""Two robot arms that take products apart on a moving belt: many such cells at once, none of which exists.

    cells = TwoArms(spec, stream)          # a row per cell
    scene = cells.read()                      # what a controller may know now
    cells.step(word, fresh)                   # 10 ms with the command in force; (rows, 2) index into WORDS

The arms stand face to face across the belt. Each moves on its own line: home and bin at one end, the product at the
other; above the product they are in each other's way. Seams of the products pass the tools one after the other, by
turns one for each arm. The arm must hold its tool there and be told to `separate` while the seam is within `reach`:
earlier or later the part is left on the product, a *missed* step. What is carried home and dropped is *recovered*.
Tools nearer to each other than `clear` are a *collision*: what the arms hold is lost, belt and arms stand for
`stop_s`, then begin again from home. The belt waits for nobody else.

A command is a word, in force until the next one. `separate` and `drop` are done once, when they arrive. Ends of
travel are mechanical. Positions are metres from the product's middle along an arm's own line.
Every figure is invented and only plausible; where it comes from stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

TICK_S = 0.01
WORDS = ("hold", "in", "creep_in", "creep_out", "out", "separate", "drop")
HOLD, IN, CREEP_IN, CREEP_OUT, OUT, SEPARATE, DROP = range(7)
HOME = 0.6
"""End of travel over the bin: half the reach of a small collaborative robot."""
FAR = -0.3
"""The other end of travel, beyond the product."""
DROP_TICKS = 30
NEAR_HOME = 0.03


@dataclass(frozen=True)
class ArmsSpec:
    """What one cell is like."""

    belt: float = 0.1
    """m/s; belts that robots work on move at 0.05 to 0.5"""
    pitch: float = 0.3
    """m from seam to seam: 80 % of the time between two is needed to change places at the product"""
    uneven: float = 0.03
    """m, how much the pitch differs, evenly"""
    reach: float = 0.015
    """m, half of what the tool can take: a gripper opened 30 mm wider than the part, so 300 ms on this belt"""
    fast: float = 0.5
    """m/s; half of what small robots move at in automatic mode, twice what is allowed beside people"""
    creep: float = 0.1
    brake: float = 2.0
    """m/s², speeding up too"""
    exact: float = 0.01
    """m, how well the tool must stand over the product"""
    wait: float = 0.2
    """m, where an arm waits for its turn: a tool's width of air to the other tool's place"""
    clear: float = 0.1
    """m between the middles of the tools: two grippers of 100 mm"""
    separate_s: float = 0.5
    """of one separation, ±20 %"""
    stop_s: float = 10.0
    """after a collision: the protective stop may be left after 5 s, then back home slowly"""

    @property
    def seams_h(self) -> float:
        """Seams that pass in an hour, if nothing stops."""
        return 3600 * self.belt / self.pitch


@dataclass(frozen=True)
class Stream:
    """The products of every cell, whatever is decided: (rows, seams)."""

    gaps: F64
    """m between this seam and the one before"""
    ticks: I64
    """a separation takes so long"""

    @classmethod
    def of(cls, spec: ArmsSpec, rng: np.random.Generator, *, duration_s: float) -> Stream:
        """One row, with seams enough for `duration_s`."""
        seams = int(duration_s * spec.belt / (spec.pitch - spec.uneven)) + 8
        gaps = rng.uniform(spec.pitch - spec.uneven, spec.pitch + spec.uneven, (1, seams))
        gaps[0, 0] = 0.6  # the arms begin at home
        return cls(gaps, np.rint(rng.uniform(0.8, 1.2, (1, seams)) * spec.separate_s / TICK_S).astype(np.int64))

    @classmethod
    def joined(cls, rows: list[Stream]) -> Stream:
        """The rows below each other; the shorter ones end in repeats of their last seam, which nobody comes to."""
        most = max(one.gaps.shape[1] for one in rows)
        padded = [((0, 0), (0, most - one.gaps.shape[1])) for one in rows]
        return cls(
            np.concatenate([np.pad(one.gaps, pad, "edge") for one, pad in zip(rows, padded, strict=True)]),
            np.concatenate([np.pad(one.ticks, pad, "edge") for one, pad in zip(rows, padded, strict=True)]),
        )


@dataclass(frozen=True)
class Scene:
    """What a controller may know of every cell at one time."""

    at: F64
    """(rows, 2) m"""
    holding: Flags
    """(rows, 2) a part"""
    busy: Flags
    """(rows, 2) separating or dropping: nothing else is done"""
    turn: I64
    """(rows,) whose seam comes next, 0 or 1"""
    seam: F64
    """(rows,) m until it is under the tool; negative: past it"""


class TwoArms:
    """Many cells, a row each, 10 ms at a time, for no longer than the stream was made for."""

    def __init__(self, specs: list[ArmsSpec], stream: Stream) -> None:
        """One spec per row of the stream."""
        rows = len(specs)

        def each(name: str) -> F64:
            return np.array([getattr(one, name) for one in specs])

        self._belt, self._reach, self._clear = each("belt") * TICK_S, each("reach"), each("clear")
        self._exact, self._change = each("exact")[:, None], each("brake")[:, None] * TICK_S
        self._stop = np.rint(each("stop_s") / TICK_S).astype(np.int64)
        fast, creep, zero = each("fast"), each("creep"), np.zeros(rows)
        self._speeds = np.stack([zero, -fast, -creep, creep, fast, zero, zero], axis=1)  # (rows, words)
        self._rows = np.arange(rows)
        self._stream = stream
        self._at = np.full((rows, 2), HOME)
        self._speed = np.zeros((rows, 2))
        self._holding = np.zeros((rows, 2), np.bool_)
        self._routine = np.zeros((rows, 2), np.int64)
        """ticks until what is being done is done"""
        self._next = np.zeros(rows, np.int64)
        self._seam = stream.gaps[:, 0].copy()
        self._standing = np.zeros(rows, np.int64)
        self.passed = np.zeros(rows, np.int64)
        """seams that were separated, or missed"""
        self.recovered = np.zeros(rows, np.int64)
        self.missed = np.zeros(rows, np.int64)
        self.lost = np.zeros(rows, np.int64)
        """separated, and lost in a collision"""
        self.collisions = np.zeros(rows, np.int64)
        self.log: list[tuple[int, int, bool]] | None = None
        """(row, seam, separated), if anybody wants to know; grows without bound"""

    def read(self) -> Scene:
        """Everything that can be measured; a copy."""
        return Scene(self._at.copy(), self._holding.copy(), self._routine > 0, self._next % 2, self._seam.copy())

    @property
    def held(self) -> I64:
        """(rows,) parts in the arms' hands."""
        parts: I64 = self._holding.sum(axis=1)
        return parts

    def step(self, word: I64, fresh: Flags) -> None:
        """10 ms; `fresh` says which commands arrived just now."""
        standing = self._standing > 0
        moving = ~standing
        free = (self._routine == 0) & moving[:, None]
        self._move(np.where(free, word, HOLD), moving)
        self._work(word, fresh & free)
        self._routine -= (self._routine > 0) & moving[:, None]
        self._seam -= np.where(moving, self._belt, 0.0)
        late = self._seam < -self._reach
        if late.any():
            self._pass(np.flatnonzero(late), separated=False)
        crash = (self._at[:, 0] + self._at[:, 1] < self._clear) & moving
        self._standing -= standing
        if crash.any():
            self._crash(np.flatnonzero(crash))

    def _move(self, word: I64, moving: Flags) -> None:
        wanted = self._speeds[self._rows[:, None], word]
        self._speed += np.clip(wanted - self._speed, -self._change, self._change)
        self._speed *= moving[:, None]
        self._at += self._speed * TICK_S
        ended = (self._at >= HOME) | (self._at <= FAR)
        np.clip(self._at, FAR, HOME, out=self._at)
        self._speed[ended] = 0.0

    def _work(self, word: I64, told: Flags) -> None:
        if not told.any():
            return
        drop = told & (word == DROP) & self._holding & (self._at >= HOME - NEAR_HOME)
        if drop.any():
            self._routine[drop] = DROP_TICKS
            self._holding &= ~drop
            self.recovered += drop.sum(axis=1)
        pull = told & (word == SEPARATE) & ~self._holding & (np.abs(self._at) <= self._exact)
        for row, arm in zip(*np.nonzero(pull), strict=True):
            seam = self._next[row]
            self._routine[row, arm] = self._stream.ticks[row, seam]
            self._speed[row, arm] = 0.0
            if seam % 2 == arm and abs(self._seam[row]) <= self._reach[row]:
                self._holding[row, arm] = True
                self._pass(np.array([row]), separated=True)

    def _pass(self, rows: I64, *, separated: bool) -> None:
        if self.log is not None:
            self.log += [(int(row), int(self._next[row]), separated) for row in rows]
        self.passed[rows] += 1
        if not separated:
            self.missed[rows] += 1
        self._next[rows] += 1
        self._seam[rows] += self._stream.gaps[rows, self._next[rows]]

    def _crash(self, rows: I64) -> None:
        self.collisions[rows] += 1
        self.lost[rows] += self._holding[rows].sum(axis=1)
        self._holding[rows] = False
        self._routine[rows] = 0
        self._speed[rows] = 0.0
        self._at[rows] = HOME
        self._standing[rows] = self._stop[rows]

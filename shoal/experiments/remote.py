"""A controller at the other end of a line: the rule that decides, how late its commands come, and what comes of it.

    outcome = simulate([Case("edge", EDGE), Case("cloud", CLOUD)], seeds=range(20), duration_s=600)
    outcome.recovered                    # (cases, seeds); the same seed: the same products, the same luck of the line

Every `PERIOD_S` the controller reads both arms and the seam, and sends each arm a word. `decide` is a function of what
was read, the same wherever it runs. The delay from reading to arrival is the line's: `base_ms`, or for a share `rate`
of the messages `spike_ms` instead. Draws are independent per message, or come in episodes that hit both arms. A
connection keeps the order of messages (TCP does, and so MQTT does): what follows a late message waits behind it;
`overtaking` lifts that, then an older command is dropped where a newer one has come. A command is in force until the
next one, but no longer than `VALID_S` after its reading; then the arm holds still.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.two_arms import (
    CREEP_IN,
    CREEP_OUT,
    DROP,
    F64,
    HOLD,
    HOME,
    I64,
    IN,
    NEAR_HOME,
    OUT,
    SEPARATE,
    TICK_S,
    ArmsSpec,
    Flags,
    Scene,
    Stream,
    TwoArms,
)

PERIOD_S = 0.1
PERIOD = round(PERIOD_S / TICK_S)
VALID_S = 0.5
"""A command not renewed for so long is void; makers of robots use 0.1 to 0.5 s."""
IN_ZONE = 0.02
"""An arm so far inside its waiting place is in the other's way."""
MOST_MS = 5_000.0

Log = list[tuple[int, int, bool]]
"""(row, seam, separated)"""


@dataclass(frozen=True)
class Latency:
    """How long a command takes from the reading it is made of to the arm."""

    base_ms: float
    rate: float = 0.0
    """share of messages that come late"""
    spike_ms: float = 0.0
    """what those take, in all"""
    overtaking: bool = False
    episode_ms: float = 0.0
    """mean length of an episode of late messages; 0: every message for itself"""


EDGE = Latency(10.0)
"""On the node: the most it may take at p99 through a real broker, so more than it does."""
CLOUD = Latency(30.0, rate=0.1, spike_ms=300.0)


@dataclass(frozen=True)
class Case:
    """One line to one kind of cell."""

    latency: Latency
    spec: ArmsSpec = field(default_factory=ArmsSpec)
    allowed_s: float = 0.03
    """delay the rule reckons with when it brakes, beside one period"""


@dataclass(frozen=True)
class Outcome:
    """(cases, seeds) each."""

    recovered: I64
    missed: I64
    passed: I64
    lost: I64
    collisions: I64
    hours: float

    @property
    def per_hour(self) -> F64:
        """Components recovered per hour."""
        return self.recovered / self.hours


class Rule:
    """What decides, for many cells at once. It keeps nothing between two decisions."""

    def __init__(self, specs: Sequence[ArmsSpec], allowed_s: Sequence[float]) -> None:
        fast, brake = np.array([one.fast for one in specs]), np.array([one.brake for one in specs])
        self._stopping = (fast**2 / (2 * brake) + fast * (PERIOD_S + np.array(allowed_s)))[:, None]
        self._wait = np.array([one.wait for one in specs])[:, None]
        self._exact = np.array([one.exact for one in specs])[:, None]
        self._reach = np.array([one.reach for one in specs])

    def decide(self, scene: Scene) -> I64:
        """(rows, 2) what each arm is told.

        An arm with a part goes home and drops it. Without one it goes to the product if the next seam is its own and
        the other arm is out of the way, else to its waiting place: fast, then creeping from where it could still stop.
        """
        at = scene.at
        mine = scene.turn[:, None] == np.array([0, 1])
        clear = at[:, ::-1] > self._wait - IN_ZONE
        go = mine & clear
        off = at - np.where(go, 0.0, self._wait)
        near = np.abs(off) <= self._exact
        word = np.where(off > 0, np.where(off > self._stopping, IN, CREEP_IN), CREEP_OUT)
        word = np.where(off < -self._stopping, OUT, word)
        word = np.where(near, HOLD, word)
        here = np.abs(scene.seam) <= self._reach
        word = np.where(go & near & here[:, None], SEPARATE, word)
        word = np.where(scene.holding, np.where(at >= HOME - NEAR_HOME, DROP, OUT), word)
        return np.where(scene.busy, HOLD, word)


class Line:
    """Commands under way to many cells: when each arrives, and which is in force.

    Bound: remembers as many decisions as the slowest message may be late.
    """

    def __init__(self, latencies: Sequence[Latency]) -> None:
        rows = len(latencies)
        slowest = max(max(one.base_ms, one.spike_ms) for one in latencies)
        if not 0 < slowest <= MOST_MS:
            raise ValueError(f"{slowest:g} ms: latencies are above 0 and at most {MOST_MS:g} ms")
        self._base = np.array([_ticks(one.base_ms) for one in latencies])[:, None]
        self._spike = np.array([_ticks(one.spike_ms) for one in latencies])[:, None]
        self._rate = np.array([one.rate for one in latencies])[:, None]
        self._ordered = np.array([not one.overtaking for one in latencies])[:, None]
        mean = np.array([max(one.episode_ms / 1000 / PERIOD_S, 0.0) for one in latencies])[:, None]
        self._episodes = mean > 0
        self._leave = 1 / np.maximum(mean, 1.0)
        self._enter = self._rate * self._leave / np.maximum(1 - self._rate, 1e-9)
        self._late = np.zeros((rows, 2), np.bool_)
        self._size = _ticks(slowest) + 1
        self._due = np.full((self._size, rows, 2), -1, np.int64)
        self._kept = self._size // PERIOD + 2
        self._words = np.zeros((self._kept, rows, 2), np.int64)
        self._arrival = np.zeros((rows, 2), np.int64)
        self._force = np.full((rows, 2), -1, np.int64)
        self._word = np.zeros((rows, 2), np.int64)
        self._rows, self._arms = np.arange(rows)[:, None], np.arange(2)[None, :]

    def send(self, number: int, words: I64, luck: F64) -> None:
        """Decision `number`, made of what was read at `number * PERIOD`; `luck` (rows, 2) in 0…1."""
        one = luck[:, :1]
        begun = one < (self._rate if number == 0 else self._enter)
        episode = np.where(self._late, one >= self._leave, begun)
        self._late = np.where(self._episodes, episode, luck < self._rate)
        now = number * PERIOD
        arrival = now + np.where(self._late, self._spike, self._base)
        self._arrival = np.where(self._ordered, np.maximum(arrival, self._arrival), arrival)
        self._words[number % self._kept] = words
        self._due[self._arrival % self._size, self._rows, self._arms] = number

    def arrive(self, tick: int) -> tuple[I64, Flags]:
        """The words in force at `tick`, and which of them came just now."""
        due = self._due[tick % self._size]
        fresh = due > self._force
        if fresh.any():
            self._force = np.where(fresh, due, self._force)
            self._word = np.where(fresh, self._words[due % self._kept, self._rows, self._arms], self._word)
        due[:] = -1
        void = tick - self._force * PERIOD > _VALID
        return np.where(void, HOLD, self._word), fresh & ~void


_VALID = round(VALID_S / TICK_S)


def luck_of(seed: int, decisions: int) -> F64:
    """(decisions, 2) the luck of a line: who is late is the same for every rate below."""
    return np.random.default_rng((seed, 1)).random((decisions, 2))


def products_of(spec: ArmsSpec, seed: int, duration_s: float) -> Stream:
    """The products that come by in a run."""
    return Stream.of(spec, np.random.default_rng((seed, 0)), duration_s=duration_s)


def simulate(
    cases: Sequence[Case],
    *,
    seeds: Sequence[int],
    duration_s: float,
    progress: Callable[[float], None] | None = None,
    log: Log | None = None,
) -> Outcome:
    """Every case with every seed. `progress` hears the share that is done, `log` what became of every seam."""
    rows = [(case, seed) for case in cases for seed in seeds]
    specs = [case.spec for case, _ in rows]
    ticks = round(duration_s / TICK_S)
    streams = {
        (spec, seed): products_of(spec, seed, duration_s) for spec in {case.spec for case in cases} for seed in seeds
    }
    cells = TwoArms(specs, Stream.joined([streams[case.spec, seed] for case, seed in rows]))
    cells.log = log
    rule = Rule(specs, [case.allowed_s for case, _ in rows])
    line = Line([case.latency for case, _ in rows])
    luck = np.stack([luck_of(seed, ticks // PERIOD + 1) for seed in seeds], axis=1)  # (decisions, seeds, 2)
    for tick in range(ticks):
        if tick % PERIOD == 0:
            number = tick // PERIOD
            line.send(number, rule.decide(cells.read()), np.tile(luck[number], (len(cases), 1)))
            if progress is not None and number % 100 == 0:
                progress(tick / ticks)
        cells.step(*line.arrive(tick))

    def shaped(counted: I64) -> I64:
        return counted.reshape(len(cases), len(seeds))

    return Outcome(
        recovered=shaped(cells.recovered),
        missed=shaped(cells.missed),
        passed=shaped(cells.passed),
        lost=shaped(cells.lost),
        collisions=shaped(cells.collisions),
        hours=duration_s / 3600,
    )


def _ticks(ms: float) -> int:
    return max(1, round(ms / 1000 / TICK_S))
